/** The composition root: from a configuration to a running process. Nothing is decided here. */
import { randomBytes } from 'node:crypto';
import { hostname, tmpdir } from 'node:os';
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { RE2JS } from 're2js';
import { type Bridge, createBridge, type Service, servicesIn } from './bridge.ts';
import { createDataApi } from './buildbot/data-api/index.ts';
import { createSchedulerDbCi } from './buildbot/scheduler-db/index.ts';
import { createSettableClock, systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { checkSchema, connect, nameOfDatabase } from './db/connection.ts';
import { createKeptBuilds } from './db/kept-builds.ts';
import { createMappingStore } from './db/mapping-store.ts';
import { watchWrites } from './db/write-watch.ts';
import { isTransient } from './errors.ts';
import { createHealth } from './health.ts';
import { type Check, createHttpServer } from './http/server.ts';
import type { Part } from './lifecycle.ts';
import { createPulseBroker, type PulseBroker } from './listeners/pulse-broker.ts';
import { createMetrics } from './metrics.ts';
import type { Broker, Clock, InputCounter, KeptBuilds, LegacyCi, MappingStore, TaskQueue } from './ports.ts';
import type { BuilderRules } from './reflector/admission.ts';
import type { Timing } from './reflector/apply/pass.ts';
import type { Policy } from './reflector/decide.ts';
import { createQueueClient } from './taskcluster/queue-client.ts';
import { readVersion } from './version.ts';

const MAX_SUBMISSIONS = 5;
const MAX_RERUNS = 5;
/** With waits of up to a minute: a quarter of an hour. */
const MAX_UPLOAD_ATTEMPTS = 20;
/** Of a sweep: enough to keep instances apart, and little beside the interval. */
const JITTER_MS = 2000;
/** A reflector that has not ended a round for so long is stuck. */
const STUCK_MS = 15 * 60_000;

export interface ProcessOptions {
  readonly config: Config;
  readonly services: readonly Service[];
  /** Of this process, as `instanceName` makes it. */
  readonly instance: string;
  readonly log: Logger;
  /** In place of Pulse, for the sandbox. */
  readonly broker?: Broker;
}

export interface BridgeProcess {
  /** In the order in which they start. */
  readonly parts: readonly Part[];
  readonly bridge: Bridge;
  readonly store: MappingStore;
}

/** Makes everything; nothing is connected before the parts are started. */
export function createProcess(options: ProcessOptions): BridgeProcess {
  const { config, instance, log } = options;
  const services = servicesIn(config.bridge.mode, options.services);
  const clock = createSettableClock(systemClock);
  const metrics = createMetrics();
  const { inputs } = metrics;
  const queue = queueOf(config, clock, inputs);
  const db = connect(config.database.url.reveal());
  const writes = watchWrites(createMappingStore(db, { log, inputs }), nameOfDatabase(config.database.url.reveal()), {
    log,
    clock,
  });
  const { store } = writes;
  const pulse = options.broker ? undefined : createPulse(config, clock, log);
  const broker = options.broker ?? pulse;
  if (broker === undefined) {
    throw new Error('neither Pulse nor another broker: a bug');
  }
  const ci = legacyCiOf(config, {
    store,
    kept: createKeptBuilds(db, { log, inputs }),
    ...{ broker, clock, inputs },
    log: log.child({ service: 'legacy-ci' }),
  });
  const bridge = createBridge({
    ...{ queue, ci, store, broker, clock, log, metrics, services, instance },
    rules: rulesOf(config),
    policy: policyOf(config),
    timing: timingOf(config),
    mode: config.bridge.mode,
    version: readVersion(),
    schedule: config.reflector.schedule,
    retentionMs: config.retention,
    batchSize: config.reflector.batchSize,
    concurrency: config.reflector.concurrency,
    jitterMs: Math.min(JITTER_MS, config.reflector.recheck / 4),
    tempDir: tmpdir(),
    maxLogSize: config.artifacts.maxLogSize,
    random: Math.random,
  });
  const listensToBuilds =
    services.includes('legacy-listener') &&
    config.legacyCi.kind === 'scheduler-db' &&
    config.legacyCi.schedulerDb.pulseExchange !== undefined;
  const listens = services.includes('tc-listener') || listensToBuilds;
  const health = createHealth({ store, writes, bridge, pulse: listens ? pulse : undefined, metrics, clock });
  const http = createHttpServer({
    ...config.http,
    live: () => liveChecks(bridge, services),
    ready: health.ready,
    metrics: health.metrics,
  });

  const parts: Part[] = [
    databasePart(db, store, log),
    legacyCiPart(ci, log),
    { name: 'broker', start: async () => undefined, stop: () => broker.close() },
    { name: 'bridge', start: () => bridge.start(), stop: () => bridge.stop() },
  ];
  if (services.includes('http')) {
    // First of all: it answers while the others are waited for.
    parts.unshift({
      name: 'http',
      start: async () => log.info({ address: await http.start() }, 'answering health checks'),
      stop: () => http.stop(),
    });
  }
  return { parts, bridge, store };
}

interface LegacyCiNeeds {
  readonly store: MappingStore;
  readonly kept: KeptBuilds;
  readonly broker: Broker;
  readonly clock: Clock;
  readonly log: Logger;
  readonly inputs: InputCounter;
}

function legacyCiOf({ bridge, legacyCi, retention }: Config, needs: LegacyCiNeeds): LegacyCi {
  const { store, kept, broker, clock, log, inputs } = needs;
  if (legacyCi.kind === 'data-api') {
    return createDataApi({ ...legacyCi.dataApi, clock, log, inputs });
  }
  const { url, pollInterval, outcomeWait, ...rest } = legacyCi.schedulerDb;
  return createSchedulerDbCi({
    ...rest,
    db: connect(url.reveal(), { name: 'legacyCi.schedulerDb.url' }),
    pollIntervalMs: pollInterval,
    outcomeWaitMs: outcomeWait,
    retentionMs: retention,
    isObserving: bridge.mode === 'observe',
    ...{ broker, kept, clock, log, inputs },
    openRequests: () => store.openRequests(),
    ownRequests: (named, taskId) => ownRequests(store, named, taskId),
  });
}

/** See `EventsOptions` of the scheduler database's adapter. */
export async function ownRequests(
  store: Pick<MappingStore, 'tasksOfRequests' | 'openMapping'>,
  named: readonly number[],
  taskId: string | null,
): Promise<readonly number[]> {
  if ((await store.tasksOfRequests(named)).length > 0) {
    return named;
  }
  const mapping = taskId === null ? undefined : await store.openMapping(taskId);
  if (mapping === undefined) {
    return [];
  }
  return named.length > 0 || mapping.buildRequestId === null ? named : [mapping.buildRequestId];
}

/** A client of the queue, with the bridge's own credentials and identity. */
export function queueOf({ taskcluster }: Pick<Config, 'taskcluster'>, clock: Clock, inputs?: InputCounter): TaskQueue {
  const certificate = taskcluster.credentials.certificate?.reveal();
  return createQueueClient({
    ...taskcluster,
    credentials: {
      clientId: taskcluster.credentials.clientId,
      accessToken: taskcluster.credentials.accessToken.reveal(),
      ...(certificate === undefined ? {} : { certificate }),
    },
    clock,
    signedAt: () => clock.now(),
    inputs,
  });
}

function createPulse(config: Config, clock: Clock, log: Logger): PulseBroker {
  return createPulseBroker({
    url: config.pulse.url.reveal(),
    namespace: config.pulse.namespace,
    clock,
    log: log.child({ service: 'pulse' }),
  });
}

function databasePart(db: Knex, store: MappingStore, log: Logger): Part {
  return waitingPart('database', log, { check: () => checkSchema(db), close: () => store.close() });
}

/** So long the rest waits for the legacy CI's first answer, which may say that it is not set up for the bridge. */
const FIRST_ANSWER_MS = 3000;

function legacyCiPart(ci: LegacyCi, log: Logger): Part {
  const waiting = waitingPart('legacy-ci', log, { check: () => ci.check(), close: () => ci.close() });
  return {
    ...waiting,
    async start() {
      let isLate = false;
      const checked = waiting.start().catch((error: unknown) => {
        if (!isLate) {
          throw error;
        }
        log.error({ err: error }, 'the legacy CI is not set up for the bridge');
      });
      // While it is away claims have to be kept alive all the same: the rest starts without it.
      await Promise.race([checked, systemClock.sleep(FIRST_ANSWER_MS)]);
      isLate = true;
    },
  };
}

const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 15_000;

/** A dependency that is away at the start is waited for; one that is wrongly set up ends the start. */
function waitingPart(
  name: string,
  log: Logger,
  { check, close }: { check: () => Promise<void>; close: () => Promise<void> },
): Part {
  const stopping = new AbortController();
  return {
    name,
    async start() {
      for (let wait = FIRST_WAIT_MS; !stopping.signal.aborted; wait = Math.min(MAX_WAIT_MS, wait * 2)) {
        try {
          await check();
          return;
        } catch (error) {
          if (!isTransient(error)) {
            throw error;
          }
          log.warn({ part: name, retryInMs: wait, err: error }, 'not there yet; waiting for it');
          await systemClock.sleep(wait, stopping.signal);
        }
      }
    },
    async stop() {
      stopping.abort();
      await close();
    },
  };
}

/** Unique among the running processes, and telling to people: in the log, the trace and every lease. */
export function instanceName(config: Pick<Config, 'bridge'>): string {
  const name = config.bridge.instance ?? hostname().slice(0, 40);
  return `${name}-${process.pid}-${randomBytes(3).toString('hex')}`;
}

/** The operator's rules; a pattern is matched from the beginning of the name, as the first bridge did. */
export function rulesOf(config: Pick<Config, 'builders'>): BuilderRules {
  const matches = (patterns: readonly RE2JS[]) => (builder: string) =>
    patterns.some((pattern) => pattern.matcher(builder).lookingAt());
  return { isIgnored: matches(config.builders.ignored), isRestricted: matches(config.builders.restricted) };
}

/** All waits follow from the lease: how long an instance may be silent before another one takes over its tasks. */
export function timingOf(config: Config): Timing {
  const leaseMs = config.bridge.lease;
  return { leaseMs, submitGraceMs: leaseMs / 3, cancelRetryMs: Math.min(15_000, leaseMs / 3) };
}

export function policyOf(config: Config): Policy {
  const { taskcluster, reflector } = config;
  return {
    taskQueueId: `${taskcluster.provisionerId}/${taskcluster.workerType}`,
    workerGroup: taskcluster.workerGroup,
    workerId: taskcluster.workerId,
    results: config.results,
    reclaimThresholdMs: reflector.reclaimThreshold,
    // A little less than the interval, so that a mapping is due again at the next round and not at the one after.
    recheckMs: reflector.recheck * 0.9,
    absentGraceMs: config.legacyCi.absentGrace,
    maxSubmissions: MAX_SUBMISSIONS,
    maxReruns: MAX_RERUNS,
    maxUploadAttempts: MAX_UPLOAD_ATTEMPTS,
  };
}

function liveChecks(bridge: Bridge, services: readonly Service[]): readonly Check[] {
  if (!services.includes('reflector')) {
    return [];
  }
  const ageMs = bridge.reflector.idleMs();
  return [{ name: 'reflector', isOk: ageMs < STUCK_MS, detail: `last round ended ${Math.round(ageMs / 1000)} s ago` }];
}
