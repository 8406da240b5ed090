/** Buildbot's REST API: reads, control calls (JSON-RPC) and raw streams, signed in where the master wants it. */
import http from 'node:http';
import https from 'node:https';
import got, { type Got, HTTPError, RequestError } from 'got';
import { z } from 'zod';
import { LegacyCiError, toError } from '../../errors.ts';
import { createStreams, limited, RefusedStream } from '../../foreign-answer.ts';
import { parsePythonJson, textOf } from '../../json.ts';
import { anyRecord } from '../../lists.ts';
import { excerpt } from '../../log.ts';
import type { InputCounter } from '../../ports.ts';
import { countIfUnreadable, unreadable } from '../unreadable.ts';
import type { Session } from './session.ts';

export interface RestClientOptions {
  /** Of the master's web server, without a slash at its end. */
  readonly url: string;
  readonly session: Session;
  /** For each single call. */
  readonly timeoutMs?: number;
  /** How long nothing may come of a stream; how long it takes in all is up to its reader. */
  readonly idleMs?: number;
  /** How often a read is repeated. */
  readonly retries?: number;
  readonly inputs?: InputCounter | undefined;
}

export interface RestClient {
  /**
   * Reads a collection below `/api/v2/`. Buildbot answers an empty one where there is nothing, so a 404 is a proxy in
   * trouble, or a build that was purged, and never read as "nothing there".
   * @throws LegacyCiError
   */
  get<T>(path: string, answer: z.ZodType<T>): Promise<T>;
  /**
   * A control call. Never repeated, unless it certainly had no effect.
   * @throws LegacyCiError: `legacy-ci-unavailable` if it is not known whether the call took effect
   */
  control(path: string, method: string, params: Record<string, unknown>): Promise<unknown>;
  /** A path below `/api/v2/` as it is. The stream's errors are LegacyCiErrors. */
  stream(path: string): AsyncGenerator<Buffer>;
  close(): void;
}

/**
 * What Buildbot answers, with 500, to a builder that the ForceScheduler does not have. A scheduler that it does not have
 * (`'NoneType' object has no attribute 'force'`) is the operator's to mend, and no reason to give up a task.
 */
const HOPELESS = 'builderNames not specified or not supported';

const MAX_PATH = 150;
/** Of a refusal; no more can be shown. */
const MAX_FIELDS = 20;

const rpcAnswer = z.object({ result: z.unknown() });
const rpcError = z.object({
  error: z.union([z.string(), z.object({ message: z.union([z.string(), anyRecord]) })]),
});

export function createRestClient({
  url,
  session,
  timeoutMs = 15_000,
  idleMs = 60_000,
  retries = 2,
  inputs,
}: RestClientOptions): RestClient {
  const agentOptions = { keepAlive: true, maxSockets: 8, maxFreeSockets: 4, timeout: 60_000 };
  const agent = { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) };
  const base = `${url}/api/v2`;
  const client: Got = got.extend({
    agent,
    timeout: { connect: 5000, request: timeoutMs },
    followRedirect: false,
    headers: { accept: 'application/json' },
    // Reads only; every other call says for itself that it must not be repeated.
    retry: { limit: retries, methods: ['GET'], calculateDelay: ({ computedValue }) => Math.min(computedValue, 2000) },
  });

  const streams = createStreams({ timeoutMs, idleMs });

  /** Runs a call; signs in (again) and repeats it once if the master says 403. */
  async function signedIn<T>(work: (headers: Record<string, string>) => Promise<T>): Promise<T> {
    try {
      return await work(await session.headers());
    } catch (error) {
      await renewAfter(error);
      return work(await session.headers());
    }
  }

  /** Signs in (again) after a 403, and throws any other error. */
  async function renewAfter(error: unknown): Promise<void> {
    if (!isForbidden(error) || !session.canSignIn) {
      throw error;
    }
    await session.renew();
  }

  function parse<T>(path: string, answer: z.ZodType<T>, text: string): T {
    // The ids of a hundred requests would leave no room for what is wrong.
    const shown = excerpt(path, MAX_PATH);
    let value: unknown;
    try {
      value = parsePythonJson(text);
    } catch (error) {
      throw unreadable(inputs, `the answer to ${shown} is not JSON: ${toError(error).message}`);
    }
    const parsed = parsedAs(answer, value);
    if (!parsed.success) {
      throw unreadable(inputs, `the answer to ${shown} is not what Buildbot is known to say: ${parsed.reason}`);
    }
    return parsed.data;
  }

  async function get<T>(path: string, answer: z.ZodType<T>): Promise<T> {
    try {
      // Buildbot calls its JSON text/plain.
      const { body } = await signedIn((headers) => limited(client.get(`${base}/${path}`, { headers })));
      return parse(path, answer, body);
    } catch (error) {
      countIfUnreadable(inputs, error);
      throw toLegacyCiError(`GET ${path}`, error);
    }
  }

  async function control(path: string, method: string, params: Record<string, unknown>): Promise<unknown> {
    try {
      const json = { jsonrpc: '2.0', id: 1, method, params };
      const { body } = await signedIn((headers) =>
        limited(client.post(`${base}/${path}`, { headers, json, retry: { limit: 0 } })),
      );
      return parse(path, rpcAnswer, body).result;
    } catch (error) {
      countIfUnreadable(inputs, error);
      throw toLegacyCiError(`${method} ${path}`, error);
    }
  }

  async function* read(path: string): AsyncGenerator<Buffer> {
    yield* streams.read(`${base}/${path}`, { accept: 'application/json', ...(await session.headers()) });
  }

  async function* stream(path: string): AsyncGenerator<Buffer> {
    try {
      try {
        yield* read(path);
      } catch (error) {
        // A stream is refused before anything of it is given out: nothing is told twice.
        await renewAfter(error);
        yield* read(path);
      }
    } catch (error) {
      countIfUnreadable(inputs, error);
      throw toLegacyCiError(`GET ${path}`, error);
    }
  }

  return {
    get,
    control,
    stream,
    close() {
      agent.http.destroy();
      agent.https.destroy();
      streams.close();
    },
  };
}

