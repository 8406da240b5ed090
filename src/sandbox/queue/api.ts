/** Puts handlers behind the real services' routes, with their checks of URL parameters and scopes. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Caller } from './auth.ts';
import { authorize } from './auth.ts';
import type { Call, Context, Handler, Handlers } from './call.ts';
import { ApiError, errorBody, STATUS_CODES } from './errors.ts';
import type { QueueMessage } from './messages.ts';
import type { ReferenceEntry } from './reference.ts';
import { fastifyRoutes, readReference, SECOND_HALF, wildcardOf } from './reference.ts';
import { templateParams } from './scopes.ts';
import { SLUGID } from './task-input.ts';

const MAX_BODY_BYTES = 10 * 1024 * 1024;

/** What all methods share. */
export interface ApiOptions {
  readonly context: Context;
  now(): number;
  /**
   * Called after each handler, before the answer: publishes what the handler caused, and waits where that fails.
   * @returns the messages that could not be published
   */
  afterCall(): Promise<readonly QueueMessage[]>;
}

/** Messages that the real queue can do without: what they tell is in its database. */
const DISPENSABLE = /\/task-(defined|pending|group-resolved)$/;

/** Seen on a real 106: a call whose message cannot be published has taken effect, and fails all the same. */
function refuseUnpublished(entry: ReferenceEntry, lost: readonly QueueMessage[]): void {
  const isFatal = ({ exchange }: QueueMessage) =>
    !DISPENSABLE.test(exchange) && !(entry.name === 'reportException' && exchange.endsWith('/task-exception'));
  const fatal = lost.find(isFatal);
  if (fatal) {
    throw new ApiError('InternalServerError', `Internal Server Error: ${fatal.exchange} could not be published`);
  }
}

type UrlValues = Readonly<Record<string, string>>;
type ApiRequest = FastifyRequest<{ Params: UrlValues; Querystring: UrlValues }>;

const PARAM_PATTERNS: Readonly<Record<string, RegExp>> = {
  taskId: SLUGID,
  taskGroupId: SLUGID,
  runId: /^[0-9]+$/,
  name: /^[\x20-\x7e]+$/,
  taskQueueId: /^[a-zA-Z0-9-_]{1,38}\/[a-z]([-a-z0-9]{0,36}[a-z0-9])?$/,
};

function checkParams(params: UrlValues): void {
  for (const [key, value] of Object.entries(params)) {
    const pattern = PARAM_PATTERNS[key];
    if (pattern && !pattern.test(value)) {
      throw new ApiError(
        'InvalidRequestArguments',
        `Invalid URL patterns:\nURL parameter '${key}' given as '${value}' must match regular expression: '${pattern}'`,
      );
    }
  }
}

const QUERY_PATTERNS: Readonly<Record<string, RegExp>> = { continuationToken: /./, limit: /^[0-9]+$/ };

/** A signed URL has a `bewit` besides. */
function checkQuery(entry: ReferenceEntry, query: UrlValues): void {
  const errors = Object.entries(query).flatMap(([key, value]) => {
    const pattern = entry.query.includes(key) ? (QUERY_PATTERNS[key] ?? /^/) : undefined;
    if (!pattern) {
      return key === 'bewit' ? [] : [`Query-string parameter: ${key} is not supported!`];
    }
    return pattern.test(value)
      ? []
      : [`Query-string parameter: ${key}="${value}" does not match expression: ${pattern}`];
  });
  if (errors.length > 0) {
    throw new ApiError('InvalidRequestArguments', errors.join('\n'));
  }
}

function namedParams(entry: ReferenceEntry, raw: UrlValues): UrlValues {
  const wildcard = wildcardOf(entry);
  const { '*': rest, [SECOND_HALF]: second, ...params } = raw;
  if (second !== undefined) {
    return { ...params, taskQueueId: `${params.taskQueueId}/${second}` };
  }
  return wildcard !== undefined && rest !== undefined ? { ...params, [wildcard]: rest } : params;
}

const JSON_TYPE = /^application\/json\s*(;|$)/i;

