/** The queue's Pulse messages: exchanges, routing keys and payloads. */
import type { Task, TaskGroup } from './state.ts';
import { statusOf } from './state.ts';

/** A Pulse message as the queue publishes it. */
export interface QueueMessage {
  readonly exchange: string;
  readonly routingKey: string;
  /** Further routing keys: `route.<route>` for each of the task's routes. */
  readonly cc: readonly string[];
  readonly payload: Readonly<Record<string, unknown>>;
}

/** The last part of an exchange's name, for messages about one task. */
export type TaskMessageKind =
  | 'task-defined'
  | 'task-pending'
  | 'task-running'
  | 'artifact-created'
  | 'task-completed'
  | 'task-failed'
  | 'task-exception'
  | 'task-priority-changed';

const EXCHANGE_PREFIX = 'exchange/taskcluster-queue/v1/';

/** What of a run a message tells besides the status. */
export interface RunInfo {
  readonly runId: number;
  readonly workerGroup?: string | undefined;
  readonly workerId?: string | undefined;
}

/** A message about a task as it is now. `extra` is what only this kind of message carries. */
export function taskMessage(
  kind: TaskMessageKind,
  task: Task,
  run?: RunInfo,
  extra: Readonly<Record<string, unknown>> = {},
): QueueMessage {
  const { provisionerId, workerType, schedulerId, taskGroupId, routes, tags } = task.definition;
  const { runId, workerGroup, workerId } = run ?? {};
  const isBare = kind === 'artifact-created' || kind === 'task-priority-changed';
  const key = [task.taskId, runId, workerGroup, workerId, provisionerId, workerType, schedulerId, taskGroupId];
  return {
    exchange: EXCHANGE_PREFIX + kind,
    routingKey: `primary.${key.map((part) => part ?? '_').join('.')}._`,
    cc: routes.map((route) => `route.${route}`),
    payload: {
      status: statusOf(task),
      ...(isBare ? {} : { task: { tags } }),
      ...(runId === undefined ? {} : { runId }),
      ...(workerGroup === undefined ? {} : { workerGroup, workerId }),
      ...extra,
      version: 1,
    },
  };
}

/** A message about a task group. @param what of it is told */
export function groupMessage(
  kind: 'task-group-resolved' | 'task-group-sealed' | 'task-group-priority-changed',
  { taskGroupId, schedulerId }: TaskGroup,
  what: Readonly<Record<string, unknown>>,
): QueueMessage {
  return {
    exchange: EXCHANGE_PREFIX + kind,
    routingKey: `primary.${taskGroupId}.${schedulerId}._`,
    cc: [],
    payload: { ...what, version: 1 },
  };
}

/** How PostgreSQL writes a time in JSON, which `claimTask` passes on: `+00:00`, and no trailing zeros. */
export function postgresTime(time: number): string {
  return `${new Date(time)
    .toJSON()
    .slice(0, -1)
    .replace(/\.?0+$/, '')}+00:00`;
}
