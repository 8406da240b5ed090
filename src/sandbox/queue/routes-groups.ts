/** The queue's methods for task groups, and for what tasks are to one another. */
import { z } from 'zod';
import { PRIORITIES } from '../../domain/task.ts';
import type { Call, Context, Handlers } from './call.ts';
import { param } from './call.ts';
import { ApiError } from './errors.ts';
import { cancelGroup, changeGroupPriority, changePriority, sealGroup, tasksOf } from './groups.ts';
import { page } from './pages.ts';
import type { Task, TaskGroup } from './state.ts';
import { describeGroup, findTask, statusOf } from './state.ts';
import { parseInput } from './task-input.ts';

const priorityInput = z.strictObject({ newPriority: z.enum(PRIORITIES) });

const describeTask = (task: Task) => ({ status: statusOf(task), task: task.definition });

function groups({ state }: Context): Handlers {
  function find(call: Call, notFound = (id: string) => `No task-group with taskGroupId: \`${id}\``): TaskGroup {
    const taskGroupId = param(call, 'taskGroupId');
    const group = state.groups.get(taskGroupId);
    if (!group) {
      throw new ApiError('ResourceNotFound', notFound(taskGroupId));
    }
    return group;
  }
  return {
    getTaskGroup: (call) => describeGroup(find(call)),
    listTaskGroup(call) {
      const group = find(call);
      const { items, next } = page(call, tasksOf(state, group));
      return { ...describeGroup(group), tasks: items.map(describeTask), ...next };
    },
    sealTaskGroup(call) {
      const group = find(call);
      call.authorize({ schedulerId: group.schedulerId });
      return sealGroup(state, group, call.now);
    },
    cancelTaskGroup(call) {
      const group = find(call);
      call.authorize({ schedulerId: group.schedulerId });
      return cancelGroup(state, group, call.now);
    },
    changeTaskGroupPriority(call) {
      const { newPriority } = parseInput(priorityInput, call.body, call.schemaUrl);
      const group = find(call, (id) => `Task group \`${id}\` not found.`);
      call.authorize({ schedulerId: group.schedulerId });
      return changeGroupPriority(state, group, newPriority, call.now);
    },
  };
}

function tasks({ state }: Context): Handlers {
  return {
    listDependentTasks(call) {
      const taskId = param(call, 'taskId');
      findTask(state, taskId, `Task with taskId: \`${taskId}\` was not found`);
      const ids = [...(state.dependents.get(taskId) ?? [])].sort();
      const { items, next } = page(
        call,
        ids.flatMap((id) => state.tasks.get(id) ?? []),
      );
      return { taskId, tasks: items.map(describeTask), ...next };
    },
    changeTaskPriority(call) {
      const { newPriority } = parseInput(priorityInput, call.body, call.schemaUrl);
      const taskId = param(call, 'taskId');
      const task = findTask(state, taskId, `Task \`${taskId}\` not found. Are you sure it was created?`);
      call.authorize({ taskQueueId: task.definition.taskQueueId });
      changePriority(state, task, newPriority, call.now);
      return { status: statusOf(task) };
    },
  };
}

/** Handlers by method name. */
export function groupHandlers(context: Context): Handlers {
  return { ...groups(context), ...tasks(context) };
}
