/** The master: claims, builds, completes, retries and cancels requests in the database, as a 0.8 does. */
import type { Attempt } from '../buildbot/state.ts';
import type { BuildFiles } from './build-files.ts';
import { buildProperties, type ClassicBuild } from './builds.ts';
import type { Claims } from './claims.ts';
import { createEnds, RETRY } from './ends.ts';
import { type Life, repeat } from './life.ts';
import { mergeRequests } from './merge.ts';
import type { ClassicBuildbotOptions, ClassicBuilderOptions } from './options.ts';
import type { LoadedRequest, PendingRow } from './requests.ts';
import type { SchedulerDb } from './scheduler-db.ts';
import { createTurn } from './turn.ts';

const [FAILURE, EXCEPTION, CANCELLED] = [2, 4, 6] as const;
const CLAIM_REFRESH_MS = 10 * 60_000;
const FOR_EVER_MS = 2 ** 31 - 1;

export interface MasterParts {
  readonly claims: Claims;
  readonly db: SchedulerDb;
  readonly files: BuildFiles;
  readonly load: (rows: readonly PendingRow[]) => Promise<readonly LoadedRequest[]>;
  /** Where its web status is. */
  readonly url: () => string;
  readonly onStarted: (build: ClassicBuild, incarnation: string) => void;
  readonly onFinished: (build: ClassicBuild, incarnation: string) => void;
}

/** How a build fails to start: the worker does not answer, or it is gone when the row has been written. */
export type FailedStart = 'ping' | 'vanish';

export type ClassicMaster = ReturnType<typeof createMaster>;