/** What is not called JSON is not read. @throws ApiError `MalformedPayload` */
function parseBody({ body, headers }: ApiRequest): unknown {
  if (!Buffer.isBuffer(body) || body.length === 0 || !JSON_TYPE.test(headers['content-type'] ?? '')) {
    return {};
  }
  let json: unknown;
  try {
    json = JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new ApiError('MalformedPayload', `Failed to parse JSON: ${error instanceof Error ? error.message : error}`);
  }
  if (typeof json !== 'object' || json === null) {
    throw new ApiError('MalformedPayload', 'Failed to parse JSON: Must be an object or array');
  }
  return json;
}

/** @throws ApiError `MalformedPayload` where a body is expected and there is none, or another type's */
function requireJson(entry: ReferenceEntry, { body, headers }: ApiRequest): void {
  const contentType = headers['content-type'] ?? null;
  if (entry.input !== undefined && !(Buffer.isBuffer(body) && JSON_TYPE.test(contentType ?? ''))) {
    throw new ApiError(
      'MalformedPayload',
      `Payload must be JSON with content-type: application/json got content-type: ${contentType}`,
    );
  }
}

/** The URL is enough where it has all parameters that the scopes mention: then nobody else need check them. */
function isAuthorizedByUrl(entry: ReferenceEntry): boolean {
  return entry.scopes !== undefined && templateParams(entry.scopes).every((name) => entry.args.includes(name));
}

async function makeCall(
  options: ApiOptions,
  entry: ReferenceEntry,
  request: ApiRequest,
  reply: FastifyReply,
): Promise<Call> {
  const params = namedParams(entry, request.params);
  checkParams(params);
  checkQuery(entry, request.query);
  const body = parseBody(request);
  const caller: Caller = await options.context.auth.authenticate(request.raw);
  const { scopes: template } = entry;
  const call: Call = {
    params,
    query: request.query,
    body,
    now: options.now(),
    schemaUrl: `${options.context.rootUrl()}/schemas/${entry.service}/${entry.input ?? ''}`,
    scopes: caller.kind === 'known' ? caller.scopes : [],
    reply,
    authorize(values) {
      if (template !== undefined) {
        authorize(caller, template, { ...params, ...values });
      }
    },
  };
  if (isAuthorizedByUrl(entry)) {
    call.authorize({});
  }
  requireJson(entry, request);
  return call;
}

/** As the real one shows it: parsed, or as it came where that fails. */
function shownBody(request: ApiRequest): unknown {
  try {
    return parseBody(request);
  } catch {
    return Buffer.isBuffer(request.body) ? request.body.toString('utf8') : {};
  }
}

function sendError(thrown: unknown, entry: ReferenceEntry, request: ApiRequest, reply: FastifyReply, now: number) {
  const error =
    thrown instanceof ApiError
      ? thrown
      : new ApiError(
          'InternalServerError',
          `Internal Server Error: ${thrown instanceof Error ? thrown.stack : thrown}`,
        );
  const status = STATUS_CODES[error.code];
  if (status === 401) {
    reply.header('www-authenticate', 'hawk');
  }
  const params = namedParams(entry, request.params);
  return reply.code(status).send(errorBody(error, { method: entry.name, params, payload: shownBody(request) }, now));
}

function registerMethod(
  app: FastifyInstance,
  options: ApiOptions,
  entry: ReferenceEntry,
  route: string,
  handler: Handler,
): void {
  app.route<{ Params: UrlValues; Querystring: UrlValues }>({
    method: entry.method.toUpperCase(),
    url: `/api/${entry.service}/v1${route}`,
    bodyLimit: MAX_BODY_BYTES,
    // A body that is too large, above all.
    errorHandler: (error, request, reply) => sendError(error, entry, request, reply, options.now()),
    async handler(request, reply) {
      try {
        const answer = handler(await makeCall(options, entry, request, reply));
        refuseUnpublished(entry, await options.afterCall());
        return answer;
      } catch (error) {
        await options.afterCall();
        return sendError(error, entry, request, reply, options.now());
      }
    },
  });
}

/** Registers those of a service's methods that there is a handler for. Others are 404. */
export function registerService(
  app: FastifyInstance,
  service: 'Queue' | 'Auth',
  handlers: Handlers,
  options: ApiOptions,
): void {
  for (const entry of readReference(service, Object.keys(handlers))) {
    const handler = handlers[entry.name];
    if (handler) {
      for (const route of fastifyRoutes(entry)) {
        registerMethod(app, options, entry, route, handler);
      }
    }
  }
}
