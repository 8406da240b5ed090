/**
 * A classic Buildbot 0.8: a master on a real MariaDB database, its web status, and what Mozilla's site had around it,
 * which are Pulse events, uploaded logs, Self-serve and the list of all builders. On 127.0.0.1.
 */
import { type FastifyInstance, fastify } from 'fastify';
import type { Knex } from 'knex';
import { connect } from '../../db/connection.ts';
import { registerHttpFaults } from '../queue/http-faults.ts';
import { createBuildFiles } from './build-files.ts';
import { createClaims } from './claims.ts';
import { createEvents, type EventSwitches } from './events.ts';
import { createLogUploads } from './log-uploads.ts';
import { createMaster, type FailedStart } from './master.ts';
import { type ClassicBuildbotOptions, directoryOf } from './options.ts';
import { createRequestReader } from './requests.ts';
import { type BuildRow, createSchedulerDb, type RequestRow } from './scheduler-db.ts';
import { createTables } from './schema.ts';
import { registerSelfServe, SELF_SERVE } from './self-serve.ts';
import { createAgent, type SelfServeSwitches } from './self-serve-agent.ts';
import { createSelfServeReads } from './self-serve-reads.ts';
import { registerWebStatus } from './web-status.ts';

export interface ClassicBuildbot {
  /** Makes the tables if they are missing, and starts master and site. */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Known once started; it stays the same when the master comes back. */
  readonly webStatusUrl: string;
  /** Without a slash at its end. Mozilla only: a stock site answers 404 there. */
  readonly selfServeUrl: string;
  /** All builders, in the form of Mozilla's allthethings.json. */
  readonly buildersUrl: string;
  /** How events are to fail, beside what the fault rules do to messages. */
  readonly events: EventSwitches;
  /** How Self-serve is to fail. */
  readonly selfServe: SelfServeSwitches;
  /** As an operator stops it: running builds end RETRY and their claims are given up. */
  stopMaster(): Promise<void>;
  /** Brings it back, as a new incarnation of the same name. */
  startMaster(): Promise<void>;
  /** SIGKILL: nothing is written any more, and events still waiting in the master are lost. */
  killMaster(): Promise<void>;
  /** What it was at ends RETRY. */
  killWorker(name: string): Promise<void>;
  startWorker(name: string): Promise<void>;
  /** The next build on this worker is claimed, but does not start; the worker is lost then. No event tells of it. */
  failNextStart(worker: string, how: FailedStart): void;
  /** The next build that ends is not written down as over, which a stock 0.8.12 does not mind: its request is complete. */
  loseNextFinish(): void;
  /** Ends the build of a request, by its own script if no results are given. */
  finish(brid: number, results?: number): Promise<void>;
  /** As a person does on the web status; answers whether there was anything to cancel. */
  cancelRequest(brid: number): Promise<boolean>;
  stopBuild(builder: string, number: number): Promise<boolean>;
  /** Does now what the master would do at its next poll. */
  poll(): Promise<void>;
  /** Resolves when the master has written all that it is about to write: a request completes before its buildset. */
  settled(): Promise<void>;
  requests(): Promise<readonly RequestRow[]>;
  builds(): Promise<readonly BuildRow[]>;
}

/** A server that can go and come back on the same port. */
function createServer(options: ClassicBuildbotOptions, register: (app: FastifyInstance) => void) {
  let app: FastifyInstance | undefined;
  let port = 0;
  let stopping = new AbortController();
  return {
    url: () => `http://127.0.0.1:${port}`,
    async start(): Promise<void> {
      stopping = new AbortController();
      app = fastify({ forceCloseConnections: true, routerOptions: { maxParamLength: 1024 } });
      registerHttpFaults(app, { faults: options.faults, clock: options.clock, stopping: stopping.signal });
      register(app);
      port = Number(new URL(await app.listen({ host: '127.0.0.1', port })).port);
    },
    async stop(): Promise<void> {
      stopping.abort();
      await app?.close();
      app = undefined;
    },
  };
}

export function createClassicBuildbot(options: ClassicBuildbotOptions): ClassicBuildbot {
  const { clock, schema, flavour } = options;
  const db: Knex = connect(options.databaseUrl);
  // Python's float seconds, which MySQL rounds: a 0.8.12's times were seen up to half a second ahead.
  const now = () => Math.round(clock.now() / 1000);
  const selfServe: SelfServeSwitches = { missNext: 0, failNext: 0, raceNext: 0, isPaused: false, delayMs: 0 };
  const eventSwitches: EventSwitches = { requestIds: 'known', failUploads: 0 };
  const schedulerDb = createSchedulerDb(db, schema, now);
  const claims = createClaims(db, schema, now);
  const isMozilla = flavour === 'mozilla';

  const uploads = createLogUploads(() => site.url(), options.logsAs ?? 'encoded');
  const events = createEvents({ ...options, url: () => web.url(), uploads, switches: eventSwitches });
  const master = createMaster(options, {
    claims,
    db: schedulerDb,
    files: createBuildFiles(),
    load: createRequestReader(db, schema).load,
    url: () => web.url(),
    onStarted: (build, incarnation) => isMozilla && events.started(build, incarnation),
    onFinished: (build, incarnation) => isMozilla && events.finished(build, incarnation),
  });
  const agent = createAgent({ ...options, db, master, switches: selfServe, now });

  const web = createServer(options, (app) =>
    registerWebStatus(app, { master, settings: options, url: () => web.url(), pendingOf: schedulerDb.unclaimed }),
  );
  const site = createServer(options, (app) => {
    app.get('/builders.json', async () => ({
      builders: Object.fromEntries(
        options.builders.map((builder) => [
          builder.name,
          { properties: {}, slavebuilddir: directoryOf(builder), slavepool: null },
        ]),
      ),
    }));
    if (isMozilla) {
      uploads.register(app);
      const reads = createSelfServeReads(db, schema);
      registerSelfServe(app, { branches: options.branches ?? {}, reads, work: agent.work, switches: selfServe, now });
    }
  });

  return {
    async start() {
      await createTables(db, schema);
      await site.start();
      await web.start();
      await master.start();
    },
    async stop() {
      await master.kill();
      agent.stop();
      events.stop();
      await Promise.all([web.stop(), site.stop()]);
      await db.destroy();
    },
    get webStatusUrl() {
      return web.url();
    },
    get selfServeUrl() {
      return `${site.url()}${SELF_SERVE}`;
    },
    get buildersUrl() {
      return `${site.url()}/builders.json`;
    },
    events: eventSwitches,
    selfServe,
    async stopMaster() {
      await master.stop();
      events.flush();
      await web.stop();
    },
    async startMaster() {
      await web.start();
      await master.start();
    },
    async killMaster() {
      events.loseWaiting();
      await Promise.all([master.kill(), web.stop()]);
    },
    killWorker: (name) => master.loseWorker(name),
    failNextStart: (worker, how) => master.failNextStart(worker, how),
    loseNextFinish: () => master.loseNextFinish(),
    startWorker: (name) => master.connectWorker(name),
    finish: (brid, results) => master.finish(brid, results),
    cancelRequest: (brid) => master.cancelRequest(brid),
    stopBuild: (builder, number) => master.stopBuild(builder, number),
    poll: () => master.poll(),
    settled: () => master.settled(),
    requests: () => schedulerDb.requests(),
    builds: () => schedulerDb.builds(),
  };
}
