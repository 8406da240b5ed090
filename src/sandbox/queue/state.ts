/** What the emulated queue knows. Times are UTC milliseconds, except in definitions, which are kept as they are read. */
import type { RunState } from '../../domain/task.ts';
import { ApiError } from './errors.ts';
import type { QueueMessage } from './messages.ts';
import type { TaskDefinition } from './task-input.ts';

/** One attempt at a task; its number is its place in `Task.runs`. */
export interface Run {
  state: RunState;
  reasonCreated: string;
  reasonResolved?: string;
  workerGroup?: string;
  workerId?: string;
  takenUntil?: number;
  scheduled: number;
  started?: number;
  resolved?: number;
}

/** A task with all that has happened to it. */
export interface Task {
  readonly taskId: string;
  /** Changes in its priority only. */
  definition: TaskDefinition;
  readonly runs: Run[];
  retriesLeft: number;
  /** Dependencies that no longer block the task. */
  readonly satisfied: Set<string>;
  /** A task group is resolved when each of its tasks has been, at some time. */
  wasEverResolved: boolean;
}

/** Tasks that belong together. */
export interface TaskGroup {
  readonly taskGroupId: string;
  readonly schedulerId: string;
  expires: number;
  readonly taskIds: Set<string>;
  /** Since when it takes no more tasks. */
  sealed?: number;
}

/** A note of the queue's that somebody claimed or reclaimed a run; a run can have many. */
export interface Claim {
  readonly taskId: string;
  readonly runId: number;
  readonly taskQueueId: string;
  readonly workerGroup: string;
  readonly workerId: string;
  readonly claimed: number;
  readonly takenUntil: number;
}

/** A worker that has reclaimed something, or asked for work. */
export interface Worker {
  readonly taskQueueId: string;
  readonly workerGroup: string;
  readonly workerId: string;
  quarantineUntil: number;
  readonly firstClaim: number;
  lastDateActive: number;
  readonly recentTasks: { taskId: string; runId: number }[];
}

/** Everything the queue knows, and what it has yet to say. */
export interface QueueState {
  readonly claimTimeoutMs: number;
  readonly deadlineDelayMs: number;
  /** How long after a task's resolution what follows from it is seen to. */
  readonly resolutionDelayMs: number;
  readonly tasks: Map<string, Task>;
  readonly groups: Map<string, TaskGroup>;
  /** By task: those that depend on it. */
  readonly dependents: Map<string, Set<string>>;
  /**
   * In order. As in the real queue even a refused claim or reclaim leaves an entry, and only a report or a cancel of
   * the run, or the time at which the claim would have run out, removes it: a retried run stays in the list.
   */
  claims: Claim[];
  readonly workers: Map<string, Worker>;
  /** Resolved tasks whose dependents and group are yet to be seen to, the oldest first. */
  readonly resolutions: { readonly taskId: string; readonly at: number }[];
  /** Messages of transitions, in order, that are yet to be published. */
  readonly outbox: QueueMessage[];
}

/** A queue without tasks; durations are milliseconds. */
export function createState(
  limits: Pick<QueueState, 'claimTimeoutMs' | 'deadlineDelayMs' | 'resolutionDelayMs'>,
): QueueState {
  return {
    ...limits,
    tasks: new Map(),
    groups: new Map(),
    dependents: new Map(),
    claims: [],
    workers: new Map(),
    resolutions: [],
    outbox: [],
  };
}

/** Forgets claims that nobody has to watch any more. */
export function removeClaims(state: QueueState, isOver: (claim: Claim) => boolean): void {
  state.claims = state.claims.filter((claim) => !isOver(claim));
}

/** A group as the API and the messages show it. */
export function describeGroup({ taskGroupId, schedulerId, expires, sealed }: TaskGroup) {
  return { taskGroupId, schedulerId, expires: iso(expires), ...(sealed === undefined ? {} : { sealed: iso(sealed) }) };
}

/** The state of the last run, or `unscheduled`. */
export function stateOf(task: Task): RunState | 'unscheduled' {
  return task.runs.at(-1)?.state ?? 'unscheduled';
}

/** Whether the last run is over. */
export function isResolved(task: Task): boolean {
  const state = stateOf(task);
  return state === 'completed' || state === 'failed' || state === 'exception';
}

/** UTC milliseconds. */
export function deadlineOf(task: Task): number {
  return Date.parse(task.definition.deadline);
}

/** @throws ApiError `ResourceNotFound` with the message that the called method gives */
export function findTask(state: QueueState, taskId: string, message: string): Task {
  const task = state.tasks.get(taskId);
  if (!task) {
    throw new ApiError('ResourceNotFound', message);
  }
  return task;
}

/** @throws ApiError `ResourceNotFound` */
export function findRun(task: Task, runId: number): Run {
  const run = task.runs[runId];
  if (!run) {
    throw new ApiError('ResourceNotFound', `Run ${runId} not found on task \`${task.taskId}\`.`);
  }
  return run;
}

function iso(time: number): string {
  return new Date(time).toJSON();
}

function runStatus(run: Run, runId: number) {
  const { state, reasonCreated, reasonResolved, workerGroup, workerId } = run;
  return {
    runId,
    state,
    reasonCreated,
    ...(reasonResolved === undefined ? {} : { reasonResolved }),
    ...(workerGroup === undefined ? {} : { workerGroup, workerId }),
    ...(run.takenUntil === undefined ? {} : { takenUntil: iso(run.takenUntil) }),
    ...(run.scheduled === undefined ? {} : { scheduled: iso(run.scheduled) }),
    ...(run.started === undefined ? {} : { started: iso(run.started) }),
    ...(run.resolved === undefined ? {} : { resolved: iso(run.resolved) }),
  };
}

/** The task status structure, keys in the queue's order. */
export function statusOf(task: Task) {
  const { provisionerId, workerType, taskQueueId, schedulerId, projectId, taskGroupId, priority, deadline, expires } =
    task.definition;
  return {
    taskId: task.taskId,
    provisionerId,
    workerType,
    taskQueueId,
    schedulerId,
    projectId,
    taskGroupId,
    priority,
    deadline,
    expires,
    retriesLeft: task.retriesLeft,
    state: stateOf(task),
    runs: task.runs.map(runStatus),
  };
}
/** What the queue answers and publishes of a task's state. */
export type StatusStructure = ReturnType<typeof statusOf>;
