/** What goes wrong during a campaign. Each fault breaks something of its own for a while, and mends it. */
import { setTimeout as delay } from 'node:timers/promises';
import type { HttpFault, MessageFault } from '../../src/sandbox/faults.ts';
import type { ChaosProxy, ChaosProxyHits } from '../support/chaos-proxy.ts';
import type { Daemon } from '../support/daemon.ts';
import type { LegacySide } from '../support/legacy/legacy-side.ts';
import { mariadb, rabbitmq } from '../support/services/index.ts';
import type { Random } from './random.ts';
import type { Proxies, Stage } from './stage.ts';

export interface Fault {
  readonly name: string;
  /** Among the faults of its place. */
  readonly weight: number;
  /**
   * Resolves when it is mended.
   * @returns how many processes, connections, packets, calls or messages it hit; none, if none was there to be hit
   */
  readonly happen: (stage: Stage, random: Random) => Promise<number>;
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

/** Of the queue's messages, those that a bridge listens to. */
const HEARD = /\/task-(?:pending|exception) /;
/** All calls of the queue's. */
const ANY_CALL = /\/api\/queue\/v1\/(?!.*ping)/;
/** What people call, and bridges too now and then. */
const PEOPLES_CALL = /\/task\/[^/]+(?:\/(?:cancel|rerun))?$/;

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
      { name: 'broker restarted', weight: 1, happen: () => one(downFor(rabbitmq(), 1000)) },
      { name: 'Pulse queue deleted', weight: 2, happen: deleteQueues },
      ...networkFaults('pulse'),
    ],
  },
  {
    name: 'database',
    gapMs: [4000, 11_000],
    faults: [
      { name: 'database restarted', weight: 1, happen: () => one(downFor(mariadb(), 1500)) },
      ...networkFaults('database'),
    ],
  },
  {
    name: 'legacy',
    gapMs: [7000, 14_000],
    faults: [
      { name: 'master restarted', weight: 1, happen: ({ legacy }) => one(restartMaster(legacy, 'stopMaster')) },
      { name: 'master killed', weight: 1, happen: ({ legacy }) => one(restartMaster(legacy, 'killMaster')) },
      { name: 'worker killed', weight: 1, happen: ({ legacy }) => one(restartWorker(legacy)) },
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
      queueFault('queue answers 5xx', 3, { probability: 0.4, times: 15, outcome: { kind: 'status', status: 503 } }),
      queueFault('connections to the queue cut', 2, { probability: 0.3, times: 8, outcome: { kind: 'reset' } }),
      queueFault('queue slow', 2, { probability: 0.5, times: 20, outcome: { kind: 'slow', ms: 4000 } }),
      { name: 'queue does not answer', weight: 2, happen: queueSilence },
    ],
  },
  {
    name: 'messages',
    gapMs: [4500, 7000],
    faults: [
      messageFault('messages dropped', () => ({ kind: 'drop' })),
      messageFault('messages repeated', () => ({ kind: 'repeat' })),
      messageFault('messages delayed', (random) => ({ kind: 'delay', ms: random.between(100, 4000) })),
      messageFault('messages re-ordered', () => ({ kind: 'reorder', behind: HEARD }), 0.5),
    ],
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
  const fault = (name: string, what: keyof ChaosProxyHits, work: NetworkWork): Fault => ({
    name,
    weight: 1,
    async happen({ proxies }, random) {
      const proxy = proxies[of];
      if (proxy === undefined) {
        throw new Error(`nothing leads to ${to}`);
      }
      const before = proxy.hits()[what];
      const hits = () => proxy.hits()[what] - before;
      await work(proxy, random, hits);
      return hits();
    },
  });
  return [
    cut === 'once'
      ? fault(`connections to ${to} cut`, 'cut', (proxy, _random, hits) => keepCutting(proxy, 0, hits))
      : fault(`connections to ${to} cut again and again`, 'cut', (proxy, random, hits) =>
          keepCutting(proxy, random.between(3000, 6000), hits),
        ),
    fault(`${to} slow`, 'delayed', (proxy, random, hits) => slow(proxy, random.between(100, 800), hits)),
    fault(`network to ${to} swallows everything`, 'swallowed', (proxy, random, hits) =>
      swallow(proxy, random.between(3000, 8000), hits),
    ),
  ];
}

/** @param hits how much it has hit so far */
type NetworkWork = (proxy: ChaosProxy, random: Random, hits: () => number) => Promise<void>;

/** A fault that has hit nothing lasts this much longer, in milliseconds, or until it has. */
const PATIENCE_MS = 10_000;

/**
 * Waits while a fault lasts.
 * @param again what is done all the while, some times a second
 */
