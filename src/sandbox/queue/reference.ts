/** The real services' API references: methods, routes and scope expressions, read from the client library. */
import apis from 'taskcluster-client/src/apis.js';
import { z } from 'zod';

/** A scope expression with `<param>`s and loops still in it. */
export type ScopeTemplate =
  | string
  | { readonly AnyOf: readonly ScopeTemplate[] }
  | { readonly AllOf: readonly ScopeTemplate[] }
  | { readonly for: string; readonly in: string; readonly each: string };

const scopeTemplate: z.ZodType<ScopeTemplate> = z.lazy(() =>
  z.union([
    z.string(),
    z.object({ AnyOf: z.array(scopeTemplate) }),
    z.object({ AllOf: z.array(scopeTemplate) }),
    z.object({ for: z.string(), in: z.string(), each: z.string() }),
  ]),
);

const entrySchema = z.object({
  name: z.string(),
  method: z.enum(['get', 'post', 'put', 'delete']),
  route: z.string(),
  args: z.array(z.string()),
  /** Names of the query's parameters. */
  query: z.array(z.string()).default([]),
  /** The JSON schema of the request's body. */
  input: z.string().optional(),
  scopes: scopeTemplate.optional(),
});
const namedSchema = z.object({ name: z.string() });
const referenceSchema = z.object({ serviceName: z.string(), entries: z.array(z.unknown()) });

/** A method of a service, as its reference describes it. */
export interface ReferenceEntry extends z.infer<typeof entrySchema> {
  /** The service's name in URLs, such as `queue`. */
  readonly service: string;
}

/** Methods that a queue has as of version 106, and the client library's references do not. */
const NEW_METHODS: readonly unknown[] = [
  {
    name: 'changeTaskPriority',
    method: 'post',
    route: '/task/<taskId>/priority',
    args: ['taskId'],
    input: 'v1/change-task-priority-request.json#',
    scopes: { AnyOf: ['queue:change-task-priority:<taskId>', 'queue:change-task-priority-in-queue:<taskQueueId>'] },
  },
  {
    name: 'changeTaskGroupPriority',
    method: 'post',
    route: '/task-group/<taskGroupId>/priority',
    args: ['taskGroupId'],
    input: 'v1/change-task-priority-request.json#',
    scopes: 'queue:change-task-group-priority:<schedulerId>/<taskGroupId>',
  },
];

/** The named methods of a service. Throws for a name that it does not have. */
export function readReference(service: 'Queue' | 'Auth', names: readonly string[]): readonly ReferenceEntry[] {
  const { serviceName, entries } = referenceSchema.parse(apis[service]?.reference);
  return names.map((name) => {
    const entry = [...entries, ...NEW_METHODS].find((candidate) => namedSchema.parse(candidate).name === name);
    return { ...entrySchema.parse(entry), service: serviceName };
  });
}

/** Parameters that may contain slashes where they end a route, as in the real queue. */
const WILDCARDS = /<(name|taskQueueId)>$/;

/** What follows the slash of a task queue's id, where that slash is not escaped. */
export const SECOND_HALF = 'workerTypeOfQueue';

/**
 * The route in fastify's notation; a parameter that may contain slashes becomes `*`. Within a route the id of a task
 * queue, whose slash clients escape, may also come as it is: a second route.
 */
export function fastifyRoutes(entry: ReferenceEntry): readonly string[] {
  const route = entry.route.replace(WILDCARDS, '*').replace(/<(\w+)>/g, ':$1');
  return route.includes(':taskQueueId/')
    ? [route, route.replace(':taskQueueId/', `:taskQueueId/:${SECOND_HALF}/`)]
    : [route];
}

/** The name of the parameter behind a route's `*`, if it has one. */
export function wildcardOf(entry: ReferenceEntry): string | undefined {
  return WILDCARDS.exec(entry.route)?.[1];
}
