/** The queue's methods for workers, and its lists of pending and claimed tasks. */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { EXCEPTION_REASONS, priorityRank } from '../../domain/task.ts';
import type { Call, Context, Handlers } from './call.ts';
import { param, runIdOf } from './call.ts';
import { ApiError } from './errors.ts';
import { dateTime } from './formats.ts';
import { postgresTime } from './messages.ts';
import { pageByTime } from './pages.ts';
import type { Claim, QueueState, Task } from './state.ts';
import { deadlineOf, findRun, findTask, stateOf, statusOf } from './state.ts';
import { parseInput } from './task-input.ts';
import { claimRun, reclaimRun, refuseLateClaim, reportException, reportRun } from './transitions.ts';
import { isQuarantined, noteWorker, quarantineWorker, type WorkerName } from './workers.ts';

const name = z.string().regex(/^[a-zA-Z0-9-_]{1,38}$/);
const claimInput = z.strictObject({ workerGroup: name, workerId: name });
const claimWorkInput = z.strictObject({ workerGroup: name, workerId: name, tasks: z.int().min(1).max(32).default(1) });
const exceptionInput = z.strictObject({ reason: z.enum(EXCEPTION_REASONS) });
const quarantineInput = z.strictObject({
  quarantineUntil: dateTime,
  quarantineInfo: z.string().optional(),
});

function findCalled(state: QueueState, call: Call, hint = 'Are you sure it was created?'): Task {
  const taskId = param(call, 'taskId');
  return findTask(state, taskId, `Task \`${taskId}\` not found. ${hint}`);
}

/** A quarantined worker's claim is answered `{}`, which the real queue's own schema then refuses. */
function refuseQuarantined(call: Call): never {
  const schema = call.schemaUrl.replace('-request', '-response');
  const missing = ['status', 'runId', 'workerGroup', 'workerId', 'takenUntil', 'task', 'credentials'];
  throw new ApiError(
    'InternalServerError',
    `Internal Server Error, incidentId ${randomUUID()}. Error (not shown in production):\n\`\`\`\n` +
      'Error: Output schema validation error: \nSchema Validation Failed!\n' +
      `Rejecting Schema: ${schema}\nErrors:\n` +
      `${missing.map((key) => `  * data must have required property '${key}'`).join('\n')}\n\`\`\``,
  );
}

/** Pending tasks of a task queue, the oldest run first. */
function pendingTasks(state: QueueState, taskQueueId: string): readonly Task[] {
  return [...state.tasks.values()]
    .filter((task) => task.definition.taskQueueId === taskQueueId && stateOf(task) === 'pending')
    .sort((a, b) => scheduledOf(a) - scheduledOf(b));
}

function scheduledOf(task: Task): number {
  return task.runs.at(-1)?.scheduled ?? 0;
}

/** The last claim of each task of a task queue, in order. */
function latestClaims({ claims }: QueueState, taskQueueId: string): readonly Claim[] {
  const latest = new Map(claims.map((claim) => [claim.taskId, claim]));
  return claims.filter((claim) => claim.taskQueueId === taskQueueId && latest.get(claim.taskId) === claim);
}

function claiming({ state, auth }: Context): Handlers {
  function claim(task: Task, runId: number, worker: WorkerName, now: number) {
    const { takenUntil = now } = claimRun(state, task, runId, worker, now);
    const credentials = auth.taskCredentials({ taskId: task.taskId, runId, ...worker, takenUntil });
    const shown = { ...worker, takenUntil: postgresTime(takenUntil) };
    return { status: statusOf(task), runId, ...shown, task: task.definition, credentials };
  }
  return {
    claimTask(call) {
      const worker = parseInput(claimInput, call.body, call.schemaUrl);
      const task = findCalled(state, call);
      const { provisionerId, workerType, taskQueueId } = task.definition;
      call.authorize({ ...worker, provisionerId, workerType });
      refuseLateClaim(task, call.now);
      if (isQuarantined(state, taskQueueId, worker, call.now)) {
        return refuseQuarantined(call);
      }
      return claim(task, runIdOf(call), worker, call.now);
    },
    claimWork(call) {
      const { tasks: count, ...worker } = parseInput(claimWorkInput, call.body, call.schemaUrl);
      const taskQueueId = param(call, 'taskQueueId');
      call.authorize({ ...worker, taskQueueId });
      noteWorker(state, taskQueueId, worker, call.now);
      // The real queue keeps the call open for up to 20 s when there is nothing; this one answers at once.
      const claimable = isQuarantined(state, taskQueueId, worker, call.now) ? [] : pendingTasks(state, taskQueueId);
      const chosen = claimable
        .filter((task) => deadlineOf(task) > call.now)
        .sort((a, b) => priorityRank(b.definition.priority) - priorityRank(a.definition.priority))
        .slice(0, count);
      return { tasks: chosen.map((task) => claim(task, task.runs.length - 1, worker, call.now)) };
    },
    reclaimTask(call) {
      const task = findCalled(state, call);
      const runId = runIdOf(call);
      const { workerGroup = '', workerId = '', takenUntil = 0 } = reclaimRun(state, task, runId, call.now);
      const claimed = { runId, workerGroup, workerId };
      const credentials = auth.taskCredentials({ taskId: task.taskId, ...claimed, takenUntil });
      return { status: statusOf(task), ...claimed, takenUntil: new Date(takenUntil).toJSON(), credentials };
    },
  };
}

