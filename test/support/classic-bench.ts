/**
 * A bench in one process: an emulated classic Buildbot on a real MariaDB, an emulated queue, and the real core and
 * adapter between them. Nothing happens by itself unless a test says `listen`: tests own the order of things and the
 * core's time. Buildbot's own times are the machine's, as its database's are.
 */
import { tmpdir } from 'node:os';
import type { Knex } from 'knex';
import slugid from 'slugid';
import taskcluster, { type Queue } from 'taskcluster-client';
import { type Bridge, createBridge, type Service } from '../../src/bridge.ts';
import { createSchedulerDbCi, type SchedulerDbOptions } from '../../src/buildbot/scheduler-db/index.ts';
import { ownRequests } from '../../src/buildbot/scheduler-db/own-requests.ts';
import { createSettableClock, type SettableClock, systemClock } from '../../src/clock.ts';
import { connect, migrate } from '../../src/db/connection.ts';
import { createKeptBuilds } from '../../src/db/kept-builds.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import { QueueError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { Broker, KeptBuilds, LegacyCi, MappingStore, TaskQueue } from '../../src/ports.ts';
import type { BuilderRules } from '../../src/reflector/admission.ts';
import type { PassResult } from '../../src/reflector/reconcile.ts';
import { createInProcessBroker, type InProcessBroker, type PublishedMessage } from '../../src/sandbox/broker.ts';
import { type ClassicBuildbot, createClassicBuildbot } from '../../src/sandbox/classic/emulator.ts';
import type { ClassicBuildbotOptions, ClassicBuilderOptions } from '../../src/sandbox/classic/options.ts';
import { createFaults, type Faults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator, type QueueEmulator } from '../../src/sandbox/queue/emulator.ts';
import { MINUTE, POLICY } from './builders.ts';
import { eventually } from './eventually.ts';
import { clientOf } from './queue-client.ts';
import { ROOT_CLIENT } from './queue-emulator.ts';
import { mariadb } from './services/index.ts';

export const MASTER = 'bm1.example.com:/builds/buildbot/master';
export const EXCHANGE = 'exchange/build/';
export const BRANCH = 'integration/main';
const NEVER_MS = 3_600_000;
const DAY_MS = 24 * 60 * MINUTE;
export const LEASE_MS = 90_000;

const waiting = { results: 0, durationMs: 'wait' as const, steps: [{ name: 'compile', log: 'compiling\n' }] };
/** Builds end when a test says so. */
export function aBuilder(name: string, more: Partial<ClassicBuilderOptions> = {}): ClassicBuilderOptions {
  return { name, workers: [`w-${name}`], attempts: [waiting], ...more };
}
const BUILDERS = [aBuilder('build'), aBuilder('other'), aBuilder('noworker', { workers: [] })];

/** The machine's clock, that a test puts forward; who sleeps is woken by that, too. */
export interface BenchClock extends SettableClock {
  forward(ms: number): void;
}

export function createBenchClock(): BenchClock {
  let ahead = 0;
  const now = () => systemClock.now() + ahead;
  const sleepers = new Set<{ readonly until: number; readonly wake: AbortController }>();
  async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const wake = new AbortController();
    const sleeper = { until: now() + ms, wake };
    sleepers.add(sleeper);
    await systemClock.sleep(ms, signal ? AbortSignal.any([signal, wake.signal]) : wake.signal);
    sleepers.delete(sleeper);
  }
  return {
    ...createSettableClock({ now, sleep, uptime: now }),
    forward(ms) {
      ahead += ms;
      for (const { until, wake } of sleepers) {
        if (until <= now()) {
          wake.abort();
        }
      }
    },
  };
}

type Ports = 'queue' | 'ci' | 'store' | 'kept';
/** Such as `ci.submit`. */
type Call =
  | `queue.${Extract<keyof TaskQueue, string>}`
  | `ci.${Extract<keyof LegacyCi, string>}`
  | `store.${Extract<keyof MappingStore, string>}`
  | `kept.${Extract<keyof KeptBuilds, string>}`;

interface Rule {
  readonly call: Call;
  readonly when: 'before' | 'after';
  readonly act: () => Promise<unknown>;
  times: number;
}

/** These answer at once, or piece by piece: no faults for them. */
const PLAIN = new Set(['collapseKey', 'listPending', 'listClaimed']);
const never = () => new Promise<never>(() => undefined);

