/** The queue's answers, parsed. Unknown keys are ignored, unknown reasons pass, unknown states do not. */
import { z } from 'zod';
import { PRIORITIES, RUN_STATES, type TaskDefinition, type TaskRun, type TaskStatus } from '../domain/task.ts';
import { QueueError } from '../errors.ts';
import type { InputCounter } from '../ports.ts';

/** Written `...Z` in one place and `...+00:00` in another. */
const time = z.iso.datetime({ offset: true }).transform((text) => Date.parse(text));
const optionalTime = time.optional();
const priority = z
  .enum([...PRIORITIES, 'normal'])
  .transform((name) => (name === 'normal' ? ('lowest' as const) : name));

const run = z
  .object({
    runId: z.int().nonnegative(),
    state: z.enum(RUN_STATES),
    reasonCreated: z.string(),
    scheduled: time,
    reasonResolved: z.string().optional(),
    workerGroup: z.string().optional(),
    workerId: z.string().optional(),
    takenUntil: optionalTime,
  })
  .transform(withoutUndefined<TaskRun>);

const identity = {
  taskQueueId: z.string(),
  schedulerId: z.string(),
  taskGroupId: z.string(),
  priority,
  deadline: time,
  expires: time,
};

const status = z.object({
  ...identity,
  taskId: z.string(),
  retriesLeft: z.int(),
  runs: z.array(run),
});

const definition = z.object({ ...identity, scopes: z.array(z.string()).default([]), payload: z.unknown() });

export const statusAnswer = z.object({ status });
export const statusesAnswer = z.object({
  statuses: z.array(z.object({ taskId: z.string(), status: z.unknown() })),
  continuationToken: z.string().optional(),
});
export const reclaimAnswer = z.object({ takenUntil: time });
export const taskPageAnswer = z.object({
  tasks: z.array(z.object({ taskId: z.string(), workerGroup: z.string().optional(), workerId: z.string().optional() })),
  continuationToken: z.string().optional(),
});
export const putUrlAnswer = z.object({ putUrl: z.url() });
export const scopesAnswer = z.object({ scopes: z.array(z.string()) });

const MAX_MESSAGE = 1000;

/** Reads answers. All of it throws QueueError: `queue-invalid` that names what does not fit, `queue-unavailable` if it is no JSON. */
export interface AnswerReader {
  /** @param what is said in the error, such as `a claim` */
  parse<T>(schema: z.ZodType<T>, answer: unknown, what: string): T;
  status(answer: unknown): TaskStatus;
  definition(answer: unknown): TaskDefinition;
}

/** What cannot be read is counted here, and logged where the error is handled. */
export function createAnswerReader(inputs?: InputCounter): AnswerReader {
  function counted<T>(schema: z.ZodType<T>, answer: unknown, what: string): T {
    try {
      return parse(schema, answer, what);
    } catch (error) {
      inputs?.rejected('queue-answer');
      throw error;
    }
  }
  return {
    parse: counted,
    status: (answer) => counted(status, answer, 'a task status'),
    definition: (answer) => counted(definition, answer, 'a task definition'),
  };
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
    const message = `the queue's answer is not ${what}: ${z.prettifyError(parsed.error)}`;
    throw new QueueError('queue-invalid', message.slice(0, MAX_MESSAGE));
  }
  return parsed.data;
}

/** Keys without a value are left out, as `exactOptionalPropertyTypes` wants it. */
function withoutUndefined<T>(value: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as T;
}
