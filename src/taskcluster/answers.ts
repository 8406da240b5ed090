/** The queue's answers, parsed. Unknown keys are ignored, unknown reasons pass, unknown states do not. */
import { z } from 'zod';
import { PRIORITIES, RUN_STATES, type TaskDefinition, type TaskRun, type TaskStatus } from '../domain/task.ts';
import { QueueError } from '../errors.ts';
import { listOf } from '../lists.ts';
import { excerpt } from '../log.ts';
import type { InputCounter } from '../ports.ts';

/** Written `...Z` in one place and `...+00:00` in another. */
const time = z.iso.datetime({ offset: true }).transform((text) => Date.parse(text));
const optionalTime = time.optional();
const priority = z
  .enum([...PRIORITIES, 'normal'])
  .transform((name) => (name === 'normal' ? ('lowest' as const) : name));

/** Of what is wrong with an answer, as much as helps a person. */
const MAX_ISSUES = 5;
const MAX_REASON = 400;
/** What the mapping database holds; the queue's own ids go nowhere near. */
const MAX_RUN_ID = 2 ** 31 - 1;
const MAX_GROUP_ID = 22;
/** Many times what the queue lets a task have. */
const MAX_RUNS = 1000;
/** Twice what is asked for at once: each is read for itself, and so each may be found bad. */
const MAX_STATUSES = 1000;

const run = z
  .object({
    runId: z.int().nonnegative().max(MAX_RUN_ID),
    state: z.enum(RUN_STATES),
    reasonCreated: z.string(),
    scheduled: time,
    reasonResolved: z.string().optional(),
    workerGroup: z.string().optional(),
    workerId: z.string().optional(),
    takenUntil: optionalTime,
  })
  .refine(({ state, takenUntil }) => state !== 'running' || takenUntil !== undefined, {
    path: ['takenUntil'],
    error: 'expected the time until which a running run is claimed',
  })
  .transform(withoutUndefined<TaskRun>);

const identity = {
  taskQueueId: z.string(),
  schedulerId: z.string(),
  taskGroupId: z.string().max(MAX_GROUP_ID),
  priority,
  deadline: time,
  expires: time,
};

const status = z.object({
  ...identity,
  taskId: z.string(),
  retriesLeft: z.int(),
  // The last run gives the task its state.
  runs: listOf(run, MAX_RUNS).refine(
    (runs) => runs.every(({ runId }, at) => at === 0 || runId > (runs[at - 1]?.runId ?? 0)),
    {
      error: 'expected runs in the order of their ids',
    },
  ),
});

const definition = z.object({ ...identity, scopes: listOf(z.string()).default([]), payload: z.unknown() });

const statusAnswer = z.object({ status });
export const statusesAnswer = z.object({
  statuses: listOf(z.object({ taskId: z.string(), status: z.unknown() }), MAX_STATUSES),
  continuationToken: z.string().optional(),
});
export const reclaimAnswer = z.object({ takenUntil: time });
export const taskPageAnswer = z.object({
  tasks: listOf(z.object({ taskId: z.string(), workerGroup: z.string().optional(), workerId: z.string().optional() })),
  continuationToken: z.string().optional(),
});
export const artifactAnswer = z.object({ storageType: z.string() });
export const putUrlAnswer = z.object({ putUrl: z.url() });
export const scopesAnswer = z.object({ scopes: listOf(z.string()) });

/** Reads answers. All of it throws QueueError: `queue-invalid` that names what does not fit, `queue-unavailable` if it is no JSON. */
export interface AnswerReader {
  /** @param what is said in the error, such as `a claim` */
  parse<T>(schema: z.ZodType<T>, answer: unknown, what: string): T;
  /** @param taskId of the task that was asked for */
  status(answer: unknown, taskId: string): TaskStatus;
  /** The same where the status stands in an answer of its own. */
  statusAnswer(answer: unknown, taskId: string): TaskStatus;
  definition(answer: unknown): TaskDefinition;
}

/** What cannot be read is counted here, and logged where the error is handled. */
export function createAnswerReader(inputs?: InputCounter): AnswerReader {
  function counted<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      inputs?.rejected('queue-answer');
      throw error;
    }
  }
  return {
    parse: (schema, answer, what) => counted(() => parse(schema, answer, what)),
    status: (answer, taskId) => counted(() => ofTask(parse(status, answer, 'a task status'), taskId)),
    statusAnswer: (answer, taskId) =>
      counted(() => ofTask(parse(statusAnswer, answer, 'a task status').status, taskId)),
    definition: (answer) => counted(() => parse(definition, answer, 'a task definition')),
  };
}

/** A cache before the queue may mix up its answers: what is said of another task says nothing of this one. */
function ofTask(found: TaskStatus, taskId: string): TaskStatus {
  if (found.taskId !== taskId) {
    throw new QueueError('queue-unavailable', 'the answer is the status of another task', { isTransient: true });
  }
  return found;
}

function parse<T>(schema: z.ZodType<T>, answer: unknown, what: string): T {
  if (answer === undefined) {
    // A page of some proxy's, most likely.
    throw new QueueError('queue-unavailable', `the answer is not JSON, so not ${what} of the queue's`, {
      isTransient: true,
    });
  }
  const parsed = schema.safeParse(answer);
  if (!parsed.success) {
    // Without the parser's error as a cause: it tells of every single thing that is wrong.
    const issues = new z.ZodError(parsed.error.issues.slice(0, MAX_ISSUES));
    const reason = excerpt(z.prettifyError(issues).replace(/\s+/g, ' '), MAX_REASON);
    throw new QueueError('queue-invalid', `the queue's answer is not ${what}: ${reason}`);
  }
  return parsed.data;
}

/** Keys without a value are left out, as `exactOptionalPropertyTypes` wants it. */
function withoutUndefined<T>(value: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as T;
}
