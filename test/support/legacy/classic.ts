/**
 * A classic Buildbot 0.8, emulated on a real MariaDB: as Mozilla had it (Pulse events, Self-serve), or a stock one (web
 * status only, the database is polled).
 */
import { systemClock } from '../../../src/clock.ts';
import { connect } from '../../../src/db/connection.ts';
import { type ClassicBuildbot, createClassicBuildbot } from '../../../src/sandbox/classic/emulator.ts';
import type { ClassicBuilderOptions } from '../../../src/sandbox/classic/options.ts';
import { createFaults } from '../../../src/sandbox/faults.ts';
import { eventually } from '../eventually.ts';
import { startPulsePublisher } from '../pulse-publisher.ts';
import { mariadb } from '../services/index.ts';
import { startTcpGate } from '../tcp-gate.ts';
import type { LegacyCast, LegacySide } from './legacy-side.ts';

const EXCHANGE = 'exchange/build/';
const MASTER = 'bm1.example.com:/builds/buildbot/master';
const AUTH = { username: 'bridge', password: 'bridge-pass' };
const [SUCCESS, WARNINGS, FAILURE, EXCEPTION, RETRY, CANCELLED] = [0, 1, 2, 4, 5, 6] as const;

const steps = [{ name: 'compile', log: 'compiling\n' }];
const ends = (...results: number[]) => results.map((code) => ({ results: code, durationMs: 50, steps }));
const BUILDERS: readonly ClassicBuilderOptions[] = [
  { name: 'success', attempts: ends(SUCCESS) },
  { name: 'warnings', attempts: ends(WARNINGS) },
  { name: 'failure', attempts: ends(FAILURE) },
  { name: 'exception', attempts: ends(EXCEPTION) },
  { name: 'retry-once', attempts: ends(RETRY, SUCCESS) },
  { name: 'slow', attempts: [{ results: SUCCESS, durationMs: 'wait' as const, steps }] },
  { name: 'noworker', attempts: ends(SUCCESS) },
  ...['quick-1', 'quick-2', 'quick-3', 'release-x'].map((name) => ({ name, attempts: ends(SUCCESS) })),
].map((builder) => ({ ...builder, workers: builder.name === 'noworker' ? [] : [workerOf(builder.name)] }));

function workerOf(builder: string): string {
  return `w-${builder}`;
}

export async function startMozillaSide(cast: LegacyCast): Promise<LegacySide> {
  return startClassicSide('mozilla', cast);
}

export async function startStockSide(cast: LegacyCast): Promise<LegacySide> {
  return startClassicSide('stock', cast);
}

