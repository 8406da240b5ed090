/**
 * A campaign: tasks of mixed fates on three bridges, while everything around them breaks, by a seed. At the end everything
 * is mended, and both sides and the mapping database have to agree about every task.
 */
import { setTimeout as delay } from 'node:timers/promises';
import pLimit from 'p-limit';
import slugid from 'slugid';
import { connect } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { eventually } from '../support/eventually.ts';
import type { LegacyCast, LegacySide } from '../support/legacy/legacy-side.ts';
import { taskDefinition } from '../support/world.ts';
import { breakThings, type FaultReport } from './breaking.ts';
import { countErrors, countUntold, endingsOf, findProblems, isBroken, ownBuilds, readEnd, rebuilt } from './check.ts';
import type { Fate } from './fates.ts';
import { placesOf, restartMaster } from './faults.ts';
import { type PlannedTask, planFaults, planTasks } from './plan.ts';
import { createStreams } from './random.ts';
import { type Stage, startStage } from './stage.ts';

export interface CampaignOptions {
  readonly legacy: (cast: LegacyCast) => Promise<LegacySide>;
  readonly seed: number;
  readonly tasks: number;
  /** How long things break. */
  readonly seconds: number;
}

export interface CampaignReport {
  readonly faults: FaultReport;
  /** Runs whose claim ended before it was renewed: no bridge was alive, or none could reach the queue. */
  readonly expiredClaims: number;
  /** Builds that nobody could stop, and that came to their end. */
  readonly unstopped: number;
  /** Builds of a request that had its result, by a master that was killed before it had noted that. */
  readonly rebuilt: number;
  /** Artifacts that say why there is nothing. */
  readonly errorArtifacts: number;
  /** Builds of which no event told the properties. */
  readonly untold: number;
  /** Builds that Buildbot itself never ended, so that its master had to be restarted. */
  readonly hung: number;
  /** From the last fault's end until everything was at rest. */
  readonly settledMs: number;
  /** How much of it was waited for an operator to come for those that hung: until the last of them was freed. */
  readonly hungMs: number;
  /** The most memory that any bridge had, in bytes. */
  readonly peakMemory: number;
  /** In words, of each task that did not end as it should have, each bridge that died of itself, and each fault that was not mended. */
  readonly problems: readonly string[];
  /** The ends of the bridges' logs, if there are problems. */
  readonly logs: readonly string[];
}

interface Cast {
  readonly taskId: string;
  readonly fate: Fate;
}

type People = ReturnType<typeof createPeople>;

/**
 * With everything mended: long enough for claims to run out, for what was given up to be tried again, and for the builds
 * that are left, of which a builder has one at a time: on a busy machine each takes some seconds.
 */
export function settleMs(tasks: number): number {
  return Math.max(150_000, tasks * 1500);
}
/** How often an operator looks for builds that hang: less often than any build takes, and all is at rest before when all is well. */
export const OPERATOR_MS = 60_000;

export async function runCampaign({ legacy, seed, tasks, seconds }: CampaignOptions): Promise<CampaignReport> {
  const streams = createStreams(seed);
  const stage = await startStage(legacy, streams('calls and messages of the queue').next);
  const cast: Cast[] = [];
  const stopping = new AbortController();
  const places = placesOf(stage.legacy.kind);
  const ms = seconds * 1000;
  const breaking = breakThings(stage, places, planFaults(places, streams, ms), { ms, signal: stopping.signal });
  const people = createPeople(stage, cast);
  try {
    await createTasks(stage, planTasks(streams, { tasks, ms }), cast);
    const faults = await breaking;
    const mended = Date.now();
    const hanging = await settle(stage, cast, people);
    const settledMs = Date.now() - mended;
    await people.stop();
    const { problems: wrong, ...counted } = await check(stage, cast, people);
    const problems = [...stage.crashes, ...wrong];
    const expiredClaims = cast
      .flatMap(({ taskId }) => endingsOf(stage, taskId))
      .filter(({ reason }) => reason === 'claim-expired').length;
    const logs =
      problems.length === 0
        ? []
        : stage.bridges.flatMap(({ lines }) => lines.slice(-400).map((line) => JSON.stringify(line)));
    return {
      ...{ faults, expiredClaims, ...counted, ...hanging, settledMs, peakMemory: stage.peakMemory() },
      ...{ problems: [...faults.problems, ...problems], logs },
    };
  } finally {
    stopping.abort();
    await breaking.catch(() => undefined);
    await people.stop();
    await stage.stop();
  }
}

async function createTasks(stage: Stage, plan: readonly PlannedTask[], cast: Cast[]): Promise<void> {
  const begin = Date.now();
  for (const { atMs, fate } of plan) {
    await delay(Math.max(0, begin + atMs - Date.now()));
    const taskId = slugid.nice();
    await insistently(() => create(stage, taskId, fate));
    cast.push({ taskId, fate });
  }
}

