/** An instance that only observes, with all its services, beside others that act. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { type Bridge, createBridge, SERVICES } from '../../src/bridge.ts';
import { createSettableClock } from '../../src/clock.ts';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { NewMapping } from '../../src/domain/mapping.ts';
import { createLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { MappingStore } from '../../src/ports.ts';
import { aTask, MINUTE, NOW, POLICY, pending, requestBuilding, TASK_ID } from '../support/builders.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const OLD_TASK = 'OldycG7IhT6CSdg6WvVhkA';
const HOUR = 60 * MINUTE;

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

function newMapping(taskId: string): NewMapping {
  return {
    ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'runtests', state: 'submitted', priority: 0 },
    ...{ collapseKey: null, hasSlot: false, deadline: NOW + 24 * HOUR, takenUntil: null },
    ...{ externalId: `${taskId}/0/1`, submissions: 1 },
  };
}

/** One mapping that is due, since its build has started, and one that was closed long ago. */
async function aStore(): Promise<MappingStore> {
  const db = connect('sqlite::memory:');
  await migrate(db);
  undo.push(() => db.destroy());
  const store = createMappingStore(db);
  await store.adopt({ ...newMapping(TASK_ID), buildRequestId: 1, retriesReported: 0 }, NOW);
  const old = await store.adopt({ ...newMapping(OLD_TASK), buildRequestId: 2, retriesReported: 0 }, 0);
  if (old.kind === 'stored') {
    await store.release(old.mapping, { state: 'closed', resolved: 1 }, 1);
  }
  return store;
}

interface Observed {
  readonly bridge: Bridge;
  readonly store: MappingStore;
  /** Of the log, what it would do. */
  readonly wouldDo: unknown[];
  readonly heardFrom: string[];
}

async function anObserver(): Promise<Observed> {
  const store = await aStore();
  const wouldDo: unknown[] = [];
  const heardFrom: string[] = [];
  const queue = aQueue({
    status: async () => ({ kind: 'present', value: aTask([pending()]) }),
    statuses: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: aTask([pending()]) }])),
    async *listPending() {
      yield [TASK_ID];
    },
    async *listClaimed() {
      yield [];
    },
  });
  const ci = aLegacyCi({
    readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: requestBuilding() }])),
    async watch({ onGap }) {
      heardFrom.push('the legacy CI');
      onGap();
      return { stop: async () => undefined };
    },
  });
  const clock = createManualClock(NOW);
  const bridge = createBridge({
    store: { ...store, now: async () => clock.now() },
    ...{ queue, ci, policy: POLICY, services: SERVICES, instance: 'observer', version: 'test' },
    broker: {
      subscribe: () => ({
        async start() {
          heardFrom.push('Pulse');
        },
        stop: async () => undefined,
      }),
      close: async () => undefined,
    },
    clock: createSettableClock({ ...clock, uptime: clock.now }),
    metrics: createMetrics(),
    log: createLog({
      level: 'info',
      destination: {
        write(line) {
          const { msg, action } = JSON.parse(line);
          wouldDo.push(...(msg === 'would act, but only observes' ? [action] : []));
        },
      },
    }),
    rules: { isIgnored: () => false, isRestricted: () => false },
    timing: { leaseMs: 90_000, submitGraceMs: 30_000, cancelRetryMs: 15_000 },
    mode: 'observe',
    schedule: '',
    retentionMs: HOUR,
    ...{ batchSize: 500, concurrency: 16, jitterMs: 0, tempDir: '/nowhere', maxLogSize: 1, random: () => 0 },
    timer: () => ({ destroy: () => undefined }),
  });
  undo.push(() => bridge.stop());
  return { bridge, store, wouldDo, heardFrom };
}

describe('a bridge that observes', () => {
  it('changes no mapping, takes no message from others, and says what it would do', async () => {
    const { bridge, store, wouldDo, heardFrom } = await anObserver();
    const mappings = async () => [...(await store.mappingsOf(TASK_ID)), ...(await store.mappingsOf(OLD_TASK))];
    const before = await mappings();
    expect(before).toHaveLength(2);

    await bridge.start();
    await bridge.reflector.runOnce();
    await bridge.workQueue.add(TASK_ID);

    expect(await mappings()).toEqual(before);
    expect(heardFrom).toEqual([]);
    expect(wouldDo).toEqual(expect.arrayContaining(['claimRun', 'announceBuild']));
  });
});