/** One bridge process, as far as it can be one within a process. */
export interface Instance {
  readonly name: string;
  readonly bridge: Bridge;
  readonly ci: LegacyCi;
  /** Starts listeners (and reflector). */
  listen(services?: readonly Service[]): Promise<void>;
  /** The call fails, before it takes effect or after. */
  fail(call: Call, when: 'before' | 'after', error: Error, times?: number): void;
  /** The whole process dies there: nothing that it does takes effect any more. Resolves when it has died. */
  dieAt(call: Call, when: 'before' | 'after'): Promise<void>;
  /** Something else happens in between. */
  meanwhile(call: Call, when: 'before' | 'after', act: () => Promise<unknown>): void;
  die(): void;
  /** How often a port was called so far. */
  count(call: Call): number;
  /** What it was called with first, such as the ids of tasks, in order. */
  asked(call: Call): readonly unknown[];
  look(taskId: string): Promise<PassResult>;
  /** A round of the reflector, and what it asked for. */
  sweep(): Promise<void>;
}

export interface TaskWish {
  readonly builder?: string;
  readonly revision?: string;
  readonly payload?: unknown;
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly priority?: string;
  readonly scopes?: readonly string[];
  readonly retries?: number;
  readonly deadlineInMs?: number;
}

export interface RequestRow {
  readonly id: number;
  readonly complete: number;
  readonly results: number | null;
}

/** Its server's clock is put forward, too. */
function putForward(store: MappingStore, clock: BenchClock): MappingStore {
  return {
    ...store,
    now: async () => clock.now(),
    async mendTimes({ leaseMs, waitMs, graceMs }) {
      const by = clock.now() - (await store.now());
      return store.mendTimes({ leaseMs: leaseMs + by, waitMs: waitMs + by, graceMs: graceMs + by });
    },
  };
}

export interface Bench {
  readonly clock: BenchClock;
  readonly buildbot: ClassicBuildbot;
  /** Of the queue. */
  readonly faults: Faults;
  readonly buildbotFaults: Faults;
  /** The scheduler database, as anybody may write it. */
  readonly db: Knex;
  readonly databaseUrl: string;
  readonly queue: QueueEmulator;
  /** The queue as a person uses it. */
  readonly person: Queue;
  readonly store: MappingStore;
  readonly kept: KeptBuilds;
  readonly broker: InProcessBroker;
  readonly mail: Mail;
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  /** The instance that was made with the bench. */
  readonly one: Instance;
  /** One more instance; `ci`: options of its own adapter. */
  another(more?: Partial<InstanceOptions>): Instance;
  /** The core's and the queue's time; claims and deadlines that are due end. */
  forward(ms: number): Promise<void>;
  createTask(wish?: TaskWish): Promise<string>;
  look(taskId: string): Promise<PassResult>;
  /** The queue knows the task no longer, as after its expiry. */
  forget(taskId: string): void;
  /** Makes a task, and its build request; answers both ids. */
  submitted(wish?: TaskWish): Promise<{ taskId: string; brid: number }>;
  /** The same, and its build has started and the run is claimed. */
  building(wish?: TaskWish): Promise<{ taskId: string; brid: number }>;
  /** Such as `exception/canceled`. */
  runs(taskId: string): string[];
  artifacts(taskId: string, runId?: number): string[];
  artifact(taskId: string, name: string, runId?: number): string;
  requests(taskId: string): Promise<readonly RequestRow[]>;
  mapping(taskId: string): Promise<Mapping | undefined>;
  trace(taskId: string): Promise<string[]>;
  logged(message: string | RegExp): readonly Readonly<Record<string, unknown>>[];
  stop(): Promise<void>;
}

/** What is published, on its way: it can be held, let go in another order, and sent again. */
export interface Mail {
  readonly sent: PublishedMessage[];
  /** Messages of which `<exchange> <routing key>` matches are held; null: none. */
  hold: RegExp | null;
  readonly held: PublishedMessage[];
  /** Lets those that match go, or sends what was sent before again. */
  deliver(pattern: RegExp): void;
}

export interface InstanceOptions {
  readonly ci: Partial<SchedulerDbOptions>;
  readonly rules: Partial<BuilderRules>;
  readonly batchSize: number;
  readonly concurrency: number;
}

