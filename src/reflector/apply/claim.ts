/** Claims of runs: made, renewed, and kept alive while something long goes on. */
import { lastBuild } from '../../domain/build.ts';
import type { Mapping } from '../../domain/mapping.ts';
import type { TaskRun } from '../../domain/task.ts';
import { QueueError } from '../../errors.ts';
import type { Action } from '../actions.ts';
import { reclaimDue, reclaimTime } from '../claims.ts';
import { announceBuild, type UploadTime } from '../upload.ts';
import { standInsMs, uploadEnd } from '../upload-time.ts';
import {
  type ApplyContext,
  idsOf,
  MappingMoved,
  mappingOf,
  type Next,
  type Pass,
  renew,
  requestOf,
  taskOf,
  update,
} from './pass.ts';

/**
 * Claims the run, and has the mapping serve it from now on.
 * @throws QueueError: `queue-conflict` if it is not there to be claimed any more; MappingMoved, StoreError
 */
export async function claimRun(
  action: Extract<Action, { do: 'claimRun' }>,
  pass: Pass,
  context: ApplyContext,
): Promise<Next> {
  const status = await context.queue.claim(pass.taskId, action.runId);
  pass.knowledge.task = { kind: 'present', value: status };
  await update(pass, context, {
    runId: action.runId,
    ...claimTimes(status.runs.find(({ runId }) => runId === action.runId)?.takenUntil ?? null, context),
    retriesReported: action.retriesReported,
    hasSlot: false,
  });
  return 'next';
}

/** Renews the claim of the run. @throws QueueError, MappingMoved, StoreError */
export async function reclaim(runId: number, pass: Pass, context: ApplyContext): Promise<void> {
  const { takenUntil } = await context.queue.reclaim(pass.taskId, runId);
  const { task } = pass.knowledge;
  if (task?.kind === 'present') {
    const runs = task.value.runs.map((run: TaskRun) => (run.runId === runId ? { ...run, takenUntil } : run));
    pass.knowledge.task = { kind: 'present', value: { ...task.value, runs } };
  }
  await update(pass, context, claimTimes(takenUntil, context));
}

/** What a mapping keeps of a claim that was just made or renewed. */
function claimTimes(
  takenUntil: number | null,
  { clock, reclaimThresholdMs }: ApplyContext,
): Pick<Mapping, 'takenUntil' | 'reclaimAt'> {
  const reclaimAt = takenUntil === null ? null : reclaimTime(takenUntil, reclaimThresholdMs, clock.now());
  return { takenUntil, reclaimAt };
}

/** Only a convenience for people: a failure is noted and nothing depends on it. */
export async function announce(runId: number, pass: Pass, { upload, log }: ApplyContext): Promise<Next> {
  const url = lastBuild(requestOf(pass))?.url;
  if (url !== undefined) {
    try {
      const { taskId } = pass;
      const { builder } = mappingOf(pass);
      await announceBuild(upload, { taskId, runId, builder, expires: taskOf(pass).expires }, url);
    } catch (error) {
      log.warn({ ...idsOf(pass), runId, err: error }, 'live log not linked to the build');
    }
  }
  return 'observe';
}

/**
 * Renews lease and claim while something is uploaded, so that neither is lost to its length.
 * @param work is told when there is no time left for it, and has to heed that
 */
export async function keepingAlive(
  pass: Pass,
  context: ApplyContext,
  work: (time: UploadTime) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const timers = { forArtifacts: new AbortController(), forStandIns: new AbortController() };
  const heart = beat(pass, context, stop.signal, timers);
  // Apart from the beats, which may have to wait for answers.
  const timer = abortInTime(pass, context, stop.signal, timers);
  let moved: MappingMoved | undefined;
  try {
    await work({ forArtifacts: timers.forArtifacts.signal, forStandIns: timers.forStandIns.signal });
  } finally {
    stop.abort();
    await timer;
    // Also after a failure: whatever the mapping's version is now, the release has to know it.
    moved = await heart;
  }
  if (moved) {
    throw moved;
  }
}

