/** Workers as the queue knows them, and their quarantine. */
import { ApiError } from './errors.ts';
import type { QueueState, Task, Worker } from './state.ts';

const DAY_MS = 86_400_000;
const RECENT_TASKS = 20;

/** Which worker of a task queue. */
export interface WorkerName {
  readonly workerGroup: string;
  readonly workerId: string;
}

const workerKey = (taskQueueId: string, { workerGroup, workerId }: WorkerName) =>
  `${taskQueueId}/${workerGroup}/${workerId}`;

/** A worker that the queue knows. */
function findWorker(state: QueueState, taskQueueId: string, name: WorkerName): Worker | undefined {
  return state.workers.get(workerKey(taskQueueId, name));
}

/** Makes a worker known. Seen on a real 106: `claimWork` and `reclaimTask` do that, `claimTask` does not. */
export function noteWorker(state: QueueState, taskQueueId: string, name: WorkerName, now: number): void {
  const { workerGroup, workerId } = name;
  const worker: Worker = findWorker(state, taskQueueId, name) ?? {
    ...{ taskQueueId, workerGroup, workerId },
    ...{ quarantineUntil: 0, firstClaim: now, lastDateActive: now, recentTasks: [] },
  };
  worker.lastDateActive = now;
  state.workers.set(workerKey(taskQueueId, name), worker);
}

/** Adds to the recent tasks of a worker, if it is known. */
export function noteClaim(state: QueueState, task: Task, runId: number, name: WorkerName): void {
  const worker = findWorker(state, task.definition.taskQueueId, name);
  worker?.recentTasks.push({ taskId: task.taskId, runId });
  worker?.recentTasks.splice(0, worker.recentTasks.length - RECENT_TASKS);
}

/** Whether claims of this worker are refused at present. */
export function isQuarantined(state: QueueState, taskQueueId: string, name: WorkerName, now: number): boolean {
  return (findWorker(state, taskQueueId, name)?.quarantineUntil ?? 0) > now;
}

/** Refuses (or, with a time in the past, accepts again) a worker's claims. @throws ApiError `ResourceNotFound` */
export function quarantineWorker(
  state: QueueState,
  worker: WorkerName & { readonly provisionerId: string; readonly workerType: string; readonly until: number },
  now: number,
) {
  const { provisionerId, workerType, workerGroup, workerId } = worker;
  const found = findWorker(state, `${provisionerId}/${workerType}`, worker);
  if (!found) {
    throw new ApiError(
      'ResourceNotFound',
      `Worker with workerId \`${workerId}\`, workerGroup \`${workerGroup}\`,worker-type \`${workerType}\` ` +
        `and provisionerId \`${provisionerId}\` not found.`,
    );
  }
  found.quarantineUntil = worker.until;
  const iso = (time: number) => new Date(time).toJSON();
  return {
    taskQueueId: found.taskQueueId,
    workerGroup,
    workerId,
    quarantineUntil: iso(found.quarantineUntil),
    expires: iso(now + DAY_MS),
    firstClaim: iso(found.firstClaim),
    recentTasks: found.recentTasks,
    lastDateActive: iso(found.lastDateActive),
    provisionerId,
    workerType,
  };
}
