/** Puts the services of one bridge process together. No logic of its own: `main.ts` makes the parts, this ties them. */
import type { Logger } from 'pino';
import type { SettableClock } from './clock.ts';
import { isTransient } from './errors.ts';
import { createLegacyCiListener, type LegacyCiListener } from './listeners/legacy-ci-listener.ts';
import { createTaskclusterListener, type TaskclusterListener } from './listeners/taskcluster-listener.ts';
import type { Metrics } from './metrics.ts';
import type { Broker, LegacyCi, MappingStore, TaskQueue } from './ports.ts';
import type { Mode } from './reflector/actions.ts';
import type { BuilderRules } from './reflector/admission.ts';
import { MAX_CANCEL_RETRY_MS } from './reflector/apply/cancel.ts';
import type { Timing } from './reflector/apply/pass.ts';
import { createWithdrawals } from './reflector/apply/withdrawals.ts';
import type { Timer } from './reflector/cron.ts';
import type { Policy } from './reflector/decide.ts';
import { createForeignTasks } from './reflector/foreign-tasks.ts';
import { keepClaims } from './reflector/keep-claims.ts';
import type { Spool } from './reflector/log-spool.ts';
import { createReconciler, type PassResult, type Reconciler } from './reflector/reconcile.ts';
import { createReflector, type Reflector } from './reflector/reflector.ts';
import { sweep } from './reflector/sweep.ts';
import { createWork, type Work } from './reflector/work.ts';
import { createTimekeeper } from './timekeeper.ts';

/** The services that a process may run; `http` is put beside them by `main.ts`. */
export const SERVICES = ['tc-listener', 'legacy-listener', 'reflector', 'http'] as const;
export type Service = (typeof SERVICES)[number];

/**
 * The services that a process runs in this mode. One that observes listens to nothing: messages that it took would be
 * missed by others, and its reflector sees all tasks.
 */
export function servicesIn(mode: Mode, services: readonly Service[]): readonly Service[] {
  return mode === 'observe' ? ['reflector', ...services.filter((service) => service === 'http')] : services;
}

export interface BridgeOptions {
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly store: MappingStore;
  readonly broker: Broker;
  /** Set by the database server's while the bridge runs. */
  readonly clock: SettableClock;
  readonly log: Logger;
  readonly metrics: Omit<Metrics, 'expose'>;
  readonly rules: BuilderRules;
  readonly policy: Policy;
  readonly timing: Timing;
  readonly mode: Mode;
  readonly services: readonly Service[];
  /** Unique among the running processes. */
  readonly instance: string;
  readonly version: string;
  readonly schedule: string;
  readonly retentionMs: number;
  /** Mappings a batch of a sweep. */
  readonly batchSize: number;
  /** Looks at once, in the work queue and again in a sweep; and, beside them, whole passes, which upload. */
  readonly concurrency: number;
  /** How much later than its schedule a sweep may begin, at random. */
  readonly jitterMs: number;
  /** Where logs are spooled before they are uploaded. */
  readonly tempDir: string;
  /** Bytes. */
  readonly maxLogSize: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** In place of the machine's time and disk, for the simulation. */
  readonly timer?: Timer;
  readonly spool?: Spool;
}

export interface Bridge {
  /** Starts the services; resolves when they run. They reach for their dependencies by themselves, as often as it takes. */
  start(): Promise<void>;
  /** Writes that this process lives. @throws StoreError */
  heartbeat(): Promise<void>;
  /** Begins nothing new and resolves when what is under way is over. Closes none of the parts. */
  stop(): Promise<void>;
  readonly reconciler: Reconciler;
  readonly workQueue: Work;
  /** Runs only if it is among the services; `runOnce` works without. */
  readonly reflector: Reflector;
}

/** Messages under way at once in a TC listener: enough for a large graph, and few enough to be redelivered soon. */
const PREFETCH = 50;
/** More than the clocks of two instances differ by that were set by the database server's. */
const CLOCKS_MS = 10_000;
/** At the start, from one try to write to the next. */
const AGAIN_MS = 5000;

