/** What can be done about many tasks at once, and about their priority. */
import type { Priority } from '../../domain/task.ts';
import { ApiError } from './errors.ts';
import { groupMessage, taskMessage } from './messages.ts';
import type { QueueState, Task, TaskGroup } from './state.ts';
import { deadlineOf, describeGroup, isResolved } from './state.ts';
import { cancelTask } from './transitions.ts';

/** The tasks that a group has at present. */
export function tasksOf(state: QueueState, group: TaskGroup): readonly Task[] {
  return [...group.taskIds].flatMap((taskId) => state.tasks.get(taskId) ?? []);
}

/** Takes no more tasks into a group; sealed once, it stays as it is, but is announced again. */
export function sealGroup(state: QueueState, group: TaskGroup, now: number) {
  group.sealed ??= now;
  const shown = describeGroup(group);
  state.outbox.push(groupMessage('task-group-sealed', group, shown));
  return shown;
}

/** Cancels what is not resolved and not past its deadline. @throws ApiError `RequestConflict` for an open group */
export function cancelGroup(state: QueueState, group: TaskGroup, now: number) {
  const { taskGroupId } = group;
  if (group.sealed === undefined) {
    throw new ApiError('RequestConflict', `Cannot cancel unsealed task group: \`${taskGroupId}\``);
  }
  const all = tasksOf(state, group);
  const open = all.filter((task) => !isResolved(task) && deadlineOf(task) > now);
  for (const task of open) {
    cancelTask(state, task, now);
  }
  const taskIds = open.map(({ taskId }) => taskId);
  return { taskGroupId, taskGroupSize: all.length, cancelledCount: taskIds.length, taskIds };
}

/** A task that was resolved once, and rerun since, keeps its priority. @returns the old one; undefined: as it was */
function setPriority(task: Task, priority: Priority, now: number): Priority | undefined {
  const { priority: before } = task.definition;
  if (task.wasEverResolved || deadlineOf(task) <= now || before === priority) {
    return undefined;
  }
  task.definition = { ...task.definition, priority };
  return before;
}

/** @throws ApiError `RequestConflict` past the deadline, and for a task that was resolved or has this priority already */
export function changePriority(state: QueueState, task: Task, newPriority: Priority, now: number): void {
  const { taskId, definition } = task;
  if (deadlineOf(task) <= now) {
    throw new ApiError(
      'RequestConflict',
      `Task \`${taskId}\` can't be reprioritized past its deadline of ${definition.deadline}.`,
    );
  }
  const oldPriority = setPriority(task, newPriority, now);
  if (oldPriority === undefined) {
    throw new ApiError('RequestConflict', `Task \`${taskId}\` is already resolved and cannot be reprioritized.`);
  }
  state.outbox.push(taskMessage('task-priority-changed', task, undefined, { oldPriority, newPriority }));
}

/** Changes the priority of those tasks of a group that were never resolved. */
export function changeGroupPriority(state: QueueState, group: TaskGroup, newPriority: Priority, now: number) {
  const changed = tasksOf(state, group).filter((task) => setPriority(task, newPriority, now) !== undefined);
  const { taskGroupId, schedulerId } = group;
  const event = { taskGroupId, schedulerId, newPriority, tasksAffected: changed.length };
  state.outbox.push(groupMessage('task-group-priority-changed', group, event));
  return { ...event, taskIds: changed.map(({ taskId }) => taskId) };
}
