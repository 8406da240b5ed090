/** The queue's methods for task authors. */
import { z } from 'zod';
import { PRIORITIES, type Priority } from '../../domain/task.ts';
import type { Call, Context, Handlers } from './call.ts';
import { param } from './call.ts';
import { createTask, scheduleTask } from './create-task.ts';
import { page } from './pages.ts';
import type { Task } from './state.ts';
import { findTask, statusOf } from './state.ts';
import { parseInput, readDefinition } from './task-input.ts';
import { cancelTask, rerunTask } from './transitions.ts';

const manyInput = z.strictObject({ taskIds: z.array(z.string()).default([]) });

/** A scope for this priority, or any higher one, is enough. */
function prioritiesFrom(priority: Priority): readonly string[] {
  return PRIORITIES.slice(0, PRIORITIES.indexOf(priority) + 1);
}

function lookUpOne({ state }: Context): Handlers {
  return {
    task(call) {
      const taskId = param(call, 'taskId');
      const hint = 'Are you sure this task has already been submitted?';
      return findTask(state, taskId, `\`${taskId}\` does not correspond to a task that exists.\n${hint}`).definition;
    },
    status(call) {
      const taskId = param(call, 'taskId');
      const hint = 'Are you sure this task exists?';
      const task = findTask(state, taskId, `\`${taskId}\` does not correspond to a task that exists.\n${hint}`);
      return { status: statusOf(task) };
    },
  };
}

/**
 * Tasks that do not exist are left out, without a word. Seen on a real 106: each of the others is there once, in an order
 * that is the database's own.
 */
function lookUpMany({ state }: Context): Handlers {
  function pageOfTasks(call: Call) {
    const { taskIds } = parseInput(manyInput, call.body, call.schemaUrl);
    call.authorize({ taskIds });
    const wanted = new Set(taskIds);
    const found = wanted.size === 0 ? [] : [...state.tasks.values()].filter(({ taskId }) => wanted.has(taskId));
    return page(call, found);
  }
  return {
    tasks(call) {
      const { items, next } = pageOfTasks(call);
      return { tasks: items.map(({ taskId, definition }) => ({ taskId, task: definition })), ...next };
    },
    statuses(call) {
      const { items, next } = pageOfTasks(call);
      return { statuses: items.map((task) => ({ taskId: task.taskId, status: statusOf(task) })), ...next };
    },
  };
}

function changeTasks({ state }: Context): Handlers {
  function change(call: Call, notFound: (taskId: string) => string, act: (task: Task) => void) {
    const taskId = param(call, 'taskId');
    const task = findTask(state, taskId, notFound(taskId));
    const { schedulerId, taskGroupId, projectId } = task.definition;
    call.authorize({ schedulerId, taskGroupId, projectId });
    act(task);
    return { status: statusOf(task) };
  }
  return {
    createTask(call) {
      const taskId = param(call, 'taskId');
      const definition = readDefinition(taskId, call.body, call.schemaUrl);
      const { scopes, routes, schedulerId, projectId, provisionerId, workerType } = definition;
      const priorities = prioritiesFrom(definition.priority);
      call.authorize({ scopes, routes, schedulerId, projectId, provisionerId, workerType, priorities });
      return { status: statusOf(createTask(state, taskId, definition, call.now)) };
    },
    scheduleTask(call) {
      const notFound = (id: string) => `taskId \`${id}\` not found. Are you sure it exists?`;
      return change(call, notFound, (task) => scheduleTask(state, task, call.now));
    },
    rerunTask(call) {
      const hint = 'Are you sure this task has been submitted before?';
      const notFound = (id: string) => `\`${id}\` does not correspond to a task that exists.\n${hint}`;
      return change(call, notFound, (task) => rerunTask(state, task, call.now));
    },
    cancelTask(call) {
      const notFound = (id: string) => `Task \`${id}\` not found. Are you sure it was created?`;
      return change(call, notFound, (task) => cancelTask(state, task, call.now));
    },
  };
}

/** Handlers by method name. */
export function taskHandlers(context: Context): Handlers {
  return { ...lookUpOne(context), ...lookUpMany(context), ...changeTasks(context) };
}