export interface BenchOptions {
  /** Mozilla's masters (schema A, events, Self-serve), or a stock one (schema B, web pages). */
  readonly site?: 'mozilla' | 'stock';
  readonly buildbot?: Partial<ClassicBuildbotOptions>;
  readonly ci?: Partial<SchedulerDbOptions>;
  readonly rules?: Partial<BuilderRules>;
  readonly claimTimeoutMs?: number;
}

export async function startBench(options: BenchOptions = {}): Promise<Bench> {
  const isMozilla = options.site !== 'stock';
  const clock = createBenchClock();
  const [faults, buildbotFaults] = [createFaults(), createFaults()];
  const broker = createInProcessBroker();
  const mail = createMail(broker);
  const database = await mariadb().createDatabase();
  const buildbot = createClassicBuildbot({
    ...{ clock: systemClock, faults: buildbotFaults, databaseUrl: database.url, masterName: MASTER },
    ...{ schema: isMozilla ? 'A' : 'B', flavour: isMozilla ? 'mozilla' : 'stock', builders: BUILDERS },
    pollIntervalMs: NEVER_MS,
    publish: mail.post,
    branches: { main: { repo: `https://hg.example.com/${BRANCH}` } },
    ...options.buildbot,
  });
  const queue = createQueueEmulator({
    ...{ clock, clients: [ROOT_CLIENT], faults, publish: mail.post, tickIntervalMs: 0 },
    claimTimeoutMs: options.claimTimeoutMs ?? 20 * MINUTE,
    deadlineDelayMs: 0,
  });
  const bridgeDb = connect('sqlite::memory:');
  await Promise.all([buildbot.start(), queue.start(), migrate(bridgeDb)]);
  const db = connect(database.url);
  const store = putForward(createMappingStore(bridgeDb), clock);
  const kept = createKeptBuilds(bridgeDb);
  const person = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT_CLIENT, retries: 0 });
  const lines: Readonly<Record<string, unknown>>[] = [];
  const log = createLog({ level: 'debug', destination: { write: (line) => void lines.push(JSON.parse(line)) } });
  const forgotten = new Set<string>();
  const instances: { readonly instance: Instance; close(): Promise<void> }[] = [];

  function another(more: Partial<InstanceOptions> = {}): Instance {
    const name = `instance-${instances.length + 1}`;
    const rules: Rule[] = [];
    const calls = new Map<string, unknown[]>();
    const died = new AbortController();

    async function step(call: string, when: Rule['when']): Promise<void> {
      const rule = rules.find((one) => one.call === call && one.when === when && one.times > 0);
      if (rule) {
        rule.times -= 1;
        await rule.act();
      }
      if (died.signal.aborted) {
        await never();
      }
    }

    function faulty<T extends object>(port: Ports, target: T): T {
      return new Proxy(target, {
        get(real, key) {
          const value: unknown = Reflect.get(real, key, real);
          if (typeof value !== 'function' || typeof key !== 'string' || PLAIN.has(key)) {
            return value;
          }
          const call = `${port}.${key}`;
          return async (...args: unknown[]) => {
            calls.set(call, [...(calls.get(call) ?? []), args[0]]);
            await step(call, 'before');
            const answer: unknown = await value.apply(real, args);
            await step(call, 'after');
            return answer;
          };
        },
      });
    }

    const own = faulty('store', store);
    const ownKept = faulty('kept', kept);
    const ownBroker = mortal(broker, died.signal);
    const bare = createSchedulerDbCi({
      db: connect(database.url),
      ...(isMozilla
        ? { pulseExchange: EXCHANGE, selfServeUrl: buildbot.selfServeUrl, buildersUrl: buildbot.buildersUrl }
        : { webStatus: { url: buildbot.webStatusUrl } }),
      ...{ pollIntervalMs: 50, outcomeWaitMs: 0, retentionMs: DAY_MS },
      ...{ broker: ownBroker, kept: ownKept, clock, log },
      openRequests: () => own.openRequests(),
      ownRequests: (named, taskId) => ownRequests(own, named, taskId),
      ...options.ci,
      ...more.ci,
    });
    const ci = faulty('ci', bare);
    const make = (services: readonly Service[]) =>
      createBridge({
        metrics: createMetrics(),
        queue: faulty('queue', forgetful(clientOf(queue.rootUrl, { clock, retries: 0, timeoutMs: 5000 }), forgotten)),
        ...{ ci, store: own, broker: ownBroker, clock, log, policy: POLICY, mode: 'normal', services },
        rules: { isIgnored: () => false, isRestricted: () => false, ...options.rules, ...more.rules },
        timing: { leaseMs: LEASE_MS, submitGraceMs: LEASE_MS / 3, cancelRetryMs: 15_000 },
        ...{ instance: name, version: 'test', schedule: '0 0 0 1 1 *', retentionMs: 7 * DAY_MS, jitterMs: 0 },
        ...{
          batchSize: more.batchSize ?? 100,
          concurrency: more.concurrency ?? 8,
          tempDir: tmpdir(),
          maxLogSize: 1e6,
          random: () => 0.5,
        },
      });
    let bridge = make([]);
    const running: Bridge[] = [];
    const die = () => died.abort();

    const instance: Instance = {
      name,
      get bridge() {
        return bridge;
      },
      ci,
      async listen(services = ['tc-listener', 'legacy-listener']) {
        bridge = make(services);
        running.push(bridge);
        await bridge.start();
      },
      fail(call, when, error, times = 1) {
        rules.push({ call, when, times, act: () => Promise.reject(error) });
      },
      dieAt(call, when) {
        return new Promise((resolve) => {
          const act = async () => {
            die();
            resolve();
          };
          rules.push({ call, when, times: 1, act });
        });
      },
      meanwhile(call, when, act) {
        rules.push({ call, when, times: 1, act });
      },
      die,
      count: (call) => calls.get(call)?.length ?? 0,
      asked: (call) => calls.get(call) ?? [],
      look: (taskId) => bridge.reconciler.reconcile(taskId),
      async sweep() {
        await bridge.reflector.runOnce();
        const isDone = async () => {
          // Whoever waits for another try has it soon.
          clock.forward(bridge.workQueue.size() > 0 ? 500 : 0);
          return bridge.workQueue.size() === 0;
        };
        await eventually(isDone, { what: 'the work queue to be empty' });
      },
    };
    instances.push({
      instance,
      async close() {
        const isDead = died.signal.aborted;
        for (const one of running) {
          const stopped = one.stop();
          await (isDead ? undefined : stopped);
        }
        await bare.close();
      },
    });
    return instance;
  }

  const one = another();
  const view = (taskId: string) => {
    const task = queue.tasks.get(taskId);
    if (task === undefined) {
      throw new Error(`no task ${taskId}`);
    }
    return task;
  };

  const bench: Bench = {
    ...{ clock, buildbot, faults, buildbotFaults, db, databaseUrl: database.url, queue, person, store, kept, broker },
    ...{ mail, lines, one, another },
    async forward(ms) {
      clock.forward(ms);
      queue.tick();
      await queue.published();
    },
    async createTask(wish = {}) {
      const taskId = slugid.nice();
      await person.createTask(taskId, definitionOf(wish, clock.now()));
      return taskId;
    },
    look: one.look,
    forget: (taskId) => void forgotten.add(taskId),
    async submitted(wish) {
      const taskId = await bench.createTask(wish);
      await one.look(taskId);
      // A listener's pass may have been the first.
      const what = `the request of ${taskId}`;
      const brid = await eventually(async () => (await bench.mapping(taskId))?.buildRequestId ?? undefined, { what });
      return { taskId, brid };
    },
    async building(wish) {
      const made = await bench.submitted(wish);
      await buildbot.poll();
      await one.look(made.taskId);
      await eventually(() => bench.runs(made.taskId).at(-1) === 'running', { what: `the claim of ${made.taskId}` });
      return made;
    },
    runs: (taskId) =>
      view(taskId).status.runs.map(({ state, reasonResolved }) =>
        reasonResolved === undefined || reasonResolved === state ? state : `${state}/${reasonResolved}`,
      ),
    artifacts: (taskId, runId = 0) =>
      view(taskId)
        .artifacts.filter((artifact) => artifact.runId === runId)
        .map(({ name }) => name)
        .sort(),
    artifact: (taskId, name, runId = 0) =>
      view(taskId)
        .artifacts.find((artifact) => artifact.runId === runId && artifact.name === name)
        ?.content()
        ?.toString('utf8') ?? '',
    requests: (taskId) =>
      db('buildrequests as r')
        .join('buildsets as s', 's.id', 'r.buildsetid')
        .where('s.external_idstring', `taskId:${taskId}`)
        .orderBy('r.id')
        .select('r.id', 'r.complete', 'r.results'),
    mapping: (taskId) => store.openMapping(taskId),
    trace: async (taskId) => (await store.eventsOf(taskId)).map(({ what }) => what),
    logged: (message) =>
      lines.filter(({ msg }) => (typeof message === 'string' ? msg === message : message.test(String(msg)))),
    async stop() {
      await Promise.all(instances.map((each) => each.close()));
      await Promise.all([buildbot.stop(), queue.stop()]);
      await Promise.all([db.destroy(), store.close()]);
      await database.drop();
    },
  };
  return bench;
}

