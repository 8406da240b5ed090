/** Whether the queue, Buildbot and the mapping database agree about a task, and with its fate. */
import { z } from 'zod';
import type { Mapping } from '../../src/domain/mapping.ts';
import { BACKING_LOG, LIVE_LOG, PROPERTIES, STATUS } from '../../src/reflector/upload.ts';
import type { ArtifactView } from '../../src/sandbox/queue/emulator.ts';
import type { LegacyBuild, LegacyRequest } from '../support/legacy/legacy-side.ts';
import { type Fate, isUnstoppable } from './fates.ts';
import type { Stage } from './stage.ts';

/** A run, by the reason of its resolution, or its state while it has none. */
export interface Ending {
  readonly runId: number;
  readonly reason: string;
}

/** How a task ended, on all sides. */
export interface TaskEnd {
  readonly taskId: string;
  readonly fate: Fate;
  readonly runs: readonly Ending[];
  readonly artifacts: readonly ArtifactView[];
  readonly requests: readonly LegacyRequest[];
  readonly builds: readonly LegacyBuild[];
  /** Newest first. */
  readonly mappings: readonly Mapping[];
  /** What nobody could stop may have come to a result of its own. */
  readonly isUnstoppable: boolean;
  /** The code of a build that was stopped. */
  readonly stopped: number;
}

/** Of each run that the bridge resolves. */
const ARTIFACTS = [STATUS, LIVE_LOG, BACKING_LOG, PROPERTIES];
/** Only the bridge gives these reasons, and it uploads before. */
const BY_BRIDGE = new Set(['completed', 'failed', 'internal-error', 'malformed-payload', 'worker-shutdown']);
/** Of these, a build came to a result of its own. */
const BY_BUILD = new Set(['completed', 'failed', 'internal-error']);
/** The bridge need not have seen such a task. */
const BY_OTHERS = new Set(['canceled', 'deadline-exceeded']);
/** Results that a build comes to by itself. */
const OWN_RESULTS = [0, 1, 2, 4];
const FAILURE = 2;
const EXCEPTION = 4;

/** @throws what Buildbot or the database throw */
export async function readEnd(
  stage: Stage,
  { taskId, fate }: { readonly taskId: string; readonly fate: Fate },
  mappings: readonly Mapping[],
): Promise<TaskEnd> {
  const task = stage.queue.tasks.get(taskId);
  return {
    ...{ taskId, fate, mappings, runs: endingsOf(stage, taskId), artifacts: task?.artifacts ?? [] },
    requests: await stage.legacy.requests(taskId),
    builds: await stage.legacy.builds(taskId),
    isUnstoppable: fate.canBeUnstoppable === true && (await isUnstoppable(stage, taskId)),
    stopped: stage.legacy.ways.stopped,
  };
}

export function endingsOf({ queue }: Pick<Stage, 'queue'>, taskId: string): readonly Ending[] {
  const runs = queue.tasks.get(taskId)?.status.runs ?? [];
  return runs.map(({ runId, reasonResolved, state }) => ({ runId, reason: reasonResolved ?? state }));
}

/** In words, what is wrong. */
export function findProblems(end: TaskEnd): readonly string[] {
  return [...checkSides(end), ...checkMappings(end), ...end.runs.flatMap((run) => checkArtifacts(end, run))];
}

function checkSides(end: TaskEnd): readonly string[] {
  const { fate, requests, builds } = end;
  const found: string[] = [];
  const reason = end.runs.at(-1)?.reason ?? 'unscheduled';
  if (reason !== fate.ends && !(isBroken(fate, reason) && endedException(end))) {
    found.push(`ended ${reason}, not ${fate.ends}`);
  }
  const open = requests.filter(({ isComplete }) => !isComplete).length;
  if (open > 0) {
    found.push(`${open} of its ${requests.length} build requests are open`);
  }
  const own = ownBuilds(end);
  if (own !== fate.builds && !(end.isUnstoppable && own === fate.builds + 1)) {
    found.push(`${own} builds came to a result, not ${fate.builds}`);
  }
  // One build a run has been counted; that they are of different requests, the runs say.
  const named = end.runs.filter((run) => BY_BUILD.has(run.reason)).flatMap((run) => requestNamed(end, run) ?? []);
  if (new Set(named).size < named.length) {
    found.push(`two of its runs were resolved by the same build request: ${named.join(', ')}`);
  }
  return found.length > 0 ? [...found, `builds ${JSON.stringify(builds)}`] : found;
}

/** Whether it ended as builds do that break: Buildbot ends most of those RETRY whose worker is lost, and some EXCEPTION. */
export function isBroken(fate: Fate, reason: string | undefined): boolean {
  return reason === 'internal-error' && (fate.ends === 'completed' || fate.ends === 'failed');
}

/** Whether Buildbot says so of its last build, and not of one that somebody stopped. */
function endedException({ builds, stopped }: TaskEnd): boolean {
  return stopped !== EXCEPTION && builds.at(-1)?.results === EXCEPTION;
}

/**
 * How many builds came to a result of their own: not lost, and not stopped. One for each request: a master that is
 * killed when a build has ended, and its request is not marked complete yet, builds the same request again.
 */
export function ownBuilds(end: TaskEnd): number {
  return Math.min(allOwnBuilds(end), end.requests.length);
}

/** How many of its requests Buildbot itself built once more after their result. */
export function rebuilt(end: TaskEnd): number {
  return allOwnBuilds(end) - ownBuilds(end);
}