/** Puts the parts together; nothing runs, and nothing is asked of anybody, before `start`. */
export function createBridge(options: BridgeOptions): Bridge {
  const { queue, ci, store, clock, log, metrics, policy, timing, instance, random } = options;
  const services = servicesIn(options.mode, options.services);
  const foreign = createForeignTasks(clock);
  const stopping = new AbortController();

  const poke = (taskId: string) => {
    workQueue.add(taskId).catch((error: unknown) => log.debug({ taskId, err: error }, 'look not had before the stop'));
  };
  const withdrawals = createWithdrawals({ ci, store, clock, log });
  const reconciler = createReconciler({
    ...{ queue, ci, store, clock, log, policy, timing, instance, random, poke, withdrawals },
    handOver: (taskId, isLast) => workQueue.handOver(taskId, isLast),
    mode: options.mode,
    rules: options.rules,
    reclaimThresholdMs: policy.reclaimThresholdMs,
    onPass: metrics.onPass,
    onAction: metrics.onAction,
    inputs: metrics.inputs,
    upload: { queue, ci, log, tempDir: options.tempDir, maxLogSize: options.maxLogSize, spool: options.spool },
  });

  async function look(taskId: string): Promise<PassResult> {
    const result = await reconciler.look(taskId);
    if (result.kind === 'not-ours') {
      foreign.add(taskId);
    }
    return result;
  }

  const workQueue = createWork({ look, whole: reconciler.reconcile, concurrency: options.concurrency, clock, log });
  const reflector = createReflector({
    ...{ store, queue, clock, random },
    log: log.child({ service: 'reflector' }),
    isObserving: options.mode === 'observe',
    schedule: options.schedule,
    jitterMs: options.jitterMs,
    retentionMs: options.retentionMs,
    sweep: (signal) =>
      sweep(
        {
          ...{ store, queue, ci, clock, reconciler, instance },
          log: log.child({ service: 'reflector' }),
          leaseMs: timing.leaseMs,
          recheckMs: policy.recheckMs,
          reclaimThresholdMs: policy.reclaimThresholdMs,
          batchSize: options.batchSize,
          concurrency: options.concurrency,
        },
        signal,
      ),
    keepClaims: (signal) =>
      keepClaims(
        {
          ...{ queue, clock, log: log.child({ service: 'reflector' }) },
          reclaimThresholdMs: policy.reclaimThresholdMs,
          concurrency: options.concurrency,
          onAction: metrics.onAction,
        },
        signal,
      ),
    // What is parked waits for its turn; what the reflector lists is nothing new.
    hint: (taskId) => (workQueue.isParked(taskId) ? undefined : poke(taskId)),
    isKnownForeign: foreign.has,
    heartbeat,
    timer: options.timer,
  });

  const begun = clock.uptime();
  async function heartbeat(): Promise<void> {
    const now = clock.now();
    const started = Math.round(now - (clock.uptime() - begun));
    await store.heartbeat({ instance, version: options.version, services, started, heartbeat: now });
  }

  /** A database that takes no writes is waited for, as one that is away. @throws StoreError for what waiting does not mend */
  async function firstHeartbeat(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await heartbeat();
        return;
      } catch (error) {
        if (!isTransient(error)) {
          throw error;
        }
        await clock.sleep(AGAIN_MS, stopping.signal);
      }
    }
  }

  /** Messages may have been missed: the reflector finds what they would have announced. */
  function onGap(): void {
    if (services.includes('reflector')) {
      reflector.poke();
    }
  }

  const timekeeper = createTimekeeper({ clock, store, log, onSet: mendTimes });

  /**
   * Also without a set back that this instance has heard of: another may write by the old time for a while yet. When
   * this one's clock is right, so that it does not take its own leases for over.
   * @throws StoreError
   */
  async function mendTimes(wasSetBack: boolean): Promise<void> {
    if (options.mode === 'observe') {
      return;
    }
    const longestWaitMs = Math.max(MAX_CANCEL_RETRY_MS, timing.submitGraceMs, policy.recheckMs);
    const count = await store.mendTimes({
      leaseMs: timing.leaseMs + CLOCKS_MS,
      waitMs: longestWaitMs + CLOCKS_MS,
      graceMs: timing.submitGraceMs,
    });
    if (count > 0) {
      log.warn({ count }, 'mappings were leased, or left alone, for longer than can be: the clock was ahead; mended');
    }
    if (wasSetBack) {
      await store.makeAllDue(clock.now());
      onGap();
    }
  }

  const running: (TaskclusterListener | LegacyCiListener)[] = [];

  return {
    reconciler,
    workQueue,
    reflector,
    heartbeat,
    async start() {
      await timekeeper.start();
      await firstHeartbeat();
      if (stopping.signal.aborted) {
        return;
      }
      if (services.includes('tc-listener')) {
        const listener = createTaskclusterListener({
          broker: options.broker,
          taskQueueId: queue.taskQueueId,
          prefetch: PREFETCH,
          inputs: metrics.inputs,
          onHint: (taskId) => workQueue.add(taskId),
          onGap,
          log: log.child({ service: 'tc-listener' }),
        });
        running.push(listener);
        await listener.start();
      }
      if (services.includes('legacy-listener')) {
        const listener = createLegacyCiListener({
          ...{ ci, store, clock, onGap },
          log: log.child({ service: 'legacy-listener' }),
          onHint: poke,
        });
        running.push(listener);
        await listener.start();
      }
      if (services.includes('reflector')) {
        reflector.start();
      }
    },
    async stop() {
      stopping.abort();
      // The work queue gives unfinished hints back first, so that a listener's messages under way end too.
      await Promise.all([
        timekeeper.stop(),
        reflector.stop(),
        workQueue.stop(),
        ...running.map((listener) => listener.stop()),
      ]);
      // By now no pass begins another one.
      await withdrawals.stop();
    },
  };
}