/** A queue from which some tasks are gone. */
function forgetful(queue: TaskQueue, forgotten: ReadonlySet<string>): TaskQueue {
  const absent = { kind: 'absent' } as const;
  return {
    ...queue,
    status: async (taskId) => (forgotten.has(taskId) ? absent : queue.status(taskId)),
    task: async (taskId) => (forgotten.has(taskId) ? absent : queue.task(taskId)),
    statuses: async (taskIds) =>
      new Map([...(await queue.statuses(taskIds))].map(([id, seen]) => [id, forgotten.has(id) ? absent : seen])),
    async reclaim(taskId, runId) {
      if (forgotten.has(taskId)) {
        throw new QueueError('queue-not-found', 'no such task');
      }
      return queue.reclaim(taskId, runId);
    },
  };
}

/** Ends its subscriptions when the process dies; what was under way is delivered to others, as a broker does. */
function mortal(broker: InProcessBroker, died: AbortSignal): Broker {
  return {
    subscribe(options) {
      const dead = new Promise<never>((_resolve, reject) => {
        died.addEventListener('abort', () => reject(new Error('died')), { once: true });
      });
      dead.catch(() => undefined);
      const subscription = broker.subscribe({
        ...options,
        onMessage: (message) => Promise.race([options.onMessage(message), dead]),
      });
      died.addEventListener('abort', () => void subscription.stop(), { once: true });
      return subscription;
    },
    close: async () => undefined,
  };
}

