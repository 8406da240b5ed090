/** Taskcluster's side: tasks and runs, in the queue's own words. Times are UTC milliseconds. */

/** The states of a run. A task's state is that of its last run, or `unscheduled` while it has none. */
export const RUN_STATES = ['pending', 'running', 'completed', 'failed', 'exception'] as const;
export type RunState = (typeof RUN_STATES)[number];

/** The reasons a worker may give to `reportException`; the queue refuses any other. */
export const EXCEPTION_REASONS = [
  'worker-shutdown',
  'malformed-payload',
  'resource-unavailable',
  'internal-error',
  'intermittent-task',
] as const;
export type ExceptionReason = (typeof EXCEPTION_REASONS)[number];

/** Task priorities, highest first. `normal` is an old synonym of `lowest`. */
export const PRIORITIES = ['highest', 'very-high', 'high', 'medium', 'low', 'very-low', 'lowest'] as const;
export type Priority = (typeof PRIORITIES)[number];

/** One attempt at a task. */
export interface TaskRun {
  readonly runId: number;
  readonly state: RunState;
  /** Why the run exists: `scheduled`, `retry`, `task-retry`, `rerun` or `exception`; more may be added. */
  readonly reasonCreated: string;
  /** When the run became pending. */
  readonly scheduled: number;
  /** Why the run is over; absent while it is not, and sometimes absent afterwards. More reasons may be added. */
  readonly reasonResolved?: string;
  readonly workerGroup?: string;
  readonly workerId?: string;
  /** While running: when the claim ends unless it is renewed. */
  readonly takenUntil?: number;
}

/** What the queue says of a task: its identity, its limits and all its runs in order. */
export interface TaskStatus {
  readonly taskId: string;
  /** `<provisionerId>/<workerType>` */
  readonly taskQueueId: string;
  readonly schedulerId: string;
  readonly taskGroupId: string;
  readonly priority: Priority;
  readonly deadline: number;
  readonly expires: number;
  readonly retriesLeft: number;
  /** In order of `runId`; empty while the task is unscheduled. */
  readonly runs: readonly TaskRun[];
}

/** The part of a task that never changes, but for its priority. `payload` is checked by admission. */
export interface TaskDefinition {
  readonly taskQueueId: string;
  readonly schedulerId: string;
  readonly taskGroupId: string;
  readonly priority: Priority;
  readonly deadline: number;
  readonly expires: number;
  /** As the author wrote them: `assume:` scopes are not expanded. */
  readonly scopes: readonly string[];
  readonly payload: unknown;
}

/** A slugid as the queue takes it: a version 4 UUID in URL-safe base64. One that is not makes a whole batch invalid. */
const TASK_ID = /^[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$/;

/** Whether the queue could have a task of this id. */
export function isTaskId(text: string): boolean {
  return TASK_ID.test(text);
}

/**
 * The queue takes no deadline later than this after a task was made ("the deadline property can be no more than 5 days
 * into the future", says the reference of its `createTask`).
 */
export const LONGEST_DEADLINE_MS = 5 * 24 * 3_600_000;

/** The rank of a priority: 6 for `highest` down to 0 for `lowest`. */
export function priorityRank(priority: Priority): number {
  return PRIORITIES.length - 1 - PRIORITIES.indexOf(priority);
}

/** Whether this worker has the run: it is running, and was claimed by it. */
export function isRunningOn(
  run: TaskRun,
  worker: { readonly workerGroup: string; readonly workerId: string },
): boolean {
  return run.state === 'running' && run.workerGroup === worker.workerGroup && run.workerId === worker.workerId;
}

/** The last run, which gives the task its state; undefined while the task is unscheduled. */
export function lastRun(status: TaskStatus): TaskRun | undefined {
  return status.runs.at(-1);
}