/** Some answers may hold themselves again: what is nested too deep is no more readable than what has another shape. */
function parsedAs<T>(
  answer: z.ZodType<T>,
  value: unknown,
): { readonly success: true; readonly data: T } | { readonly success: false; readonly reason: string } {
  try {
    const parsed = answer.safeParse(value);
    return parsed.success ? parsed : { success: false, reason: z.prettifyError(parsed.error) };
  } catch (error) {
    if (error instanceof RangeError) {
      return { success: false, reason: 'it is nested too deep' };
    }
    throw error;
  }
}

function isForbidden(error: unknown): boolean {
  return (
    (error instanceof HTTPError && error.response.statusCode === 403) ||
    (error instanceof RefusedStream && error.statusCode === 403)
  );
}

/** What a failed call means. */
export function toLegacyCiError(what: string, thrown: unknown): LegacyCiError {
  if (thrown instanceof LegacyCiError) {
    return thrown;
  }
  if (thrown instanceof HTTPError) {
    const { statusCode, body } = thrown.response;
    const refusal = refusalOf(body);
    const reason = refusal ?? String(body).slice(0, 200);
    const context = { statusCode };
    if (statusCode === 401 || statusCode === 403) {
      return new LegacyCiError('legacy-ci-forbidden', `Buildbot does not allow ${what}: ${reason}`, { context });
    }
    // Only Buildbot's own refusal is final: 404, 408 and 429 come from what stands in front of it, and so may a 400.
    const isHopeless = refusal !== undefined && (statusCode === 400 || refusal.includes(HOPELESS));
    return isHopeless
      ? new LegacyCiError('legacy-ci-rejected', `Buildbot rejects ${what}: ${reason}`, { context })
      : new LegacyCiError('legacy-ci-unavailable', `${what} failed in Buildbot: ${reason}`, {
          context,
          isTransient: true,
        });
  }
  const cause = toError(thrown);
  const code = thrown instanceof RequestError ? thrown.code : '';
  if (thrown instanceof RefusedStream && (thrown.statusCode === 401 || thrown.statusCode === 403)) {
    const context = { statusCode: thrown.statusCode };
    return new LegacyCiError('legacy-ci-forbidden', `Buildbot does not allow ${what}`, { context });
  }
  return new LegacyCiError('legacy-ci-unavailable', `Buildbot gave no answer to ${what}: ${cause.message}`, {
    isTransient: true,
    context: code ? { code } : {},
  });
}

/** JSON-RPC's error: a text, or each field's own text. Undefined where somebody else answers. */
function refusalOf(body: unknown): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(String(body));
  } catch {
    return undefined;
  }
  const parsed = rpcError.safeParse(value);
  if (!parsed.success) {
    return undefined;
  }
  const message = typeof parsed.data.error === 'string' ? parsed.data.error : parsed.data.error.message;
  return (
    typeof message === 'string'
      ? message
      : Object.entries(message)
          .slice(0, MAX_FIELDS)
          .map(([field, text]) => `${field}: ${textOf(text)}`)
          .join('; ')
  ).slice(0, 800);
}