async function startClassicSide(
  flavour: 'mozilla' | 'stock',
  { hasListener, pulseUrl }: LegacyCast,
): Promise<LegacySide> {
  const isMozilla = flavour === 'mozilla';
  const database = await mariadb().createDatabase();
  const target = new URL(database.url);
  const gate = await startTcpGate(target.hostname, Number(target.port));
  const gated = new URL(database.url);
  gated.port = String(gate.port);
  const pulse = await startPulsePublisher(pulseUrl, [EXCHANGE]);
  const buildbot = createClassicBuildbot({
    clock: systemClock,
    faults: createFaults(),
    databaseUrl: database.url,
    schema: isMozilla ? 'A' : 'B',
    flavour,
    masterName: MASTER,
    builders: BUILDERS,
    pollIntervalMs: 150,
    publish: pulse.publish,
    eventDelayMs: 100,
    logUploadDelayMs: 200,
    branches: { main: { repo: 'https://hg.example.com/integration/main' } },
    ...(isMozilla ? {} : { auth: AUTH }),
  });
  await buildbot.start();
  const db = connect(database.url);

  const site = { selfServeUrl: buildbot.selfServeUrl, buildersUrl: buildbot.buildersUrl };
  const stored = [
    'public/buildbot/status.json',
    'public/logs/live.log',
    'public/logs/live_backing.log',
    'public/properties.json',
  ];
  // What only events tell is not known where nobody listens.
  const isTold = !isMozilla || hasListener;

  async function requestIds(taskId: string): Promise<readonly number[]> {
    return db('buildrequests as r')
      .join('buildsets as s', 's.id', 'r.buildsetid')
      .where('s.reason', `Created by BBB for task ${taskId}`)
      .orderBy('r.id')
      .pluck('r.id');
  }

  async function lastRequest(taskId: string): Promise<number> {
    const id = (await requestIds(taskId)).at(-1);
    if (id === undefined) {
      throw new Error(`no build request of ${taskId}`);
    }
    return id;
  }

  return {
    kind: flavour,
    ways: {
      stopped: isMozilla ? CANCELLED : EXCEPTION,
      masterStopped: { results: RETRY, requests: 1 },
      artifacts: isMozilla && isTold ? [...stored, 'public/logs/live_backing.log.gz'].sort() : stored,
      source: 'bbb',
      log: isMozilla ? (isTold ? 'elsewhere' : 'none') : 'stored',
      refused: [
        [{ buildername: 'success' }, 'payload.properties.product'],
        [{ buildername: 'success', properties: { product: 'widget', long: 'x'.repeat(70_000) } }, 'too long'],
      ],
    },
    url: gated.href,
    config: {
      kind: 'scheduler-db',
      absentGrace: '3s',
      schedulerDb: {
        url: gated.href,
        ...(isMozilla
          ? { pulseExchange: EXCHANGE, ...site }
          : { webStatus: { url: buildbot.webStatusUrl, ...AUTH }, pollInterval: '200ms' }),
        outcomeWait: hasListener ? '20s' : '1s',
      },
    },
    ...(isMozilla ? { site } : {}),
    async requests(taskId) {
      const ids = await requestIds(taskId);
      const rows = await buildbot.requests();
      return ids.map((id) => ({
        buildRequestId: id,
        isComplete: rows.find((row) => row.id === id)?.complete === 1,
      }));
    },
    builds: (taskId) => readBuilds(buildbot, () => requestIds(taskId)),
    async begun(taskId, count) {
      await eventually(
        async () => {
          const builds = await readBuilds(buildbot, () => requestIds(taskId));
          return builds.length === count && builds.at(-1)?.results === null;
        },
        { timeoutMs: 60_000, what: `build ${count} of ${taskId} to begin` },
      );
    },
    finish: async (taskId) => buildbot.finish(await lastRequest(taskId)),
    async cancelRequest(taskId) {
      await buildbot.cancelRequest(await lastRequest(taskId));
    },
    async stopBuild(taskId) {
      const brid = await lastRequest(taskId);
      const build = (await buildbot.builds()).findLast((row) => row.brid === brid);
      await buildbot.stopBuild('slow', build?.number ?? -1);
    },
    stopMaster: () => buildbot.stopMaster(),
    killMaster: () => buildbot.killMaster(),
    async startMaster() {
      if (!isMozilla) {
        // A stock master never takes over what a dead one had claimed: its operator has to give it back.
        const open = db('buildrequests').select('id').where({ complete: 0 });
        await db('buildrequest_claims').whereIn('brid', open).delete();
      }
      await buildbot.startMaster();
    },
    killWorker: () => buildbot.killWorker(workerOf('slow')),
    startWorker: () => buildbot.startWorker(workerOf('slow')),
    holdSubmission: (when) => gate.hold(when === 'request' ? /insert into `buildrequests`/i : /COMMIT/, when),
    cut: () => gate.cut(),
    release: () => gate.release(),
    async stop() {
      await gate.stop();
      await buildbot.stop();
      await db.destroy();
      await pulse.close();
      await database.drop();
    },
  };
}

/** The database keeps no results of builds: the last one's are its request's, and those before it ended RETRY. */
async function readBuilds(buildbot: ClassicBuildbot, requestIds: () => Promise<readonly number[]>) {
  const ids = await requestIds();
  const [requests, builds] = [await buildbot.requests(), await buildbot.builds()];
  return ids.flatMap((id) => {
    const request = requests.find((row) => row.id === id);
    const own = builds.filter(({ brid }) => brid === id);
    return own.map(({ finish_time }, index) => {
      if (index < own.length - 1) {
        return { results: RETRY };
      }
      const isOver = finish_time !== null;
      return { results: request?.complete === 1 ? (request.results ?? null) : isOver ? RETRY : null };
    });
  });
}