type UploadTimers = Readonly<Record<keyof UploadTime, AbortController>>;

/** How often it is looked whether others wait for the upload's place. */
const SHARE_MS = 2000;
/** The database's clock may be set, and timers take no more than some weeks. */
const LONGEST_SLEEP_MS = 60_000;

/** Resolves when stopped, or when there is no time left for an upload, nor for what stands in for it, which is told then. */
async function abortInTime(
  pass: Pass,
  { clock }: ApplyContext,
  stop: AbortSignal,
  { forArtifacts, forStandIns }: UploadTimers,
): Promise<void> {
  const { deadline } = mappingOf(pass);
  const begun = clock.now();
  const left = () => uploadEnd(deadline, begun, pass.uploadShare?.()) - clock.now();
  while (left() > 0 && !stop.aborted) {
    await clock.sleep(Math.min(left(), pass.uploadShare ? SHARE_MS : LONGEST_SLEEP_MS), stop);
  }
  if (!stop.aborted) {
    forArtifacts.abort();
    await clock.sleep(standInsMs(deadline, clock.now(), pass.uploadShare?.()), stop);
  }
  if (!stop.aborted) {
    forStandIns.abort();
  }
}

/** Resolves when stopped, or with what was thrown when the mapping is no longer ours. */
async function beat(
  pass: Pass,
  context: ApplyContext,
  signal: AbortSignal,
  { forArtifacts, forStandIns }: UploadTimers,
): Promise<MappingMoved | undefined> {
  for (let hasFailed = false; ; ) {
    await context.clock.sleep(untilNextBeat(pass, context, hasFailed), signal);
    if (signal.aborted) {
      return undefined;
    }
    try {
      hasFailed = true;
      await renew(pass, context);
      if (!signal.aborted) {
        await checkRun(pass, context);
      }
      if (!signal.aborted && context.clock.now() >= claimDue(pass, context)) {
        await reclaim(mappingOf(pass).runId, pass, context);
      }
      hasFailed = false;
    } catch (error) {
      if (error instanceof MappingMoved) {
        return error;
      }
      if (error instanceof QueueError && error.code === 'queue-conflict') {
        // Its build may be one that nobody wants any more, and is to be stopped.
        forArtifacts.abort(error);
        forStandIns.abort(error);
        return undefined;
      }
      // The work goes on: the lease and the claim outlive a few failed renewals, and the resolution finds out the rest.
      context.log.warn({ ...idsOf(pass), err: error }, 'claim not renewed during an upload');
    }
  }
}

/** People cancel tasks meanwhile. @throws QueueError `queue-conflict` where the run is over */
async function checkRun(pass: Pass, { queue }: ApplyContext): Promise<void> {
  const { runId } = mappingOf(pass);
  const seen = await queue.status(pass.taskId);
  const run = seen.kind === 'present' ? seen.value.runs.find((one) => one.runId === runId) : undefined;
  if (run !== undefined && run.state !== 'running') {
    throw new QueueError('queue-conflict', `run ${runId} is ${run.state} by now`);
  }
}

const LEAST_BEAT_MS = 1000;
const FAILED_BEAT_MS = 10_000;

/** A claim that is shorter than the lease has to be renewed more often; a lease does not outlive many that fail. */
function untilNextBeat(pass: Pass, context: ApplyContext, hasFailed: boolean): number {
  const untilClaimDue = Math.max(LEAST_BEAT_MS, claimDue(pass, context) - context.clock.now());
  return Math.min(context.timing.leaseMs / 3, hasFailed ? FAILED_BEAT_MS : untilClaimDue);
}

/** When the claim is to be renewed; never, where there is none. */
function claimDue(pass: Pass, { reclaimThresholdMs, clock }: ApplyContext): number {
  const mapping = mappingOf(pass);
  return mapping.takenUntil === null
    ? Number.POSITIVE_INFINITY
    : reclaimDue(mapping, mapping.takenUntil, reclaimThresholdMs, clock.now());
}