export function createMaster(options: ClassicBuildbotOptions, parts: MasterParts) {
  const { clock, schema, flavour, masterName } = options;
  const { claims, db, files } = parts;
  const rhythm = { clock, intervalMs: options.pollIntervalMs };
  const running = new Map<ClassicBuild, AbortController>();
  const lost = new Set<string>();
  const failing = new Map<string, FailedStart>();
  const turn = createTurn();
  const ends = createEnds({ ...parts, ...rhythm, schema });
  let life: Life | undefined;
  let starts = 0;

  const claimant = () => ({ masterName, incarnation: life?.incarnation ?? '' });
  const runningOf = (brid: number) =>
    [...running.keys()].find(({ requests }) => requests.some((request) => request.brid === brid));

  function freeWorker({ workers }: ClassicBuilderOptions): string | undefined {
    const busy = new Set([...running.keys()].map(({ worker }) => worker));
    return workers.find((name) => !lost.has(name) && !busy.has(name));
  }

  /** Starts all that can be started. */
  async function pass(): Promise<void> {
    const own = life;
    const held = new Set<string>();
    while (own !== undefined && !own.ended.signal.aborted) {
      const able = options.builders.filter((builder) => !held.has(builder.name) && freeWorker(builder) !== undefined);
      const names = able.map(({ name }) => name);
      const rows = names.length === 0 ? [] : await claims.pending(names, claimant());
      const builder = able.find(({ name }) => name === rows[0]?.buildername);
      const worker = builder && freeWorker(builder);
      if (builder === undefined || worker === undefined) {
        return;
      }
      const ofBuilder = rows.filter(({ buildername }) => buildername === builder.name);
      const loaded = await parts.load(ofBuilder).catch(() => []);
      const [first, ...others] = loaded;
      if (first === undefined) {
        // One that cannot be read holds up all of its builder, at every pass again.
        held.add(builder.name);
        continue;
      }
      const merged = mergeRequests(first, others, { builder, flavour });
      if (!own.ended.signal.aborted && (await claims.take(bridsOf(merged), claimant()))) {
        await start(builder, worker, merged, own);
      }
    }
  }

  async function start(
    builder: ClassicBuilderOptions,
    worker: string,
    requests: readonly LoadedRequest[],
    { incarnation, ended }: Life,
  ): Promise<void> {
    const earlier = await db.countBuilds(requests[0]?.brid ?? 0);
    const attempt = builder.attempts[Math.min(earlier, builder.attempts.length - 1)];
    if (attempt === undefined || ended.signal.aborted) {
      return;
    }
    const failure = failing.get(worker);
    if (failing.delete(worker)) {
      lost.add(worker);
    }
    if (failure === 'ping') {
      await claims.giveBack(bridsOf(requests), claimant());
      return;
    }
    const number = files.nextNumber(builder.name);
    const rowIds = await db.addBuilds(number, bridsOf(requests));
    if (failure === 'vanish') {
      await claims.giveBack(bridsOf(requests), claimant());
    }
    if (failure === 'vanish' || ended.signal.aborted) {
      return;
    }
    const bare = {
      ...{ builder, number, requests, rowIds, worker, attempt },
      ...{ startedAt: clock.now(), finishedAt: null, results: null },
    };
    const build: ClassicBuild = { ...bare, properties: buildProperties(bare, schema, parts.url()) };
    files.add(build);
    const stop = new AbortController();
    running.set(build, stop);
    parts.onStarted(build, incarnation);
    void run(build, attempt, stop.signal);
  }

  async function run(build: ClassicBuild, attempt: Attempt, stopped: AbortSignal): Promise<void> {
    await clock.sleep(attempt.durationMs === 'wait' ? FOR_EVER_MS : attempt.durationMs, stopped);
    if (!stopped.aborted) {
      await endAndGoOn(build, attempt.results);
    }
  }

  /** The build is over. */
  async function end(build: ClassicBuild, results: number): Promise<void> {
    const own = life;
    const stop = running.get(build);
    if (own === undefined || stop === undefined) {
      return;
    }
    stop.abort();
    build.finishedAt = clock.now();
    build.results = results;
    await ends.write(build, results, own, claimant());
    if (running.delete(build)) {
      parts.onFinished(build, own.incarnation);
    }
  }

  const passQuietly = () => pass().catch(() => undefined);

  /** What ends frees a worker, so the master looks for more at once. */
  function endAndGoOn(build: ClassicBuild, results: number): Promise<void> {
    return turn(async () => {
      await end(build, results);
      await passQuietly();
    });
  }

  return {
    isRunning: (build: ClassicBuild) => running.has(build),
    isConnected: (worker: string) => !lost.has(worker),
    find: files.find,
    buildsOf: files.of,
    /** Does at once what it would do at its next poll. */
    poll: () => turn(passQuietly),
    /** Resolves when it has done what it is at. */
    settled: () => turn(async () => undefined),
    async start(): Promise<void> {
      starts += 1;
      const incarnation = `pid${2000 + starts}-boot${Math.floor(clock.now() / 1000)}`;
      const own: Life = { incarnation, ended: new AbortController() };
      life = own;
      const brids = () => [...running.keys()].flatMap(({ requests }) => bridsOf(requests));
      void repeat(own, rhythm, () => turn(passQuietly));
      void repeat(own, { clock, intervalMs: options.claimRefreshMs ?? CLAIM_REFRESH_MS }, () =>
        turn(() => claims.refresh(brids(), claimant())),
      );
      await turn(passQuietly);
    },
    /** As an operator stops it: what ran is given back, to be built when it is back. */
    async stop(): Promise<void> {
      await turn(async () => {
        for (const build of [...running.keys()]) {
          await end(build, RETRY);
        }
        life?.ended.abort();
        life = undefined;
      });
    },
    /** SIGKILL: whatever it was at, nothing more is written. */
    async kill(): Promise<void> {
      life?.ended.abort();
      life = undefined;
      for (const stop of running.values()) {
        stop.abort();
      }
      running.clear();
      files.forgetUnfinished();
      await turn(async () => undefined);
    },
    async loseWorker(name: string): Promise<void> {
      lost.add(name);
      await turn(async () => {
        for (const build of [...running.keys()].filter(({ worker }) => worker === name)) {
          await end(build, RETRY);
        }
        await passQuietly();
      });
    },
    /** The next build on this worker is claimed, but does not start; the worker is lost then. No event tells of it. */
    failNextStart: (worker: string, how: FailedStart): void => void failing.set(worker, how),
    /** Of the next build that ends no row says so. Stock masters of schema B only. */
    loseNextFinish: ends.loseNextFinish,
    async connectWorker(name: string): Promise<void> {
      lost.delete(name);
      await turn(passQuietly);
    },
    /** Ends the build of a request, by its own script if no results are given. */
    async finish(brid: number, results?: number): Promise<void> {
      const build = runningOf(brid);
      if (build) {
        await endAndGoOn(build, results ?? build.attempt.results);
      }
    },
    /** Answers whether it ran; then it ends as stopped builds do there: each of the three kinds says it differently. */
    async stopBuild(builder: string, number: number): Promise<boolean> {
      const build = [...running.keys()].find((each) => each.builder.name === builder && each.number === number);
      if (build) {
        build.wasStopped = true;
        await endAndGoOn(build, flavour === 'mozilla' ? CANCELLED : schema === 'A' ? FAILURE : EXCEPTION);
      }
      return build !== undefined;
    },
    /** Cancels a pending request; one that is claimed by then is left alone. */
    cancelRequest: (brid: number): Promise<boolean> =>
      turn(async () => {
        const isFree = life !== undefined && (await claims.takeToCancel(brid, claimant()));
        if (isFree) {
          await db.complete([brid], FAILURE);
        }
        return isFree;
      }),
  };
}

function bridsOf(requests: readonly LoadedRequest[]): readonly number[] {
  return requests.map(({ brid }) => brid);
}
