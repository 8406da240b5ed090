/**
 * A campaign: tasks of mixed fates on three bridges, while everything around them breaks, by a seed. At the end everything
 * is mended, and both sides and the mapping database have to agree about every task.
 */
import { setTimeout as delay } from 'node:timers/promises';
import slugid from 'slugid';
import { connect } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { eventually } from '../support/eventually.ts';
import type { LegacyCast, LegacySide } from '../support/legacy/legacy-side.ts';
import { taskDefinition } from '../support/world.ts';
import { FATES, type Fate } from './fates.ts';
import { FAULTS, type Fault } from './faults.ts';
import { createRandom, type Random } from './random.ts';
import { type Stage, startStage } from './stage.ts';

export interface CampaignOptions {
  readonly legacy: (cast: LegacyCast) => Promise<LegacySide>;
  readonly seed: number;
  readonly tasks: number;
  /** How long things break. */
  readonly seconds: number;
}

export interface CampaignReport {
  /** How often each fault happened and was survived. */
  readonly faults: ReadonlyMap<string, number>;
  /** In words, of each task that did not end as it should have. */
  readonly problems: readonly string[];
  /** The ends of the bridges' logs, if there are problems. */
  readonly logs: readonly string[];
}

interface Cast {
  readonly taskId: string;
  readonly fate: Fate;
}

/** With everything mended: long enough for claims to run out, and for what was given up to be tried again. */
const SETTLE_MS = 150_000;
/** Results that a build came to by itself. */
const OWN_RESULTS = [0, 1, 2, 4];

export async function runCampaign({ legacy, seed, tasks, seconds }: CampaignOptions): Promise<CampaignReport> {
  const stage = await startStage(legacy);
  const random = createRandom(seed);
  const cast: Cast[] = [];
  const stopping = new AbortController();
  const breaking = breakThings(stage, random, seconds * 1000, stopping.signal);
  const people = createPeople(stage, cast);
  try {
    const pauseMs = (seconds * 1000) / tasks;
    for (let made = 0; made < tasks; made += 1) {
      const fate = FATES[made % FATES.length] ?? FATES[0];
      const taskId = slugid.nice();
      await insistently(() => create(stage, taskId, fate));
      cast.push({ taskId, fate });
      await delay(pauseMs * 0.9 * (0.5 + random.next()));
    }
    const faults = await breaking;
    await settle(stage, cast);
    await people.stop();
    const problems = await check(stage, cast, people.isDone);
    const logs =
      problems.length === 0
        ? []
        : stage.bridges.flatMap(({ lines }) => lines.slice(-400).map((line) => JSON.stringify(line)));
    return { faults, problems, logs };
  } finally {
    stopping.abort();
    await breaking.catch(() => undefined);
    await people.stop();
    await stage.stop();
  }
}

/** Faults, one after the other and side by side, until the time is over; resolves when all are mended. */
async function breakThings(
  stage: Stage,
  random: Random,
  ms: number,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  const broken = new Map<string, Promise<void>>();
  const end = Date.now() + ms;
  while (Date.now() < end && !signal.aborted) {
    await delay(random.between(300, 1500));
    const fault = pickFault(random);
    if (!broken.has(fault.of)) {
      counts.set(fault.name, (counts.get(fault.name) ?? 0) + 1);
      broken.set(
        fault.of,
        fault.happen(stage, random).finally(() => broken.delete(fault.of)),
      );
    }
  }
  await Promise.all(broken.values());
  return counts;
}

function pickFault(random: Random): Fault {
  let at = random.next() * FAULTS.reduce((sum, { weight }) => sum + weight, 0);
  const found = FAULTS.find(({ weight }) => {
    at -= weight;
    return at < 0;
  });
  if (found === undefined) {
    throw new Error('no faults');
  }
  return found;
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
    isDone: (taskId: string) => done.has(taskId),
    async stop() {
      stopping.abort();
      await loop;
    },
  };
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

/** Waits until nothing is under way any more, or the time is over; what is wrong then, the check finds. */
async function settle(stage: Stage, cast: readonly Cast[]): Promise<void> {
  const store = createMappingStore(connect(stage.databaseUrl));
  try {
    await eventually(
      async () => {
        const ended = cast.every(
          ({ taskId, fate }) => lastReason(stage, taskId) === fate.ends && isRerun(stage, taskId, fate),
        );
        const open = Object.values((await store.overview()).byState).reduce((sum, count) => sum + count, 0);
        return ended && open === 0;
      },
      { timeoutMs: SETTLE_MS, intervalMs: 500, what: 'everything to come to rest' },
    );
  } catch {
    // The check says what is missing.
  } finally {
    await store.close();
  }
}

function isRerun(stage: Stage, taskId: string, { name }: Fate): boolean {
  const runs = stage.queue.tasks.get(taskId)?.status.runs ?? [];
  return (
    name !== 'rerun by a person' || runs.filter(({ reasonResolved }) => reasonResolved === 'completed').length === 2
  );
}

function lastReason({ queue }: Stage, taskId: string): string {
  const run = queue.tasks.get(taskId)?.status.runs.at(-1);
  return run?.reasonResolved ?? run?.state ?? 'unscheduled';
}

async function check(
  stage: Stage,
  cast: readonly Cast[],
  isDone: (taskId: string) => boolean,
): Promise<readonly string[]> {
  const store = createMappingStore(connect(stage.databaseUrl));
  const problems: string[] = [];
  for (const { taskId, fate } of cast) {
    const found: string[] = [];
    const reason = lastReason(stage, taskId);
    if (reason !== fate.ends) {
      found.push(`ended ${reason}, not ${fate.ends}`);
    }
    if (fate.interfere && !isDone(taskId)) {
      found.push('nobody came to interfere with it');
    }
    const requests = await insistently(() => stage.legacy.requests(taskId));
    const open = requests.filter(({ isComplete }) => !isComplete).length;
    if (open > 0) {
      found.push(`${open} of its ${requests.length} build requests are open`);
    }
    const builds = await insistently(() => stage.legacy.builds(taskId));
    const own = builds.filter(({ results }) => results !== null && OWN_RESULTS.includes(results)).length;
    // A stock 0.8 says EXCEPTION of a stopped build.
    const stopped = fate.ends === 'canceled' && stage.legacy.ways.stopped === 4 ? own : 0;
    if (own - stopped !== fate.builds) {
      found.push(`${own} builds came to a result, not ${fate.builds}: ${JSON.stringify(builds)}`);
    }
    const mapping = await store.openMapping(taskId);
    if (mapping !== undefined) {
      found.push(`its mapping is still ${mapping.state}: ${mapping.lastError ?? ''}`);
    }
    if (found.length > 0) {
      const runs = stage.queue.tasks.get(taskId)?.status.runs.map((run) => run.reasonResolved ?? run.state);
      const trace = (await store.eventsOf(taskId)).map(
        ({ at, instance, what, detail }) => `${new Date(at).toISOString()} ${instance} ${what}: ${detail}`,
      );
      problems.push(
        `${taskId} (${fate.name}): ${found.join('; ')}; runs ${runs?.join(', ')}\n    ${trace.join('\n    ')}`,
      );
    }
  }
  await store.close();
  return problems;
}
