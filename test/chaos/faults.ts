/** What goes wrong during a campaign. Each fault breaks something of its own for a while, and mends it. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ChaosProxy } from '../support/chaos-proxy.ts';
import type { LegacySide } from '../support/legacy/legacy-side.ts';
import { mariadb, rabbitmq } from '../support/services/index.ts';
import type { Random } from './random.ts';
import type { Proxies, Stage } from './stage.ts';

export interface Fault {
  readonly name: string;
  /** Among the faults of its place. */
  readonly weight: number;
  /** Resolves when it is mended. */
  readonly happen: (stage: Stage, random: Random) => Promise<void>;
}

/** What can be broken in one way at a time. */
export interface Place {
  readonly name: string;
  /** The only kind of legacy CI that has it; all have it, unless it says. */
  readonly onlyOf?: LegacySide['kind'];
  /**
   * From one fault to the next, shortest and longest, in milliseconds: mostly longer than a fault and its mending take,
   * so that little has to be skipped.
   */
  readonly gapMs: readonly [number, number];
  readonly faults: readonly Fault[];
}

const PLACES: readonly Place[] = [
  {
    name: 'bridge',
    gapMs: [8000, 16_000],
    faults: [
      { name: 'bridge killed', weight: 3, happen: killBridge },
      { name: 'bridge paused', weight: 3, happen: pauseBridge },
      { name: 'all bridges restarted, one after the other', weight: 2, happen: rollingRestart },
    ],
  },
  {
    name: 'pulse',
    gapMs: [4000, 11_000],
    faults: [
      { name: 'broker restarted', weight: 1, happen: () => downFor(rabbitmq(), 1000) },
      { name: 'Pulse queue deleted', weight: 2, happen: ({ pulse }) => pulse.deleteQueue('queue/bridge/tasks') },
      ...networkFaults('pulse'),
    ],
  },
  {
    name: 'database',
    gapMs: [4000, 11_000],
    faults: [
      { name: 'database restarted', weight: 1, happen: () => downFor(mariadb(), 1500) },
      ...networkFaults('database'),
    ],
  },
  {
    name: 'legacy',
    gapMs: [7000, 14_000],
    faults: [
      { name: 'master restarted', weight: 1, happen: ({ legacy }) => restartMaster(legacy, 'stopMaster') },
      { name: 'master killed', weight: 1, happen: ({ legacy }) => restartMaster(legacy, 'killMaster') },
      { name: 'worker killed', weight: 1, happen: restartWorker },
      ...networkFaults('legacy'),
    ],
  },
  {
    name: 'Self-serve',
    onlyOf: 'mozilla',
    gapMs: [6000, 12_000],
    faults: networkFaults('selfServe', 'Self-serve', 'again and again'),
  },
  {
    name: 'builders',
    onlyOf: 'mozilla',
    gapMs: [6000, 12_000],
    faults: networkFaults('builders', 'the list of builders', 'again and again'),
  },
  {
    name: 'queue',
    gapMs: [4000, 10_000],
    faults: [
      { name: 'queue answers 5xx', weight: 3, happen: queueErrors },
      { name: 'queue does not answer', weight: 2, happen: queueSilence },
    ],
  },
  {
    name: 'messages',
    gapMs: [4500, 9000],
    faults: [{ name: 'messages dropped, repeated, delayed', weight: 1, happen: badMessages }],
  },
];

/** What can be broken with this kind of legacy CI. */
export function placesOf(kind: LegacySide['kind']): readonly Place[] {
  return PLACES.filter(({ onlyOf }) => onlyOf === undefined || onlyOf === kind);
}

/** @param cut one that is made for a call or two mostly is not there when it is cut once */
function networkFaults(
  of: keyof Proxies,
  to = `the ${of}`,
  cut: 'once' | 'again and again' = 'once',
): readonly Fault[] {
  const fault = (name: string, work: (proxy: ChaosProxy, random: Random) => Promise<void>): Fault => ({
    name,
    weight: 1,
    async happen({ proxies }, random) {
      const proxy = proxies[of];
      if (proxy === undefined) {
        throw new Error(`nothing leads to ${to}`);
      }
      await work(proxy, random);
    },
  });
  return [
    cut === 'once'
      ? fault(`connections to ${to} cut`, async (proxy) => proxy.cut())
      : fault(`connections to ${to} cut again and again`, (proxy, random) =>
          keepCutting(proxy, random.between(3000, 6000)),
        ),
    fault(`${to} slow`, (proxy, random) => slow(proxy, random.between(100, 800))),
    fault(`network to ${to} swallows everything`, (proxy, random) => swallow(proxy, random.between(3000, 8000))),
  ];
}

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

export async function restartMaster(legacy: Stage['legacy'], how: 'stopMaster' | 'killMaster'): Promise<void> {
  // On a busy machine a stop can take longer than anybody waits; the master is killed then.
  await legacy[how]().catch(() => undefined);
  await delay(500);
  await legacy.startMaster();
}

async function restartWorker({ legacy }: Stage): Promise<void> {
  await legacy.killWorker();
  await delay(500);
  await legacy.startWorker();
}

async function slow(proxy: ChaosProxy, ms: number): Promise<void> {
  proxy.delay(ms);
  await delay(5000);
  proxy.delay(0);
}

async function keepCutting(proxy: ChaosProxy, ms: number): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; await delay(20)) {
    proxy.cut();
  }
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
