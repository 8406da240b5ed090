/** What workers and task authors can do to a task's runs. */
import { announcePending, followResolution, noteResolution } from './create-task.ts';
import { ApiError } from './errors.ts';
import { postgresTime, taskMessage } from './messages.ts';
import type { QueueState, Run, Task } from './state.ts';
import { deadlineOf, findRun, isResolved, stateOf } from './state.ts';
import { noteClaim, noteWorker, type WorkerName } from './workers.ts';

const MAX_RUNS = 50;

function refusePastDeadline(task: Task, verb: string, isPast: boolean): void {
  if (isPast) {
    throw new ApiError(
      'RequestConflict',
      `Task \`${task.taskId}\` can't be ${verb} past its deadline of ${task.definition.deadline}.`,
    );
  }
}

function listClaim(state: QueueState, task: Task, runId: number, name: WorkerName, now: number): number {
  const takenUntil = now + state.claimTimeoutMs;
  const { workerGroup, workerId } = name;
  const { taskQueueId } = task.definition;
  state.claims.push({ taskId: task.taskId, runId, taskQueueId, workerGroup, workerId, claimed: now, takenUntil });
  return takenUntil;
}

/** @throws ApiError `RequestConflict` past the deadline */
export function refuseLateClaim(task: Task, now: number): void {
  refusePastDeadline(task, 'claimed', deadlineOf(task) <= now);
}

/**
 * Gives a pending run to a worker; the same worker may repeat it, which changes nothing but is published again.
 * @throws ApiError `ResourceNotFound` or `RequestConflict`
 */
export function claimRun(state: QueueState, task: Task, runId: number, name: WorkerName, now: number): Run {
  refuseLateClaim(task, now);
  // As recorded: even the claim of a run that does not exist is listed before it is refused.
  const takenUntil = listClaim(state, task, runId, name, now);
  const run = findRun(task, runId);
  const isOwn = run.state === 'running' && run.workerGroup === name.workerGroup && run.workerId === name.workerId;
  if (runId !== task.runs.length - 1 || (run.state !== 'pending' && !isOwn)) {
    throw new ApiError('RequestConflict', `Run ${runId} was already claimed by another worker.`);
  }
  if (run.state === 'pending') {
    Object.assign(run, { state: 'running', ...name, takenUntil, started: now });
  }
  noteClaim(state, task, runId, name);
  const extra = { takenUntil: postgresTime(run.takenUntil ?? takenUntil) };
  state.outbox.push(taskMessage('task-running', task, { runId, ...name }, extra));
  return run;
}

/** Keeps a claim alive. @throws ApiError `ResourceNotFound` or `RequestConflict` */
export function reclaimRun(state: QueueState, task: Task, runId: number, now: number): Run {
  const run = findRun(task, runId);
  refusePastDeadline(task, 'reclaimed', deadlineOf(task) <= now);
  const { workerGroup = '', workerId = '' } = run;
  if (run.workerGroup === undefined) {
    // Observed: the real queue asserts that a reclaimed run was claimed once, and fails.
    throw new ApiError('InternalServerError', 'Internal Server Error');
  }
  // As recorded: the claim of a cancelled run is listed anew before the reclaim is refused.
  const takenUntil = listClaim(state, task, runId, { workerGroup, workerId }, now);
  noteWorker(state, task.definition.taskQueueId, { workerGroup, workerId }, now);
  if (runId !== task.runs.length - 1 || run.state !== 'running') {
    throw new ApiError('RequestConflict', `Run ${runId} on task \`${task.taskId}\` is resolved or not running.`);
  }
  run.takenUntil = takenUntil;
  return run;
}

/** Resolves a running run; repeating it is fine and published again. @throws ApiError */
export function reportRun(
  state: QueueState,
  task: Task,
  runId: number,
  target: 'completed' | 'failed',
  now: number,
): void {
  const run = findRun(task, runId);
  if (run.state !== 'running' && run.state !== target) {
    throw new ApiError('RequestConflict', `Run ${runId} of task \`${task.taskId}\` is not running or ${target}.`);
  }
  if (runId !== task.runs.length - 1) {
    throw new ApiError('RequestConflict', `Run ${runId} on task \`${task.taskId}\` is resolved or not running.`);
  }
  if (run.state === 'running') {
    Object.assign(run, { state: target, reasonResolved: target, resolved: now });
  }
  const { workerGroup, workerId } = run;
  state.outbox.push(taskMessage(`task-${target}`, task, { runId, workerGroup, workerId }));
  noteResolution(state, task, runId, now);
}

