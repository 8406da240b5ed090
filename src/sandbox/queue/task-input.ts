/** What a task author may hand to `createTask`, with the queue's defaults and limits. */
import { z } from 'zod';
import { PRIORITIES } from '../../domain/task.ts';
import { ApiError } from './errors.ts';
import { dateTime, scope, unique } from './formats.ts';

/** Task ids and task group ids. */
export const SLUGID = /^[A-Za-z0-9_-]{8}[Q-T][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$/;
const slugid = z.string().regex(SLUGID);
const identifier = z.string().regex(/^[a-zA-Z0-9-_]{1,38}$/);
const TASK_QUEUE_ID = /^[a-zA-Z0-9-_]{1,38}\/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$/;
const isUnique = [unique, 'must NOT have duplicate items'] as const;

const inputSchema = z.strictObject({
  provisionerId: identifier.optional(),
  workerType: z
    .string()
    .regex(/^[a-z]([-a-z0-9]{0,36}[a-z0-9])?$/)
    .optional(),
  taskQueueId: z.string().regex(TASK_QUEUE_ID).optional(),
  schedulerId: identifier.default('-'),
  projectId: z
    .string()
    .regex(/^[a-zA-Z0-9._/-]{1,500}$/)
    .default('none'),
  taskGroupId: slugid.optional(),
  dependencies: z
    .array(slugid)
    .max(10_000)
    .refine(...isUnique)
    .default([]),
  requires: z.enum(['all-completed', 'all-resolved']).default('all-completed'),
  routes: z
    .array(z.string().min(1).max(249))
    .max(64)
    .refine(...isUnique)
    .default([]),
  priority: z.enum(PRIORITIES).default('lowest'),
  retries: z.int().min(0).max(49).default(5),
  created: dateTime,
  deadline: dateTime,
  expires: dateTime.optional(),
  scopes: z.array(scope).default([]),
  payload: z.record(z.string(), z.unknown()),
  metadata: z.strictObject({
    name: z.string().max(255),
    description: z.string().max(32_768),
    owner: z.string().max(255),
    source: z
      .string()
      .max(4096)
      .regex(/^(https?:\/\/|ssh:\/\/|git@)/),
  }),
  tags: z.record(z.string(), z.string().max(4096)).default({}),
  extra: z.record(z.string(), z.unknown()).default({}),
});
type Input = z.infer<typeof inputSchema>;

/** A task as the queue keeps and shows it. Times are ISO strings. */
export interface TaskDefinition extends Input {
  readonly provisionerId: string;
  readonly workerType: string;
  readonly taskQueueId: string;
  readonly taskGroupId: string;
  readonly expires: string;
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const path = issue.path.map((part) => `/${String(part)}`).join('');
  if (issue.code === 'invalid_type' && issue.message.endsWith('received undefined')) {
    return `data${path.slice(0, path.lastIndexOf('/'))} must have required property '${String(issue.path.at(-1))}'`;
  }
  return `data${path} ${issue.message}`;
}

/**
 * Reads a request's body.
 * @param schemaUrl the JSON schema that the real queue names
 * @throws ApiError `InputValidationError`
 */
export function parseInput<T>(schema: z.ZodType<T>, body: unknown, schemaUrl: string): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) {
    return parsed.data;
  }
  const lines = parsed.error.issues.map((issue) => `  * ${describeIssue(issue)}`);
  const text = `Schema Validation Failed!\nRejecting Schema: ${schemaUrl}\nErrors:\n${lines.join('\n')}`;
  throw new ApiError('InputValidationError', `${text}\n`);
}

function resolveTaskQueue(input: Input): { provisionerId: string; workerType: string; taskQueueId: string } {
  const { provisionerId, workerType, taskQueueId } = input;
  if (provisionerId !== undefined && workerType !== undefined) {
    const joined = `${provisionerId}/${workerType}`;
    if (taskQueueId !== undefined && taskQueueId !== joined) {
      throw new ApiError('InputError', 'taskQueueId must match "provisionerId/workerType"');
    }
    return { provisionerId, workerType, taskQueueId: joined };
  }
  const [left, right] = taskQueueId?.split('/') ?? [];
  if (taskQueueId === undefined || left === undefined || right === undefined) {
    throw new ApiError('InputError', 'at least a provisionerId and a workerType or a taskQueueId must be provided"');
  }
  return { provisionerId: left, workerType: right, taskQueueId };
}

function oneYearAfter(time: string): string {
  const date = new Date(time);
  date.setFullYear(date.getFullYear() + 1);
  return date.toJSON();
}

/**
 * A task definition with the defaults filled in. Its dates are not yet checked.
 * @throws ApiError `InputValidationError`, or `InputError` where the task queue is not clear
 */
export function readDefinition(taskId: string, body: unknown, schemaUrl: string): TaskDefinition {
  const input = parseInput(inputSchema, body, schemaUrl);
  const iso = (time: string) => new Date(time).toJSON();
  return {
    ...resolveTaskQueue(input),
    schedulerId: input.schedulerId,
    projectId: input.projectId,
    taskGroupId: input.taskGroupId ?? taskId,
    dependencies: input.dependencies,
    requires: input.requires,
    routes: input.routes,
    priority: input.priority,
    retries: input.retries,
    created: iso(input.created),
    deadline: iso(input.deadline),
    expires: iso(input.expires ?? oneYearAfter(input.deadline)),
    scopes: input.scopes,
    payload: input.payload,
    metadata: input.metadata,
    tags: input.tags,
    extra: input.extra,
  };
}

const MINUTE = 60_000;
const DRIFT = 15 * MINUTE;
const LONGEST = 5 * 24 * 60 * MINUTE + DRIFT;

/** @throws ApiError `InputError` for dates that the queue does not take; `now` is UTC milliseconds */
export function checkDefinition(definition: TaskDefinition, now: number): void {
  const created = Date.parse(definition.created);
  const deadline = Date.parse(definition.deadline);
  const rules: readonly (readonly [boolean, string])[] = [
    [created < now - DRIFT, '`created` cannot be in the past (max 15min drift)'],
    [created > now + DRIFT, '`created` cannot be in the future (max 15min drift)'],
    [created > deadline, '`deadline` cannot be later than `created`'],
    [deadline < now, '`deadline` cannot be in the past'],
    [deadline - now > LONGEST, '`deadline` cannot be more than 5 days into the future'],
    [deadline > Date.parse(definition.expires), '`expires` cannot be before `deadline`'],
    [definition.scopes.some((scope) => scope.endsWith('**')), 'scopes must not end with `**`'],
  ];
  const broken = rules.find(([isBroken]) => isBroken);
  if (broken) {
    throw new ApiError('InputError', broken[1]);
  }
}
