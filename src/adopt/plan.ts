/** What becomes of a row of the first bridge, from what the queue says of its task. Pure. */
import { type FirstBridgeRow, firstBridgeExternalId } from '../domain/first-bridge.ts';
import type { AdoptedMapping, Mapping } from '../domain/mapping.ts';
import {
  isRunningOn,
  LONGEST_DEADLINE_MS,
  lastRun,
  priorityRank,
  type TaskRun,
  type TaskStatus,
} from '../domain/task.ts';

/** Who this bridge is to the queue. */
export interface Identity {
  readonly taskQueueId: string;
  readonly workerGroup: string;
  readonly workerId: string;
}

/** What was seen of the task; null where the queue no longer has it. */
export type TaskSeen = TaskStatus | null;

/** Where a mapping takes up the task, or why it does not. */
export type Place =
  | {
      readonly kind: 'adopt';
      readonly runId: number;
      readonly takenUntil: number | null;
      readonly retriesReported: number;
      /** How things stand, for the report. */
      readonly standing: string;
    }
  | { readonly kind: 'skip'; readonly why: string };

/**
 * The first bridge ended a run with this after a RETRY, and asked for a rerun: the next run is the same request's. (It
 * did the same, without the rerun, after an EXCEPTION; there the request is complete and its row was deleted.)
 */
const FIRST_BRIDGE_RETRY = 'malformed-payload';

/**
 * Where to take up a task. Whatever the queue says of it, a request that may be open has to be looked at: one of a task
 * that is gone or resolved is cancelled then.
 */
export function placeOf(row: FirstBridgeRow, task: TaskSeen, identity: Identity): Place {
  if (task === null) {
    const standing = 'the queue no longer has the task';
    return { kind: 'adopt', runId: row.runId, takenUntil: null, retriesReported: row.runId, standing };
  }
  if (task.taskQueueId !== identity.taskQueueId) {
    const why = `its task is for the task queue ${task.taskQueueId}, and this bridge works on ${identity.taskQueueId}: see taskcluster.provisionerId and workerType`;
    return { kind: 'skip', why };
  }
  const last = lastRun(task);
  if (last === undefined) {
    return { kind: 'skip', why: 'its task has no runs yet' };
  }
  if (last.state === 'running' && !isRunningOn(last, identity)) {
    // The table of decisions would cancel the build, and this may well be the first bridge's own claim.
    const why = `run ${last.runId} is claimed by the worker ${last.workerGroup}/${last.workerId}, and this bridge is ${identity.workerGroup}/${identity.workerId}: see taskcluster.workerGroup and workerId`;
    return { kind: 'skip', why };
  }
  const runId = servedRun(row, task, last);
  const isClaimed = last.state === 'running' && runId === last.runId;
  return {
    kind: 'adopt',
    runId,
    takenUntil: isClaimed ? (last.takenUntil ?? row.takenUntil) : null,
    // Each RETRY that the first bridge reported ended a run, so that there were no more of them than earlier runs. Too
    // low a number would have a RETRY reported twice, which costs the task a run; too high a one only leaves one
    // unreported, and the run goes on with the next build.
    retriesReported: runId,
    standing: standingOf(last),
  };
}

/** The run that the row's request serves. */
function servedRun(row: FirstBridgeRow, task: TaskStatus, last: TaskRun): number {
  if (row.buildRequestId === null || row.runId >= last.runId) {
    // Of rows without a request the first bridge changed all run ids at once: they say nothing, and can be too high.
    return last.runId;
  }
  const own = task.runs.find(({ runId }) => runId === row.runId);
  // How any other run ended, the bridge sees by itself, and decides whether the next one gets a request of its own.
  return own?.reasonResolved === FIRST_BRIDGE_RETRY ? last.runId : row.runId;
}

function standingOf({ runId, state, reasonResolved }: TaskRun): string {
  switch (state) {
    case 'pending':
    case 'running':
      return `run ${runId} is ${state}`;
    case 'completed':
    case 'failed':
    case 'exception':
      return `run ${runId} is resolved: ${reasonResolved ?? state}`;
    default:
      return state satisfies never;
  }
}

/**
 * Why a task needs no taking over, if so: it has a mapping, or had one that came to its end.
 * @param mappings the task's own, open and closed
 */
export function whyKnown(mappings: readonly Mapping[], row: FirstBridgeRow, runId: number): string | undefined {
  const open = mappings.find(({ state }) => state !== 'closed');
  if (open !== undefined) {
    const isSame = row.buildRequestId === null || open.buildRequestId === row.buildRequestId;
    return isSame
      ? 'the bridge has it already'
      : `the bridge has its task already, with ${named(open.buildRequestId)}; ${lost(row.buildRequestId)}`;
  }
  const isOver = mappings.some(
    (closed) => closed.runId >= runId || (row.buildRequestId !== null && closed.buildRequestId === row.buildRequestId),
  );
  return isOver ? 'the bridge has seen it to its end already' : undefined;
}

/** The mapping to begin with. @param builder empty where nothing tells it */
export function mappingOf(
  row: FirstBridgeRow,
  task: TaskSeen,
  { runId, takenUntil, retriesReported }: Extract<Place, { kind: 'adopt' }>,
  builder: string,
  now: number,
): AdoptedMapping {
  const { taskId, buildRequestId } = row;
  const isKnown = buildRequestId !== null;
  return {
    taskId,
    runId,
    taskGroupId: task?.taskGroupId ?? taskId,
    builder,
    // Without an id there may be a request all the same: one that the first bridge died before it noted.
    state: isKnown ? 'submitted' : 'intended',
    externalId: firstBridgeExternalId(taskId),
    submissions: isKnown ? 1 : 0,
    buildRequestId,
    collapseKey: null,
    hasSlot: false,
    priority: task === null ? 0 : priorityRank(task.priority),
    deadline: task?.deadline ?? (row.created === null ? now : row.created + LONGEST_DEADLINE_MS),
    takenUntil,
    retriesReported,
  };
}

/** A build request, for people. */
export function named(buildRequestId: number | null): string {
  return buildRequestId === null ? 'no build request' : `build request ${buildRequestId}`;
}

/** What to do about a request that nobody follows. */
export function lost(buildRequestId: number | null): string {
  return `nobody follows ${named(buildRequestId)}: cancel it in Buildbot if it is still open`;
}