/** Adds a run after one that is to be tried again, if the task has retries left. */
function addRetry(task: Task, reasonCreated: string, now: number): void {
  if (task.retriesLeft > 0 && task.runs.length < MAX_RUNS) {
    task.retriesLeft -= 1;
    task.runs.push({ state: 'pending', reasonCreated, scheduled: now });
  }
}

/** Announces an exception of a run, and its retry. @returns whether it is the end of the task */
function announceException(state: QueueState, task: Task, runId: number): boolean {
  const { workerGroup, workerId } = findRun(task, runId);
  state.outbox.push(taskMessage('task-exception', task, { runId, workerGroup, workerId }));
  const isRetried = runId === task.runs.length - 2 && stateOf(task) === 'pending';
  if (isRetried) {
    announcePending(state, task);
  }
  return !isRetried;
}

const RETRY_REASONS: Readonly<Record<string, string>> = {
  'worker-shutdown': 'retry',
  'intermittent-task': 'task-retry',
  'claim-expired': 'retry',
};

function endWithException(task: Task, runId: number, reasonResolved: string, now: number): void {
  Object.assign(findRun(task, runId), { state: 'exception', reasonResolved, resolved: now });
  const retry = RETRY_REASONS[reasonResolved];
  if (retry !== undefined) {
    addRetry(task, retry, now);
  }
}

/** Resolves a running run as an exception; repeating it is fine and published again. @throws ApiError */
export function reportException(state: QueueState, task: Task, runId: number, reason: string, now: number): void {
  const run = findRun(task, runId);
  if (run.state === 'running' && runId === task.runs.length - 1) {
    endWithException(task, runId, reason, now);
  }
  if (task.runs.length - 1 > runId + 1 || run.state !== 'exception' || run.reasonResolved !== reason) {
    throw new ApiError('RequestConflict', `Run ${runId} on task \`${task.taskId}\` is resolved or not running.`);
  }
  if (announceException(state, task, runId)) {
    // The real queue means this run's claims, and removes those of the first one.
    noteResolution(state, task, 0, now);
  }
}

/** Resolves a running run whose claim has run out. */
export function expireClaim(state: QueueState, task: Task, now: number): void {
  const runId = task.runs.length - 1;
  endWithException(task, runId, 'claim-expired', now);
  if (announceException(state, task, runId)) {
    followResolution(state, task, now);
  }
}

/** Resolves whatever is not resolved yet; an unscheduled task gets its run 0 in that state. */
function endTask(task: Task, reasonResolved: 'canceled' | 'deadline-exceeded', now: number): void {
  const run = task.runs.at(-1);
  if (!run) {
    task.runs.push({
      ...{ state: 'exception', reasonCreated: 'exception', reasonResolved },
      ...{ scheduled: now, resolved: now },
    });
  } else if (!isResolved(task)) {
    Object.assign(run, { state: 'exception', reasonResolved, resolved: now });
  }
}

/** Cancels a task; a resolved one is left as it is, but a cancelled one is announced again. @throws ApiError */
export function cancelTask(state: QueueState, task: Task, now: number): void {
  refusePastDeadline(task, 'canceled', deadlineOf(task) < now);
  endTask(task, 'canceled', now);
  if (task.runs.at(-1)?.reasonResolved === 'canceled') {
    const runId = task.runs.length - 1;
    announceException(state, task, runId);
    noteResolution(state, task, runId, now);
  }
}

/**
 * Resolves a task whose deadline has passed. The message names no worker, unlike that of a cancelled task, and comes
 * after those of what follows from it, as was seen on a real 106.
 */
export function exceedDeadline(state: QueueState, task: Task, now: number): void {
  endTask(task, 'deadline-exceeded', now);
  followResolution(state, task, now);
  state.outbox.push(taskMessage('task-exception', task, { runId: task.runs.length - 1 }));
}

/** Adds a run to a resolved task; a pending or running one is left as it is. @throws ApiError */
export function rerunTask(state: QueueState, task: Task, now: number): void {
  refusePastDeadline(task, 'rescheduled', deadlineOf(task) < now);
  if (stateOf(task) !== 'pending' && stateOf(task) !== 'running') {
    if (task.runs.length >= MAX_RUNS) {
      throw new ApiError('RequestConflict', `Maximum number of runs reached (${MAX_RUNS}).`);
    }
    task.retriesLeft = Math.min(task.definition.retries, MAX_RUNS - task.runs.length - 1);
    task.runs.push({ state: 'pending', reasonCreated: 'rerun', scheduled: now });
  }
  if (stateOf(task) === 'pending') {
    announcePending(state, task);
  }
}
