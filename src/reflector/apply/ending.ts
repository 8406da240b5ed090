/** The end of a run: what is uploaded before it, its resolution, and the end of its mapping. */
import type { Mapping } from '../../domain/mapping.ts';
import type { TaskStatus } from '../../domain/task.ts';
import { lastRun } from '../../domain/task.ts';
import { QueueError } from '../../errors.ts';
import type { Action } from '../actions.ts';
import { refusalLog } from '../observe.ts';
import { resolutionName } from '../outcome.ts';
import { type UploadContext, type UploadTarget, uploadExplanation, uploadOutcome } from '../upload.ts';
import { isLastChance } from '../upload-time.ts';
import { keepingAlive } from './claim.ts';
import {
  type ApplyContext,
  accept,
  idsOf,
  isLeaseOver,
  MappingMoved,
  mappingOf,
  type Next,
  type Pass,
  requestOf,
  taskOf,
  update,
} from './pass.ts';

/**
 * Uploads what the request's builds leave behind, and keeps lease and claim alive meanwhile.
 * @throws what `uploadOutcome` throws; MappingMoved
 */
export async function upload(
  action: Extract<Action, { do: 'uploadOutcome' }>,
  pass: Pass,
  context: ApplyContext,
): Promise<Next> {
  const request = requestOf(pass);
  const target = uploadTarget(action.runId, action.resolution, pass);
  const uploads = underLease(pass, context);
  const isLastTry = lastTry(action, pass, context);
  await keepingAlive(pass, context, (time) => uploadOutcome(uploads, target, request, { isLastTry, time }));
  return 'next';
}

const EXPLANATIONS = {
  'request-gone': (id: number | null) =>
    `Build request ${id} of this task is gone from Buildbot (it was purged, or its database was replaced), so the bridge cannot tell what became of it. Rerun the task to build it again.\n`,
  collapsed: () =>
    `Buildbot collapsed every build request of this task into newer ones of the same builder and branch, without building it. Somebody else asks for the same builds: set collapseRequests = False for this builder in master.cfg, or rerun the task when the builder is quieter.\n`,
} as const;

/**
 * Uploads a log that says why there is no build.
 * @throws QueueError that a later try may overcome; MappingMoved
 */
export async function explain(
  action: Extract<Action, { do: 'uploadExplanation' }>,
  pass: Pass,
  context: ApplyContext,
): Promise<Next> {
  const mapping = mappingOf(pass);
  const isRefusal = action.about === 'refused';
  const text =
    action.about === 'refused'
      ? refusalLog(mapping, pass.knowledge.admission)
      : EXPLANATIONS[action.about](mapping.buildRequestId);
  const reason = isRefusal ? ('malformed-payload' as const) : ('internal-error' as const);
  const target = uploadTarget(action.runId, { state: 'exception', reason }, pass);
  const uploads = underLease(pass, context);
  const isLastTry = lastTry(action, pass, context);
  await keepingAlive(pass, context, (time) => uploadExplanation(uploads, target, text, { isLastTry, time }));
  return 'next';
}

/**
 * Whoever slept past the end of its lease in the middle of an upload puts nothing more: another pass may have uploaded
 * since, what is newer.
 */
function underLease(pass: Pass, context: ApplyContext): UploadContext {
  const { upload } = context;
  return {
    ...upload,
    queue: {
      async putArtifact(taskId, runId, artifact, signal) {
        if (isLeaseOver(pass, context)) {
          throw new MappingMoved(taskId);
        }
        await upload.queue.putArtifact(taskId, runId, artifact, signal);
      },
    },
  };
}

/** The status has the task's expiry as well as its definition, and nothing that can be told waits for that. */
function uploadTarget(runId: number, resolution: UploadTarget['resolution'], pass: Pass): UploadTarget {
  const { taskId } = pass;
  return { taskId, runId, builder: mappingOf(pass).builder, expires: taskOf(pass).expires, resolution };
}

/** An upload that fails in its last minutes has no other try, however early it was begun. */
function lastTry(action: { readonly isLastTry: boolean }, pass: Pass, { clock }: ApplyContext): () => boolean {
  const { deadline } = mappingOf(pass);
  return () => action.isLastTry || isLastChance(deadline, clock.now());
}

/**
 * Resolves the run; the mapping stays open, for a later run or its end.
 * @throws QueueError: `queue-conflict` if the run is not the bridge's running one any more; MappingMoved, StoreError
 */
export async function resolveRun(
  action: Extract<Action, { do: 'resolveRun' }>,
  pass: Pass,
  context: ApplyContext,
): Promise<Next> {
  const status = await context.queue.resolve(pass.taskId, action.runId, action.resolution);
  return resolved(status, resolutionName(action.resolution).reason, pass, context);
}

/**
 * Whether the task's last run is still the one that was decided about. To cancel and to rerun a task names no run, and a
 * person may have asked for another one since the task was read, not least while something was uploaded. A claim that
 * took effect late, too, makes a difference: what there is has to be uploaded first. Who slept after the look has to look
 * again.
 */
async function isStillLast(pass: Pass, context: ApplyContext): Promise<boolean> {
  const before = lastRun(taskOf(pass));
  const seen = await context.queue.status(pass.taskId);
  pass.knowledge.task = seen;
  const run = seen.kind === 'present' ? lastRun(seen.value) : undefined;
  const isSame = run !== undefined && run.runId === before?.runId && run.state === before.state;
  return isSame && !isLeaseOver(pass, context);
}

export async function cancelTask(pass: Pass, context: ApplyContext): Promise<Next> {
  if (!(await isStillLast(pass, context))) {
    return 'undone';
  }
  return resolved(await context.queue.cancelTask(pass.taskId), 'canceled', pass, context);
}

/** What is forbidden or never heard uses nothing up; what is refused for good, such as one run too many, does. */
export async function rerunTask(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  if (!(await isStillLast(pass, context))) {
    return 'undone';
  }
  pass.knowledge.task = undefined;
  try {
    pass.knowledge.task = { kind: 'present', value: await context.queue.rerunTask(pass.taskId) };
  } catch (error) {
    if (!(error instanceof QueueError && error.code === 'queue-conflict')) {
      throw error;
    }
    context.log.warn({ ...idsOf(pass), err: error }, 'rerun refused');
  }
  await update(pass, context, { reruns: mapping.reruns + 1 });
  return 'observe';
}

async function resolved(status: TaskStatus, resolution: string, pass: Pass, context: ApplyContext): Promise<Next> {
  pass.knowledge.task = { kind: 'present', value: status };
  await update(pass, context, { takenUntil: null, reclaimAt: null, resolution });
  return 'observe';
}

/**
 * Closes the mapping and lets its lease go; how it ended is what the queue says of its run, where that is known.
 * @throws MappingMoved, StoreError
 */
export async function closeMapping(mapping: Mapping, pass: Pass, { store, clock }: ApplyContext): Promise<Next> {
  const { task } = pass.knowledge;
  const run = task?.kind === 'present' ? task.value.runs.find(({ runId }) => runId === mapping.runId) : undefined;
  const now = clock.now();
  const stored = await store.release(
    mapping,
    {
      state: 'closed',
      hasSlot: false,
      resolved: now,
      resolution: run?.reasonResolved ?? mapping.resolution ?? run?.state ?? 'gone',
    },
    now,
  );
  accept(pass, stored);
  pass.knowledge.mapping = null;
  pass.knowledge.request = { kind: 'none' };
  pass.knowledge.admission = undefined;
  return 'observe';
}