function reporting({ state }: Context): Handlers {
  function report(call: Call, target: 'completed' | 'failed') {
    const task = findCalled(state, call);
    reportRun(state, task, runIdOf(call), target, call.now);
    return { status: statusOf(task) };
  }
  return {
    reportCompleted: (call) => report(call, 'completed'),
    reportFailed: (call) => report(call, 'failed'),
    reportException(call) {
      const { reason } = parseInput(exceptionInput, call.body, call.schemaUrl);
      const task = findCalled(state, call, 'Are you sure it exists?');
      reportException(state, task, runIdOf(call), reason, call.now);
      return { status: statusOf(task) };
    },
  };
}

function lists({ state }: Context): Handlers {
  return {
    pendingTasks(call) {
      const taskQueueId = param(call, 'taskQueueId');
      const [provisionerId, workerType] = taskQueueId.split('/');
      return { provisionerId, workerType, taskQueueId, pendingTasks: pendingTasks(state, taskQueueId).length };
    },
    taskQueueCounts(call) {
      const taskQueueId = param(call, 'taskQueueId');
      const [provisionerId, workerType] = taskQueueId.split('/');
      const claims = state.claims.filter((claim) => claim.taskQueueId === taskQueueId && claim.takenUntil > call.now);
      const claimedTasks = new Set(claims.map(({ taskId, runId }) => `${taskId}/${runId}`)).size;
      const counts = { pendingTasks: pendingTasks(state, taskQueueId).length, claimedTasks };
      return { provisionerId, workerType, taskQueueId, ...counts };
    },
    listPendingTasks(call) {
      // Observed: a task past its deadline is off the list at once, before it is resolved.
      const listed = pendingTasks(state, param(call, 'taskQueueId')).filter((task) => deadlineOf(task) > call.now);
      const { items, next } = pageByTime(call, listed, scheduledOf);
      const tasks = items.map((task) => {
        const runId = task.runs.length - 1;
        const inserted = new Date(findRun(task, runId).scheduled).toJSON();
        return { taskId: task.taskId, runId, task: task.definition, inserted };
      });
      return { tasks, ...next };
    },
    listClaimedTasks(call) {
      const taskQueueId = param(call, 'taskQueueId');
      const { items, next } = pageByTime(call, latestClaims(state, taskQueueId), ({ claimed }) => claimed);
      const tasks = items.map(({ taskId, runId, workerGroup, workerId, claimed }) => {
        const task = state.tasks.get(taskId)?.definition;
        return { taskId, runId, workerGroup, workerId, claimed: new Date(claimed).toJSON(), task };
      });
      return { tasks, ...next };
    },
    quarantineWorker(call) {
      const { quarantineUntil } = parseInput(quarantineInput, call.body, call.schemaUrl);
      const names = { provisionerId: param(call, 'provisionerId'), workerType: param(call, 'workerType') };
      const worker = { workerGroup: param(call, 'workerGroup'), workerId: param(call, 'workerId') };
      return quarantineWorker(state, { ...names, ...worker, until: Date.parse(quarantineUntil) }, call.now);
    },
  };
}

/** Handlers by method name. */
export function workerHandlers(context: Context): Handlers {
  return { ...claiming(context), ...reporting(context), ...lists(context) };
}
