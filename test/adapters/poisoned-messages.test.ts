/** Messages that always fail, on a real broker, in a process that only listens. */
import { afterEach, expect, it } from '@jest/globals';
import slugid from 'slugid';
import { systemClock } from '../../src/clock.ts';
import { createPulseBroker } from '../../src/listeners/pulse-broker.ts';
import { createLog } from '../../src/log.ts';
import type { SubscriptionOptions } from '../../src/ports.ts';
import { eventually } from '../support/eventually.ts';
import { startPulsePublisher } from '../support/pulse-publisher.ts';
import { taskAt } from '../support/queue-emulator.ts';
import { rabbitmq } from '../support/services/index.ts';
import { choking, startSmallBridge } from '../support/small-bridge.ts';
import { EXCHANGES } from '../support/world.ts';
import { waiting } from './pulse-support.ts';

/** More than a listener holds at once. */
const POISONED = 60;

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function startPulse() {
  const rabbit = await rabbitmq().createVhost();
  undo.push(() => rabbit.drop());
  const { publish, close } = await startPulsePublisher(rabbit.adminUrl, EXCHANGES);
  undo.push(close);
  const log = createLog({ level: 'info', destination: { write: () => undefined } });
  const broker = createPulseBroker({ url: rabbit.url, namespace: 'bridge', clock: systemClock, log });
  undo.push(() => broker.close());
  let settled = 0;
  return {
    pulse: {
      ...broker,
      publish,
      subscribe: (options: SubscriptionOptions) =>
        broker.subscribe({
          ...options,
          async onMessage(message) {
            await options.onMessage(message);
            settled += 1;
          },
        }),
    },
    /** How many messages the bridge is done with. `rabbitmqctl` knows of those of a quorum queue seconds later. */
    settled: () => settled,
    left: () => waiting('queue/bridge/tasks', rabbit.adminUrl),
  };
}

it('do not hold up the one behind them, do not spin, and are left to the reflector with their reason', async () => {
  const poisoned = new Set<string>();
  const tries = new Map<string, number>();
  const { pulse, settled, left } = await startPulse();
  const master = choking((taskId) => {
    tries.set(taskId, (tries.get(taskId) ?? 0) + 1);
    return poisoned.has(taskId);
  });
  const { bridge, store, client, create, start } = await startSmallBridge(undo, master, {
    ...{ pulse, services: ['tc-listener'] },
  });
  await eventually(() => pulse.status().isConsuming, { timeoutMs: 20_000, what: 'the listener' });
  for (let count = 0; count < POISONED; count += 1) {
    const taskId = slugid.nice();
    poisoned.add(taskId);
    await client.createTask(taskId, taskAt(Date.now()));
  }
  const behind = await create();

  await eventually(async () => (await store.openMapping(behind))?.state === 'submitted', {
    ...{ timeoutMs: 45_000, what: 'the one behind' },
  });
  await eventually(() => settled() >= POISONED + 1, { timeoutMs: 30_000, what: 'the bridge to be done with all' });
  const failing = await store.list({ state: undefined, isFailing: true, limit: 100 });
  expect(failing.map((one) => one.kind === 'mapping' && one.mapping.lastError)).toEqual(
    Array.from({ length: POISONED }, () => 'the master chokes on it'),
  );
  expect([bridge.workQueue.size(), bridge.workQueue.parked()]).toEqual([0, POISONED]);
  expect(Math.max(...tries.values())).toBeLessThan(8);

  await bridge.stop();
  // What was not acknowledged would wait again after the stop.
  expect(await left()).toBe(0);
  await start(['reflector']);
  const [canceled = '', ...others] = poisoned;
  await client.cancelTask(canceled);
  poisoned.clear();
  const stateOf = async (taskId: string) => (await store.openMapping(taskId))?.state;
  await eventually(
    async () =>
      (await stateOf(canceled)) === undefined &&
      (await Promise.all(others.map(stateOf))).every((state) => state === 'submitted'),
    { timeoutMs: 60_000, what: 'the reflector to see to them' },
  );
});
