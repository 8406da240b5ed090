/**
 * The calls of Taskcluster's services. taskcluster-client knows their routes, but takes in whatever is answered, packed
 * answers too; so the requests are made here, signed as it signs them, and no more is taken in than an honest service says.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { types } from 'node:util';
import got, { type Agents, HTTPError, RequestError, type Response } from 'got';
import hawk from 'hawk';
import taskcluster from 'taskcluster-client';
import { z } from 'zod';
import { codeOf, toError } from '../errors.ts';
import { AnswerTooLong, limited } from '../foreign-answer.ts';

export interface ServicesOptions {
  readonly rootUrl: string;
  readonly credentials: { readonly clientId: string; readonly accessToken: string; readonly certificate?: string };
  readonly agent: Agents;
  /** By what time requests are signed, UTC milliseconds: the services refuse what is a quarter of an hour off. */
  readonly signedAt: () => number;
  /** Milliseconds for each single request, with its answer; lists may come more slowly. */
  readonly timeoutMs: number;
  /** How often a call repeats a request that got no answer or a 5xx; those that name no run are never repeated. */
  readonly retries: number;
}

/** What the bridge asks of the queue and of auth. Answers are not checked; `undefined` where one is not JSON. */
export type Services = ReturnType<typeof createServices>;

interface Page {
  readonly continuationToken?: string;
  readonly limit: number;
}

/** A service's refusal. */
export class Refusal extends Error {
  readonly statusCode: number;
  /** The service's own name for it. */
  readonly code: string | undefined;
  constructor(statusCode: number, code: string | undefined, message: string) {
    super(message);
    this.name = 'Refusal';
    this.statusCode = statusCode;
    this.code = code;
  }
}

const FIRST_DELAY_MS = 200;
/** How many times as long as other answers a list's may take: for as much as is taken in of one, at 5 Mbit/s. */
const LIST_TIMES = 4;
const MAX_DELAY_MS = 2000;

const refusal = z.object({ code: z.string().optional().catch(undefined), message: z.string().catch('') });

/** Every call throws a `Refusal` for an answer that is no success, else what kept it from having one. */
export function createServices(options: ServicesOptions) {
  const { rootUrl } = options;
  const queue = new taskcluster.Queue({ rootUrl });
  const auth = new taskcluster.Auth({ rootUrl });
  const get = (url: string) => call(options, 'GET', url);
  const post = (url: string, payload?: object) => call(options, 'POST', url, payload);
  // Names no run: if the first request took effect unheard, its repeat would hit the run that somebody asked for since.
  const postOnce = (url: string) => call({ ...options, retries: 0 }, 'POST', url);
  // Its tasks come with their definitions: a page can be many megabytes.
  const getList = (url: string) => call({ ...options, answerMs: LIST_TIMES * options.timeoutMs }, 'GET', url);

  return {
    task: (taskId: string) => get(queue.buildUrl(queue.task, taskId)),
    status: (taskId: string) => get(queue.buildUrl(queue.status, taskId)),
    statuses: (taskIds: readonly string[], page: Page) => post(queue.buildUrl(queue.statuses, page), { taskIds }),
    claimTask: (taskId: string, runId: number, worker: { readonly workerGroup: string; readonly workerId: string }) =>
      post(queue.buildUrl(queue.claimTask, taskId, runId), worker),
    reclaimTask: (taskId: string, runId: number) => post(queue.buildUrl(queue.reclaimTask, taskId, runId)),
    reportCompleted: (taskId: string, runId: number) => post(queue.buildUrl(queue.reportCompleted, taskId, runId)),
    reportFailed: (taskId: string, runId: number) => post(queue.buildUrl(queue.reportFailed, taskId, runId)),
    reportException: (taskId: string, runId: number, reason: string) =>
      post(queue.buildUrl(queue.reportException, taskId, runId), { reason }),
    cancelTask: (taskId: string) => postOnce(queue.buildUrl(queue.cancelTask, taskId)),
    rerunTask: (taskId: string) => postOnce(queue.buildUrl(queue.rerunTask, taskId)),
    createArtifact: (taskId: string, runId: number, name: string, payload: object) =>
      post(queue.buildUrl(queue.createArtifact, taskId, runId, name), payload),
    listPendingTasks: (taskQueueId: string, page: Page) =>
      getList(queue.buildUrl(queue.listPendingTasks, taskQueueId, page)),
    listClaimedTasks: (taskQueueId: string, page: Page) =>
      getList(queue.buildUrl(queue.listClaimedTasks, taskQueueId, page)),
    expandScopes: (scopes: readonly string[]) => post(auth.buildUrl(auth.expandScopes), { scopes }),
  };
}

