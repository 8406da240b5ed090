/** What goes wrong during a campaign. Each fault breaks something of its own for a while, and mends it. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ChaosProxy } from '../support/chaos-proxy.ts';
import { mariadb, rabbitmq } from '../support/services/index.ts';
import type { Random } from './random.ts';
import type { Stage } from './stage.ts';

export interface Fault {
  readonly name: string;
  /** Nothing else breaks this at the same time. */
  readonly of: string;
  readonly weight: number;
  /** Resolves when it is mended. */
  readonly happen: (stage: Stage, random: Random) => Promise<void>;
}

const PROXIES = ['pulse', 'database', 'legacy'] as const;

export const FAULTS: readonly Fault[] = [
  { name: 'bridge killed', of: 'bridge', weight: 4, happen: killBridge },
  { name: 'bridge paused', of: 'bridge', weight: 4, happen: pauseBridge },
  { name: 'all bridges restarted, one after the other', of: 'bridge', weight: 1, happen: rollingRestart },
  { name: 'broker restarted', of: 'pulse', weight: 1, happen: () => downFor(rabbitmq(), 1000) },
  { name: 'database restarted', of: 'database', weight: 1, happen: () => downFor(mariadb(), 1500) },
  {
    name: 'Pulse queue deleted',
    of: 'pulse',
    weight: 2,
    happen: async ({ pulse }) => {
      await pulse.deleteQueue('queue/bridge/tasks');
    },
  },
  { name: 'master restarted', of: 'legacy', weight: 2, happen: ({ legacy }) => restartMaster(legacy, 'stopMaster') },
  { name: 'master killed', of: 'legacy', weight: 1, happen: ({ legacy }) => restartMaster(legacy, 'killMaster') },
  {
    name: 'worker killed',
    of: 'legacy',
    weight: 2,
    happen: async ({ legacy }) => {
      await legacy.killWorker();
      await delay(500);
      await legacy.startWorker();
    },
  },
  ...PROXIES.flatMap((of): Fault[] => [
    { name: `connections to the ${of} cut`, of, weight: 2, happen: async ({ proxies }) => proxies[of].cut() },
    {
      name: `${of} slow`,
      of,
      weight: 1,
      happen: ({ proxies }, random) => slow(proxies[of], random.between(100, 800)),
    },
    {
      name: `network to the ${of} swallows everything`,
      of,
      weight: 1,
      happen: ({ proxies }, random) => swallow(proxies[of], random.between(3000, 8000)),
    },
  ]),
  { name: 'queue answers 5xx', of: 'queue', weight: 3, happen: queueErrors },
  { name: 'queue does not answer', of: 'queue', weight: 2, happen: queueSilence },
  { name: 'messages dropped, repeated, delayed', of: 'messages', weight: 3, happen: badMessages },
];

async function killBridge(stage: Stage, random: Random): Promise<void> {
  const place = random.between(0, stage.bridges.length - 1);
  await stage.bridges[place]?.kill();
  await delay(random.between(0, 3000));
  stage.restart(place);
}

/** Longer than its lease, at times: what wakes up then is a bridge of the past. */
async function pauseBridge({ bridges }: Stage, random: Random): Promise<void> {
  const bridge = random.pick([0, 1, 2]);
  bridges[bridge]?.pause();
  await delay(random.between(2000, 22_000));
  bridges[bridge]?.resume();
}

async function rollingRestart(stage: Stage): Promise<void> {
  for (let place = 0; place < stage.bridges.length; place += 1) {
    await stage.bridges[place]?.stop();
    // The next one when this one works, as a deployment does it; or soon, if something else is broken.
    await Promise.race([stage.restart(place).started.catch(() => undefined), delay(5000)]);
  }
}

async function downFor(server: { stop(): Promise<void>; start(): Promise<void> }, ms: number): Promise<void> {
  await server.stop();
  await delay(ms);
  await server.start();
}

async function restartMaster(legacy: Stage['legacy'], how: 'stopMaster' | 'killMaster'): Promise<void> {
  // On a busy machine a stop can take longer than anybody waits; the master is killed then.
  await legacy[how]().catch(() => undefined);
  await delay(500);
  await legacy.startMaster();
}

async function slow(proxy: ChaosProxy, ms: number): Promise<void> {
  proxy.delay(ms);
  await delay(5000);
  proxy.delay(0);
}

async function swallow(proxy: ChaosProxy, ms: number): Promise<void> {
  proxy.swallow(true);
  await delay(ms);
  proxy.swallow(false);
  proxy.cut();
}

async function queueErrors({ faults }: Stage, random: Random): Promise<void> {
  const path = /\/api\/queue\/v1\/(?!.*ping)/;
  for (const takesEffect of [true, false]) {
    faults.http.push({ path, takesEffect, probability: 0.4, times: 15, outcome: { kind: 'status', status: 503 } });
    faults.http.push({ path, takesEffect, probability: 0.2, times: 5, outcome: { kind: 'reset' } });
  }
  await delay(random.between(2000, 6000));
  faults.http.length = 0;
}

async function queueSilence({ faults }: Stage, random: Random): Promise<void> {
  const path = /\/api\/queue\/v1\/task\//;
  faults.http.push({ path, takesEffect: random.next() < 0.5, times: random.between(1, 4), outcome: { kind: 'hang' } });
  await delay(3000);
  faults.http.length = 0;
}

async function badMessages({ faults }: Stage, random: Random): Promise<void> {
  faults.messages.push(
    { outcome: { kind: 'drop' }, times: random.between(1, 8) },
    { outcome: { kind: 'repeat' }, times: random.between(1, 8) },
    { outcome: { kind: 'reorder' }, times: random.between(1, 8) },
    { outcome: { kind: 'delay', ms: random.between(100, 4000) }, times: random.between(1, 8) },
  );
  await delay(4000);
  faults.messages.length = 0;
}
