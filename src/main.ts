/** The composition root: from a configuration to a running process. */
import { randomBytes } from 'node:crypto';
import { hostname, tmpdir } from 'node:os';
import type { Logger } from 'pino';
import { type Bridge, createBridge, type Service, servicesIn } from './bridge.ts';
import { createDataApi } from './buildbot/data-api/index.ts';
import { createSchedulerDbCi } from './buildbot/scheduler-db/index.ts';
import { ownRequests } from './buildbot/scheduler-db/own-requests.ts';
import { createSettableClock, systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { connect, nameOfDatabase } from './db/connection.ts';
import { createKeptBuilds } from './db/kept-builds.ts';
import { createMappingStore } from './db/mapping-store.ts';
import { watchWrites } from './db/write-watch.ts';
import { createHealth } from './health.ts';
import { createHttpServer } from './http/server.ts';
import type { Part } from './lifecycle.ts';
import { createPulseBroker, type PulseBroker } from './listeners/pulse-broker.ts';
import { createMetrics } from './metrics.ts';
import type { Broker, Clock, InputCounter, KeptBuilds, LegacyCi, MappingStore, TaskQueue } from './ports.ts';
import { policyOf, rulesOf, timingOf } from './settings.ts';
import { databasePart, legacyCiPart, liveChecks, spoolPart } from './startup.ts';
import { createQueueClient } from './taskcluster/queue-client.ts';
import { readVersion } from './version.ts';

/** Of a sweep: enough to keep instances apart, and little beside the interval. */
const JITTER_MS = 2000;

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
    spoolPart(tmpdir(), log),
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

/** Unique among the running processes, and telling to people: in the log, the trace and every lease. */
export function instanceName(config: Pick<Config, 'bridge'>): string {
  const name = config.bridge.instance ?? hostname().slice(0, 40);
  return `${name}-${process.pid}-${randomBytes(3).toString('hex')}`;
}