/** Whose answer is lost may have been made; and what is made later has a later deadline. */
async function create({ client, queue }: Stage, taskId: string, { wish }: Fate): Promise<void> {
  if (queue.tasks.get(taskId) === undefined) {
    await client.createTask(taskId, taskDefinition({ retries: 40, ...wish }));
  }
}

async function insistently<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= 100) {
        throw error;
      }
      await delay(200);
    }
  }
}

/** Hundreds of tasks, one after the other, would take minutes. */
function ofEach<T>(cast: readonly Cast[], read: (each: Cast) => Promise<T>): Promise<readonly T[]> {
  const limit = pLimit(8);
  return Promise.all(cast.map((each) => limit(() => insistently(() => read(each)))));
}

/** People who interfere with tasks, and try again when the queue or Buildbot does not answer. */
function createPeople(stage: Stage, cast: readonly Cast[]) {
  const done = new Set<string>();
  const stopping = new AbortController();
  const loop = (async () => {
    while (!stopping.signal.aborted) {
      for (const { taskId, fate } of [...cast]) {
        if (fate.interfere !== undefined && !done.has(taskId)) {
          try {
            if (await fate.interfere(stage, taskId)) {
              done.add(taskId);
            }
          } catch {
            // Tried again in a moment.
          }
        }
      }
      await delay(100);
    }
  })();
  return {
    /** Whether there is nothing more for them to do about a task. */
    isDone: ({ taskId, fate }: Cast) => fate.interfere === undefined || done.has(taskId),
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}

/**
 * Waits until nothing is under way any more, or the time is over; what is wrong then, the check finds.
 * @returns how many builds hung in Buildbot until an operator came, and how long until the last of them was freed
 */
async function settle(
  stage: Stage,
  cast: readonly Cast[],
  people: People,
): Promise<Pick<CampaignReport, 'hung' | 'hungMs'>> {
  const store = createMappingStore(connect(stage.databaseUrl));
  const isAtRest = async () => {
    const isOver = cast.every((each) => {
      const reason = endingsOf(stage, each.taskId).at(-1)?.reason;
      // Whether it broke in Buildbot, the check finds.
      return people.isDone(each) && (reason === each.fate.ends || isBroken(each.fate, reason));
    });
    const open = Object.values((await store.overview()).byState).reduce((sum, count) => sum + count, 0);
    return isOver && open === 0;
  };
  const wait = (timeoutMs: number) =>
    eventually(isAtRest, { timeoutMs, intervalMs: 500, what: 'everything to come to rest' }).catch(() => false);
  try {
    const begin = Date.now();
    const end = begin + settleMs(cast.length);
    let [hung, hungMs] = [0, 0];
    let open = await openBuilds(stage, cast);
    while (!(await wait(OPERATOR_MS)) && Date.now() < end) {
      const now = await openBuilds(stage, cast);
      const stuck = now.filter((build) => open.includes(build)).length;
      if (stuck > 0) {
        hung += stuck;
        await restartMaster(stage.legacy, 'stopMaster');
        hungMs = Date.now() - begin;
      }
      open = stuck > 0 ? [] : now;
    }
    return { hung, hungMs };
  } finally {
    await store.close();
  }
}

/**
 * Buildbot 3.7 never ends a build whose worker was lost before its first step: the bridge can only believe that it
 * runs, until an operator restarts the master. Such a build is still open when the operator looks again.
 */
async function openBuilds(stage: Stage, cast: readonly Cast[]): Promise<readonly string[]> {
  if (stage.legacy.kind !== 'data-api') {
    return [];
  }
  const open = await ofEach(cast, async ({ taskId }) => {
    const builds = await stage.legacy.builds(taskId);
    return builds.flatMap(({ results }, index) => (results === null ? [`${taskId} ${index}`] : []));
  });
  return open.flat();
}

async function check(stage: Stage, cast: readonly Cast[], people: People) {
  const store = createMappingStore(connect(stage.databaseUrl));
  const problems: string[] = [];
  let unstopped = 0;
  let builtAgain = 0;
  let errorArtifacts = 0;
  let untold = 0;
  const ends = await ofEach(cast, async (each) => ({
    each,
    end: await readEnd(stage, each, await store.mappingsOf(each.taskId)),
  }));
  for (const { each, end } of ends) {
    const { taskId, fate } = each;
    unstopped += end.isUnstoppable ? ownBuilds(end) : 0;
    builtAgain += rebuilt(end);
    errorArtifacts += countErrors(end);
    untold += countUntold(end);
    const found = [...findProblems(end), ...(people.isDone(each) ? [] : ['people are not done with it'])];
    if (found.length > 0) {
      const runs = end.runs.map(({ reason }) => reason);
      const trace = (await store.eventsOf(taskId)).map(
        ({ at, instance, what, detail }) => `${new Date(at).toISOString()} ${instance} ${what}: ${detail}`,
      );
      problems.push(
        `${taskId} (${fate.name}): ${found.join('; ')}; runs ${runs.join(', ')}\n    ${trace.join('\n    ')}`,
      );
    }
  }
  await store.close();
  return { problems, unstopped, rebuilt: builtAgain, errorArtifacts, untold };
}
