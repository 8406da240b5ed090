/** New tasks, their groups and their dependencies. */
import { isDeepStrictEqual } from 'node:util';
import { ApiError } from './errors.ts';
import { groupMessage, taskMessage } from './messages.ts';
import type { QueueState, Task } from './state.ts';
import { deadlineOf, describeGroup, removeClaims, stateOf } from './state.ts';
import type { TaskDefinition } from './task-input.ts';
import { checkDefinition } from './task-input.ts';

/** A group outlives its tasks by an hour. */
const GROUP_GRACE_MS = 3_600_000;

function ensureGroup(state: QueueState, taskId: string, definition: TaskDefinition): void {
  const { taskGroupId, schedulerId } = definition;
  const group = state.groups.get(taskGroupId) ?? { taskGroupId, schedulerId, expires: 0, taskIds: new Set() };
  if (group.schedulerId !== schedulerId) {
    throw new ApiError(
      'RequestConflict',
      `Task group \`${taskGroupId}\` contains tasks with a schedulerId other\n` +
        `than \`${schedulerId}\`. All tasks in the same task-group must have\nthe same schedulerId.`,
    );
  }
  group.expires = Math.max(group.expires, Date.parse(definition.expires) + GROUP_GRACE_MS);
  group.taskIds.add(taskId);
  state.groups.set(taskGroupId, group);
}

function isSatisfiedBy(definition: TaskDefinition, dependency: Task): boolean {
  const state = stateOf(dependency);
  const isUnsuccessful = state === 'failed' || state === 'exception';
  return state === 'completed' || (definition.requires === 'all-resolved' && isUnsuccessful);
}

const bullets = (taskIds: readonly string[], end: string) => taskIds.map((id) => ` * ${id}${end}`).join('\n');

function checkDependencies(state: QueueState, taskId: string, definition: TaskDefinition): void {
  const others = definition.dependencies.filter((id) => id !== taskId);
  const missing = others.filter((id) => !state.tasks.has(id));
  const deadline = Date.parse(definition.deadline);
  const expiring = others.filter((id) => {
    const expires = state.tasks.get(id)?.definition.expires;
    return missing.length === 0 && expires !== undefined && Date.parse(expires) < deadline;
  });
  const texts: string[] = [];
  if (missing.length > 0) {
    texts.push(
      `\`task.dependencies\` references non-existing tasks: \n${bullets(missing, '')}\n` +
        'All taskIds in `task.dependencies` **must** exist\nbefore the task is created.\n',
    );
  }
  if (expiring.length > 0) {
    texts.push(
      '`task.dependencies` references tasks that expires\nbefore `task.deadline` this is not allowed, see tasks: \n' +
        `${bullets(expiring, ',')}\nAll taskIds in \`task.dependencies\` **must** have\n` +
        '`task.expires` greater than the `deadline` for this task.\n',
    );
  }
  if (texts.length > 0) {
    throw new ApiError('InputError', texts.join(''));
  }
}

function addDependencies(state: QueueState, task: Task): void {
  for (const id of task.definition.dependencies) {
    const dependents = state.dependents.get(id) ?? new Set();
    state.dependents.set(id, dependents.add(task.taskId));
    const dependency = state.tasks.get(id);
    if (dependency && isSatisfiedBy(task.definition, dependency)) {
      task.satisfied.add(id);
    }
  }
}

function isBlocked(task: Task): boolean {
  return task.definition.dependencies.some((id) => !task.satisfied.has(id));
}

/** Gives an unscheduled task its first run; others are left as they are. */
function addFirstRun(task: Task, now: number): void {
  if (task.runs.length === 0) {
    task.runs.push({ state: 'pending', reasonCreated: 'scheduled', scheduled: now });
  }
}

/** Announces the last run, which is pending. */
export function announcePending(state: QueueState, task: Task): void {
  state.outbox.push(taskMessage('task-pending', task, { runId: task.runs.length - 1 }));
}

/**
 * Adds a task; the same definition again is fine, and published again.
 * @throws ApiError `InputError`, or `RequestConflict` where the id is another task's
 */
export function createTask(state: QueueState, taskId: string, definition: TaskDefinition, now: number): Task {
  checkDefinition(definition, now);
  const known = state.tasks.get(taskId);
  if (known && !isDeepStrictEqual(known.definition, definition)) {
    throw new ApiError(
      'RequestConflict',
      `taskId \`${taskId}\` already used by another task.\nThis could be the result of faulty idempotency!`,
    );
  }
  checkDependencies(state, taskId, definition);
  ensureGroup(state, taskId, definition);
  const fresh = { taskId, definition, runs: [], retriesLeft: definition.retries, satisfied: new Set<string>() };
  const task: Task = known ?? { ...fresh, wasEverResolved: false };
  state.tasks.set(taskId, task);
  addDependencies(state, task);
  // The real queue announces every task as unscheduled first, and a repeated one again.
  state.outbox.push(taskMessage('task-defined', { ...task, runs: [] }));
  if (!isBlocked(task)) {
    addFirstRun(task, now);
  }
  if (stateOf(task) === 'pending' && task.runs.length === 1) {
    announcePending(state, task);
  }
  if (state.groups.get(definition.taskGroupId)?.sealed !== undefined) {
    // As the real queue has it: the call is refused, and the task is made all the same.
    throw new ApiError(
      'RequestConflict',
      `Task group \`${definition.taskGroupId}\` is sealed and does not accept new tasks.`,
    );
  }
  return task;
}

/** Makes an unscheduled task pending, whatever it depends on. @throws ApiError past the deadline */
export function scheduleTask(state: QueueState, task: Task, now: number): void {
  if (deadlineOf(task) < now) {
    throw new ApiError(
      'RequestConflict',
      `Task \`${task.taskId}\` can't be scheduled past its deadline at ${task.definition.deadline}.`,
    );
  }
  if (task.runs.length === 0) {
    addFirstRun(task, now);
    announcePending(state, task);
  }
}

/**
 * Has what follows from a task's resolution seen to, a little later; the calls that resolve tasks do not wait for it.
 * @param runId the run whose claims nobody has to watch any more
 */
export function noteResolution(state: QueueState, task: Task, runId: number, now: number): void {
  removeClaims(state, (claim) => claim.taskId === task.taskId && claim.runId === runId);
  state.resolutions.push({ taskId: task.taskId, at: now + state.resolutionDelayMs });
}

/** What follows from a task's resolution: tasks that waited for it are released, its group may be resolved. */
export function followResolution(state: QueueState, task: Task, now: number): void {
  task.wasEverResolved = true;
  for (const id of state.dependents.get(task.taskId) ?? []) {
    const dependent = state.tasks.get(id);
    if (!dependent || !isSatisfiedBy(dependent.definition, task)) {
      continue;
    }
    dependent.satisfied.add(task.taskId);
    if (!isBlocked(dependent) && deadlineOf(dependent) >= now) {
      scheduleTask(state, dependent, now);
    }
  }
  const group = state.groups.get(task.definition.taskGroupId);
  if (group && [...group.taskIds].every((id) => state.tasks.get(id)?.wasEverResolved ?? true)) {
    state.outbox.push(groupMessage('task-group-resolved', group, describeGroup(group)));
  }
}