async function lasting(ms: number, hits: () => number, again: () => Promise<void> | void = () => undefined) {
  const begin = Date.now();
  const isOver = () => Date.now() >= begin + (hits() > 0 ? ms : ms + PATIENCE_MS);
  for (await again(); !isOver(); await again()) {
    await delay(20);
  }
}

/** What is known to be hit when it is mended: a server that was stopped. */
async function one(work: Promise<void>): Promise<number> {
  await work;
  return 1;
}

async function killBridge(stage: Stage, random: Random): Promise<number> {
  const place = random.between(0, stage.bridges.length - 1);
  const hits = running([stage.bridges[place]]);
  await stage.bridges[place]?.kill();
  await delay(random.between(0, 3000));
  stage.restart(place);
  return hits;
}

/** Longer than its lease, at times: what wakes up then is a bridge of the past. */
async function pauseBridge({ bridges }: Stage, random: Random): Promise<number> {
  const bridge = random.pick([0, 1, 2]);
  const hits = running([bridges[bridge]]);
  bridges[bridge]?.pause();
  await delay(random.between(2000, 22_000));
  bridges[bridge]?.resume();
  return hits;
}

async function rollingRestart(stage: Stage): Promise<number> {
  let hits = 0;
  for (let place = 0; place < stage.bridges.length; place += 1) {
    hits += running([stage.bridges[place]]);
    await stage.bridges[place]?.stop();
    // The next one when this one works, as a deployment does it; or soon, if something else is broken.
    await Promise.race([stage.restart(place).started.catch(() => undefined), delay(5000)]);
  }
  return hits;
}

/** One that started while its database was away has ended. */
function running(bridges: readonly (Daemon | undefined)[]): number {
  return bridges.filter((bridge) => bridge?.isRunning()).length;
}

async function deleteQueues({ pulse, legacy }: Stage): Promise<number> {
  // Builds of a classic Buildbot are told of in a queue of their own.
  const names = ['queue/bridge/tasks', ...(legacy.kind === 'mozilla' ? ['queue/bridge/builds'] : [])];
  let hits = 0;
  await lasting(
    0,
    () => hits,
    async () => {
      for (const name of names) {
        hits += (await pulse.deleteQueue(name)) ? 1 : 0;
      }
    },
  );
  return hits;
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

async function restartWorker(legacy: Stage['legacy']): Promise<void> {
  await legacy.killWorker();
  await delay(500);
  await legacy.startWorker();
}

async function slow(proxy: ChaosProxy, ms: number, hits: () => number): Promise<void> {
  proxy.delay(ms);
  await lasting(5000, hits);
  proxy.delay(0);
}

async function keepCutting(proxy: ChaosProxy, ms: number, hits: () => number): Promise<void> {
  await lasting(ms, hits, () => proxy.cut());
}

async function swallow(proxy: ChaosProxy, ms: number, hits: () => number): Promise<void> {
  proxy.swallow(true);
  await lasting(ms, hits);
  proxy.swallow(false);
  proxy.cut();
}

/** Some calls go wrong for a while, before or after they took effect: also those of people, but these are not counted. */
function queueFault(
  name: string,
  weight: number,
  rule: Required<Pick<HttpFault, 'probability' | 'times' | 'outcome'>>,
): Fault {
  return {
    name,
    weight,
    async happen({ faults }, random) {
      let count = 0;
      const hits = () => count;
      const onHit = (call: string) => {
        count += PEOPLES_CALL.test(call) ? 0 : 1;
      };
      for (const takesEffect of rule.outcome.kind === 'slow' ? [true] : [true, false]) {
        faults.http.push({ ...rule, path: ANY_CALL, takesEffect, onHit });
      }
      await lasting(random.between(2000, 6000), hits);
      faults.http.length = 0;
      return hits();
    },
  };
}

/** Not where people call: they would submit nothing while they wait. */
async function queueSilence({ faults }: Stage, random: Random): Promise<number> {
  const hits: string[] = [];
  faults.http.push({
    path: /\/api\/queue\/v1\/task\/[^/]+\/(?!cancel|rerun)/,
    takesEffect: random.next() < 0.5,
    times: random.between(1, 4),
    outcome: { kind: 'hang' },
    onHit: (call) => hits.push(call),
  });
  await lasting(3000, () => hits.length);
  faults.http.length = 0;
  return hits.length;
}

/** @param probability below 1 where some of the messages have to pass */
function messageFault(name: string, outcomeOf: (random: Random) => MessageFault['outcome'], probability = 1): Fault {
  return {
    name,
    weight: 1,
    async happen({ faults }, random) {
      const hits: string[] = [];
      const [outcome, times] = [outcomeOf(random), random.between(1, 8)];
      faults.messages.push({ key: HEARD, outcome, times, probability, onHit: (key) => hits.push(key) });
      await lasting(4000, () => hits.length);
      faults.messages.length = 0;
      return hits.length;
    },
  };
}