function allOwnBuilds({ fate, builds, stopped }: TaskEnd): number {
  // A stock 0.8 says EXCEPTION of a stopped build. What is canceled would succeed by itself: a FAILURE is of a request
  // that was cancelled when its build had been lost, and waited for the next one.
  const isStopped = (results: number | null) =>
    fate.ends === 'canceled' && (results === stopped || results === FAILURE);
  return builds.filter(({ results }) => results !== null && OWN_RESULTS.includes(results) && !isStopped(results))
    .length;
}

function checkMappings({ fate, runs, requests, mappings }: TaskEnd): readonly string[] {
  const found: string[] = [];
  for (const { state, lastError } of mappings.filter((mapping) => mapping.state !== 'closed')) {
    found.push(`its mapping is still ${state}: ${lastError ?? ''}`);
  }
  const newest = newestClosed(mappings);
  if (newest === undefined) {
    return requests.length === 0 && BY_OTHERS.has(fate.ends) ? found : [...found, 'it has no closed mapping'];
  }
  const reason = runs.find(({ runId }) => runId === newest.runId)?.reason;
  if (newest.resolution !== reason) {
    found.push(`the mapping of run ${newest.runId} says ${newest.resolution}, and the run ${reason}`);
  }
  if (newest.runId !== runs.at(-1)?.runId && !BY_OTHERS.has(fate.ends)) {
    found.push(`its newest mapping is of run ${newest.runId}`);
  }
  const ids = requests.map(({ buildRequestId }) => buildRequestId);
  if (newest.buildRequestId === null ? ids.length > 0 : !ids.includes(newest.buildRequestId)) {
    found.push(`its mapping has the build request ${newest.buildRequestId}, of ${ids.join(', ') || 'none'}`);
  }
  return found;
}

/**
 * A look that began before a run was over can come to making a mapping only after its mapping was closed; it finds the
 * run resolved then, makes no build request, and closes what it made.
 */
function newestClosed(mappings: readonly Mapping[]): Mapping | undefined {
  const closed = mappings.filter(({ state }) => state === 'closed');
  const [newest] = closed;
  return closed.find(({ runId, buildRequestId }) => buildRequestId !== null && runId === newest?.runId) ?? newest;
}

function checkArtifacts(end: TaskEnd, run: Ending): readonly string[] {
  const { runId, reason } = run;
  if (!BY_BRIDGE.has(reason)) {
    return [];
  }
  const there = end.artifacts.filter((artifact) => artifact.runId === runId && isUploaded(artifact));
  const missing = ARTIFACTS.filter((name) => !there.some((artifact) => artifact.name === name));
  const found = missing.length > 0 ? [`has no ${missing.join(', ')}`] : [];
  return [...found, ...checkContents(end, run)].map((problem) => `run ${runId} (${reason}) ${problem}`);
}

/** An `error` artifact says why there is nothing. */
function isUploaded(artifact: ArtifactView): boolean {
  return artifact.details.storageType !== 's3' || artifact.content() !== undefined;
}

/** How many artifacts say why there is nothing. */
export function countErrors({ artifacts }: TaskEnd): number {
  return artifacts.filter(({ details }) => details.storageType === 'error').length;
}

/** Of how many builds the event was lost that tells of their own properties. */
export function countUntold(end: TaskEnd): number {
  const untold = z.object({ buildername: z.undefined().optional() });
  return end.runs.filter(
    ({ runId, reason }) => BY_BUILD.has(reason) && untold.safeParse(readJson(end, runId, PROPERTIES)).success,
  ).length;
}

/** What is stored has to be whole, and of this run. */
function checkContents(end: TaskEnd, { runId, reason }: Ending): readonly string[] {
  const found: string[] = [];
  const status = readJson(end, runId, STATUS);
  if (status !== undefined) {
    const told = statusSchema.safeParse(status).data;
    if (told === undefined || told.runId !== runId || told.resolution.reason !== reason) {
      found.push(`has a status of something else: ${JSON.stringify(told ?? status)}`);
    } else if (told.results !== null && !end.builds.some(({ results }) => results === told.results)) {
      found.push(`has a status with results ${told.results}, which no build has`);
    }
  }
  const properties = readJson(end, runId, PROPERTIES);
  if (properties !== undefined && BY_BUILD.has(reason) && !propertiesSchema(end).safeParse(properties).success) {
    found.push(`has properties of something else: ${JSON.stringify(properties)}`);
  }
  const log = contentOf(end, runId, BACKING_LOG);
  if (log?.trim() === '') {
    found.push('has an empty log');
  }
  return found;
}

const statusSchema = z.object({
  runId: z.int(),
  buildRequestId: z.int().nullable(),
  results: z.int().nullable(),
  resolution: z.object({ reason: z.string() }),
});

/** Each with its value and its source. Where the event is lost that tells of a build's own, there are those it was asked with. */
const propertiesSchema = ({ fate: { wish }, taskId }: TaskEnd) =>
  z
    .object({ buildername: z.tuple([z.literal(wish.builder), z.string()]) })
    .or(z.object({ taskId: z.tuple([z.literal(taskId), z.string()]), buildername: z.undefined().optional() }));

function contentOf({ artifacts }: TaskEnd, runId: number, name: string): string | undefined {
  const artifact = artifacts.find((each) => each.runId === runId && each.name === name);
  return artifact?.content()?.toString('utf8');
}

/** Undefined where nothing is stored; a text where that is no JSON. */
function readJson(end: TaskEnd, runId: number, name: string): unknown {
  const content = contentOf(end, runId, name);
  try {
    return content && JSON.parse(content);
  } catch {
    return content;
  }
}

/** The build request that a run's `status.json` names. */
function requestNamed(end: TaskEnd, { runId }: Ending): number | undefined {
  return statusSchema.safeParse(readJson(end, runId, STATUS)).data?.buildRequestId ?? undefined;
}