function createMail(broker: InProcessBroker): Mail & { post(message: PublishedMessage): void } {
  const nameOf = ({ exchange, routingKey }: PublishedMessage) => `${exchange} ${routingKey}`;
  const [sent, held]: [PublishedMessage[], PublishedMessage[]] = [[], []];
  const mail: Mail & { post(message: PublishedMessage): void } = {
    ...{ sent, held, hold: null },
    post(message: PublishedMessage) {
      mail.sent.push(message);
      if (mail.hold?.test(nameOf(message))) {
        mail.held.push(message);
      } else {
        broker.publish(message);
      }
    },
    deliver(pattern: RegExp) {
      const isWanted = (message: PublishedMessage) => pattern.test(nameOf(message));
      const wanted = mail.held.some(isWanted) ? mail.held.filter(isWanted) : mail.sent.filter(isWanted);
      if (wanted.length === 0) {
        throw new Error(`no message was sent that matches ${pattern}`);
      }
      mail.held.splice(0, mail.held.length, ...mail.held.filter((message) => !isWanted(message)));
      for (const message of wanted) {
        broker.publish(message);
      }
    },
  };
  return mail;
}

function definitionOf(wish: TaskWish, now: number): object {
  const at = (ms: number) => new Date(now + ms).toISOString();
  return {
    ...{ taskQueueId: POLICY.taskQueueId, schedulerId: 'test-sched', priority: wish.priority ?? 'low' },
    ...{ retries: wish.retries ?? 5, scopes: wish.scopes ?? [] },
    ...{ created: at(0), deadline: at(wish.deadlineInMs ?? DAY_MS), expires: at(2 * DAY_MS) },
    payload: wish.payload ?? {
      buildername: wish.builder ?? 'build',
      sourcestamp: { branch: `https://hg.example.com/${BRANCH}/`, revision: wish.revision ?? slugid.nice() },
      properties: { product: 'widget', ...wish.properties },
    },
    metadata: { name: 'a test', description: 'a test', owner: 'test@example.com', source: 'https://example.com/test' },
  };
}