interface CallOptions extends ServicesOptions {
  /** How long the whole of an answer may take, where it may take longer than to begin; it is not asked for again then. */
  readonly answerMs?: number;
}

/** Repeats what got no answer or a 5xx, as taskcluster-client does; an answer that does not end would be no shorter. */
async function call(options: CallOptions, method: 'GET' | 'POST', url: string, json?: object): Promise<unknown> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return jsonOf(await request(options, method, url, json));
    } catch (thrown) {
      const error = failureOf(thrown);
      const isSlow = options.answerMs !== undefined && codeOf(error) === 'ETIMEDOUT';
      const isFinal = error instanceof AnswerTooLong || isSlow || (error instanceof Refusal && error.statusCode < 500);
      if (isFinal || attempt >= options.retries) {
        throw error;
      }
      await delay(Math.min(FIRST_DELAY_MS * 2 ** attempt * (0.75 + Math.random() / 2), MAX_DELAY_MS));
    }
  }
}

function request(
  { credentials, agent, signedAt, timeoutMs, answerMs = timeoutMs }: CallOptions,
  method: 'GET' | 'POST',
  url: string,
  json: object | undefined,
): Promise<Response<string>> {
  const { clientId: id, accessToken: key } = credentials;
  const { header } = hawk.client.header(url, method, {
    credentials: { id, key, algorithm: 'sha256' },
    timestamp: Math.floor(signedAt() / 1000),
    ...extOf(credentials.certificate),
  });
  return limited(
    got(url, {
      method,
      headers: { authorization: header },
      ...(json === undefined ? {} : { json }),
      agent,
      timeout: {
        ...{ lookup: timeoutMs, connect: timeoutMs, secureConnect: timeoutMs, send: timeoutMs, response: timeoutMs },
        request: answerMs,
      },
      retry: { limit: 0 },
      // The signature is for this URL alone, and the services redirect none of these calls.
      followRedirect: false,
    }),
  );
}

/** Temporary credentials carry the certificate that makes them good. */
function extOf(certificate: string | undefined): { ext?: string } {
  if (certificate === undefined) {
    return {};
  }
  const parsed: unknown = JSON.parse(certificate);
  return { ext: Buffer.from(JSON.stringify({ certificate: parsed })).toString('base64') };
}

/** @throws Refusal for a redirect, and for what says it is JSON and is not */
function jsonOf({ headers, body, statusCode }: Response<string>): unknown {
  if (statusCode < 200 || statusCode > 299) {
    throw new Refusal(statusCode, undefined, 'Unexpected Redirect');
  }
  if (!isJson(headers) || body.length === 0) {
    return undefined;
  }
  try {
    return JSON.parse(body);
  } catch {
    throw new Refusal(statusCode, undefined, 'the answer is not JSON');
  }
}

function isJson(headers: Response['headers']): boolean {
  return headers['content-type']?.includes('application/json') ?? false;
}

function failureOf(thrown: unknown): Error {
  if (!(thrown instanceof HTTPError)) {
    return thrown instanceof RequestError ? rootOf(thrown) : toError(thrown);
  }
  const { statusCode, body } = thrown.response;
  const { code, message } = refusalOf(body);
  return new Refusal(
    statusCode,
    code,
    message || (statusCode === 401 ? 'Authentication Error' : 'Unknown Server Error'),
  );
}

function refusalOf(body: unknown): { readonly code: string | undefined; readonly message: string } {
  try {
    const parsed = refusal.safeParse(JSON.parse(String(body)));
    return parsed.success ? { code: parsed.data.code, message: parsed.data.message } : { code: undefined, message: '' };
  } catch {
    return { code: undefined, message: '' };
  }
}

/** What the HTTP client's error says, and no more of it: it holds the whole request, with its credentials. */
function rootOf(error: RequestError): Error {
  const inner = types.isNativeError(error.cause) ? error.cause : error;
  // A name with several addresses fails with one error for each, and no message of its own.
  const first: unknown = 'errors' in inner && Array.isArray(inner.errors) ? inner.errors[0] : undefined;
  const root = types.isNativeError(first) ? first : inner;
  return Object.assign(new Error(root.message.slice(0, 500)), { code: error.code });
}
