/** The queue itself: the emulator's state and transitions, without HTTP, and a record of who ended which run. */
import type { TaskDefinition as CoreDefinition, TaskStatus } from '../../domain/task.ts';
import { QueueError, type QueueErrorCode } from '../../errors.ts';
import { createArtifactStore } from '../queue/artifacts.ts';
import { createTask } from '../queue/create-task.ts';
import { ApiError, type ErrorCode } from '../queue/errors.ts';
import type { QueueMessage } from '../queue/messages.ts';
import { followResolutions, resolveAllDue } from '../queue/resolvers.ts';
import { createState, deadlineOf, isResolved, type QueueState, stateOf, type Task } from '../queue/state.ts';
import type { TaskDefinition } from '../queue/task-input.ts';
import type { Scheduler } from './scheduler.ts';
import { TASK_QUEUE, WORKER } from './settings.ts';

export type Actor = 'bridge' | 'person' | 'worker' | 'queue';

/** A run that has just been resolved. */
export interface Ending {
  readonly taskId: string;
  readonly runId: number;
  readonly by: Actor;
  /** The call that did it. */
  readonly method: string;
  /** Whether the bridge had claimed it, so that it could have artifacts. */
  readonly wasOurs: boolean;
  readonly reason: string;
}

export interface QueueServer {
  readonly state: QueueState;
  readonly artifacts: ReturnType<typeof createArtifactStore>;
  /** What was put, by `<taskId>/<runId>/<name>`. */
  readonly contents: Map<string, { readonly put: number; readonly content: string }>;
  /** The number of the last content that was sent, whatever became of it. */
  lastPut: number;
  view(taskId: string): TaskStatus | undefined;
  definition(taskId: string): CoreDefinition | undefined;
  create(taskId: string, definition: TaskDefinition): void;
  /** Does something to a task and publishes what follows. @throws QueueError */
  act(taskId: string, by: Actor, method: string, change: (task: Task, now: number) => void): TaskStatus;
  /** The ids of pending tasks, but for those past their deadline. */
  pendingIds(): readonly string[];
  /** As in the real queue, runs that are over may be among them. */
  claimedIds(): readonly string[];
  /** Every task that ever was. */
  taskIds(): readonly string[];
  isOver(taskId: string): boolean;
}

export interface QueueServerOptions {
  readonly scheduler: Scheduler;
  readonly publish: (message: QueueMessage) => void;
  readonly onEnding: (ending: Ending) => void;
}

const CODES: Readonly<Record<ErrorCode, QueueErrorCode>> = {
  MalformedPayload: 'queue-invalid',
  InputError: 'queue-invalid',
  InputValidationError: 'queue-invalid',
  InvalidRequestArguments: 'queue-invalid',
  AuthenticationFailed: 'queue-forbidden',
  InsufficientScopes: 'queue-forbidden',
  ResourceNotFound: 'queue-not-found',
  RequestConflict: 'queue-conflict',
  ResourceExpired: 'queue-not-found',
  InternalServerError: 'queue-unavailable',
};
const MINUTE = 60_000;
/** The queue's own services come round now and then. */
const LATER_MS = 2000;

export function createQueueServer({ scheduler, publish, onEnding }: QueueServerOptions): QueueServer {
  const state = createState({ claimTimeoutMs: 20 * MINUTE, deadlineDelayMs: MINUTE, resolutionDelayMs: LATER_MS });
  const known: string[] = [];

  function watched(by: Actor, method: string, change: () => void): void {
    const before = [...state.tasks.values()].map((task) => ({ task, states: task.runs.map((run) => run.state) }));
    try {
      change();
    } finally {
      for (const { task, states } of before) {
        task.runs.forEach((run, runId) => {
          const was = states[runId];
          const isOver = run.state !== 'pending' && run.state !== 'running';
          if (isOver && (was === undefined || was === 'pending' || was === 'running')) {
            const reason = run.reasonResolved ?? run.state;
            const wasOurs = run.workerId === WORKER.workerId;
            onEnding({ taskId: task.taskId, runId, by, method, wasOurs, reason });
          }
        });
      }
      for (const message of state.outbox.splice(0)) {
        publish(message);
      }
      if (state.dependents.size > 0 && state.resolutions.length > 0) {
        scheduler.after(LATER_MS, followLater);
      }
    }
  }

  function followLater(): void {
    watched('queue', 'dependencies', () => followResolutions(state, scheduler.now()));
  }

  /** Whatever time does to a task, some time after it is due. */
  function lookLater(task: Task): void {
    const now = scheduler.now();
    const takenUntil = task.runs.at(-1)?.takenUntil;
    for (const at of [takenUntil, Date.parse(task.definition.deadline) + MINUTE, Date.parse(task.definition.expires)]) {
      if (at !== undefined && at > now) {
        scheduler.after(at - now + LATER_MS, () =>
          watched('queue', 'time', () => resolveAllDue(state, scheduler.now())),
        );
      }
    }
  }

  return {
    state,
    artifacts: createArtifactStore(),
    contents: new Map(),
    lastPut: 0,
    view(taskId) {
      const task = state.tasks.get(taskId);
      return task && viewOf(task);
    },
    definition(taskId) {
      const definition = state.tasks.get(taskId)?.definition;
      return (
        definition && {
          ...definition,
          deadline: Date.parse(definition.deadline),
          expires: Date.parse(definition.expires),
        }
      );
    },
    create(taskId, definition) {
      known.push(taskId);
      watched('person', 'createTask', () => createTask(state, taskId, definition, scheduler.now()));
      const task = state.tasks.get(taskId);
      if (task) {
        lookLater(task);
      }
    },
    act(taskId, by, method, change) {
      const task = state.tasks.get(taskId);
      if (task === undefined) {
        throw new QueueError('queue-not-found', `${method}: no such task`);
      }
      const before = task.runs.at(-1)?.takenUntil;
      try {
        watched(by, method, () => change(task, scheduler.now()));
      } catch (error) {
        throw toQueueError(method, error);
      }
      if (task.runs.at(-1)?.takenUntil !== before) {
        lookLater(task);
      }
      return viewOf(task);
    },
    pendingIds() {
      const now = scheduler.now();
      return [...state.tasks.values()]
        .filter((task) => task.definition.taskQueueId === TASK_QUEUE && stateOf(task) === 'pending')
        .filter((task) => deadlineOf(task) > now)
        .map(({ taskId }) => taskId);
    },
    claimedIds: () =>
      [...state.claims.values()].filter(({ workerId }) => workerId === WORKER.workerId).map(({ taskId }) => taskId),
    taskIds: () => known,
    isOver(taskId) {
      const task = state.tasks.get(taskId);
      return task === undefined || isResolved(task);
    },
  };
}

function toQueueError(method: string, error: unknown): unknown {
  if (!(error instanceof ApiError)) {
    return error;
  }
  const code = CODES[error.code];
  return new QueueError(code, `${method}: ${error.message}`, { isTransient: code === 'queue-unavailable' });
}

/** The task as the adapter would read it from the queue's answer. */
function viewOf(task: Task): TaskStatus {
  const { definition, taskId, retriesLeft } = task;
  const { taskQueueId, schedulerId, taskGroupId, priority } = definition;
  const times = { deadline: Date.parse(definition.deadline), expires: Date.parse(definition.expires) };
  const runs = task.runs.map((run, runId) => {
    const { started: _started, resolved: _resolved, ...shown } = run;
    return { runId, ...shown };
  });
  return { taskId, taskQueueId, schedulerId, taskGroupId, priority, retriesLeft, ...times, runs };
}
