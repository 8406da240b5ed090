/**
 * A master's web pages: JSON of builds, logs as text, and the forms that stop and cancel. As a real 0.8.12 answered. Its
 * forms redirect whether or not anything was done or allowed, so only the database tells what happened.
 */
import http from 'node:http';
import https from 'node:https';
import got, { type Got, HTTPError, type Response } from 'got';
import type { Logger } from 'pino';
import { z } from 'zod';
import { LegacyCiError, toError } from '../../errors.ts';
import { AnswerTooLong, createStreams, limited, RefusedStream } from '../../foreign-answer.ts';
import { parseJson } from '../../json.ts';
import { anyRecord, listOf } from '../../lists.ts';
import { excerpt } from '../../log.ts';
import type { InputCounter } from '../../ports.ts';
import type { Secret } from '../../secret.ts';
import { countIfUnreadable, unreadable } from '../unreadable.ts';
import { inBatches, unavailable } from './database.ts';
import { isSameStart } from './rows.ts';
import type { BuildRow } from './view.ts';

export interface WebStatusOptions {
  /** Without a slash at its end. */
  readonly url: string;
  readonly username?: string | undefined;
  readonly password?: Secret | undefined;
}

const step = z.object({
  name: z.string(),
  step_number: z.int().optional(),
  text: listOf(z.string()).default([]),
  // The URLs are null where the master was not told its own (`buildbotURL`).
  logs: listOf(z.tuple([z.string(), z.string().nullable()])).default([]),
});
const buildAnswer = z.object({
  number: z.int(),
  results: z.int().nullish(),
  slave: z.string().optional(),
  text: listOf(z.string()).default([]),
  times: listOf(z.number().nullable()).default([]),
  properties: listOf(z.tuple([z.string(), z.unknown(), z.unknown()])).default([]),
  steps: listOf(step).default([]),
});
export type WebBuild = z.infer<typeof buildAnswer>;
const startAnswer = buildAnswer.pick({ number: true, times: true });

export interface WebStatus {
  /** The build's page, for people. */
  pageOf(builder: string, number: number): string;
  /**
   * By number; those that the master no longer has are left out. A 404 is believed as in `cancelRequest`. One page that
   * cannot be read, as it is too large or no JSON, keeps none of the others from being read. @throws LegacyCiError
   */
  builds(builder: string, numbers: readonly number[]): Promise<ReadonlyMap<number, WebBuild | LegacyCiError>>;
  /**
   * When a build started, in Unix seconds; undefined where it has not, or the master has no such build. Nothing else of
   * its page has to be readable. @throws LegacyCiError
   */
  startOf(builder: string, number: number): Promise<number | undefined>;
  /** The URL of a step's log. */
  logOf(builder: string, number: number, step: string, name: string): string;
  /** All builders that the master has. @throws LegacyCiError */
  builders(): Promise<ReadonlySet<string>>;
  /**
   * The text of a log, by the URL that the build gave, or a note in place of one that the master does not have any more.
   * Nothing but the master itself is ever asked. @throws LegacyCiError
   */
  logText(url: string): AsyncGenerator<Buffer>;
  /** @throws LegacyCiError */
  stopBuild(builder: string, number: number, comments: string): Promise<void>;
  /**
   * @returns whether the master has that builder: a 404 that its list of builders does not bear out is one of what stands
   * before it
   * @throws LegacyCiError
   */
  cancelRequest(builder: string, buildRequestId: number): Promise<boolean>;
  /** @throws LegacyCiError `legacy-ci-forbidden` if user and password are wrong */
  signIn(): Promise<void>;
  close(): void;
}

const TIMEOUT_MS = 20_000;
const MAX_LOG_URL = 4000;
/** Builds in one call: each has its place in the URL, and servers take no long ones. */
const MAX_SELECTED = 100;
/** Calls in place of one that could not be read: enough for some bad pages among so many. */
const MAX_SPLIT = 40;
const NOBODY: InputCounter = { received: () => undefined, rejected: () => undefined };
const LOG_PATH = /\/builders\/[^/?#\\]+\/builds\/\d+\/steps\/[^/?#\\]+\/logs\/[^?#\\]+$/;
const BUILD_PATH = /^\/builders\/[^/]+\/builds\/\d+/;
const DOTS = /^(?:\.|%2e){1,2}$/i;
const CONTROL = /\p{Cc}/u;
const COOKIE = /^(BuildBotSession=[^;]+)/;

export interface WebStatusContext {
  /** For each single call. */
  readonly timeoutMs?: number;
  /** How long nothing may come of a log; how long it takes in all is up to its reader. */
  readonly idleMs?: number;
  /** Of a read. */
  readonly retries?: number;
  readonly log?: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
}

export function createWebStatus(
  { url: base, username, password }: WebStatusOptions,
  { timeoutMs = TIMEOUT_MS, idleMs = 60_000, retries = 2, log, inputs }: WebStatusContext = {},
): WebStatus {
  const agentOptions = { keepAlive: true, maxSockets: 6, maxFreeSockets: 2, timeout: 60_000 };
  const agent = { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) };
  const client: Got = got.extend({
    agent,
    timeout: { connect: 5000, request: timeoutMs },
    followRedirect: false,
    retry: { limit: retries, methods: ['GET'], calculateDelay: ({ computedValue }) => Math.min(computedValue, 2000) },
  });

  const streams = createStreams({ timeoutMs, idleMs });

  async function json<T>(path: string, answer: z.ZodType<T>, counted = inputs): Promise<T | undefined> {
    let text: string;
    try {
      text = (await limited(client.get(`${base}${path}`))).body;
    } catch (error) {
      if (error instanceof HTTPError && error.response.statusCode === 404) {
        return undefined;
      }
      if (error instanceof AnswerTooLong) {
        throw unreadable(counted, `the answer to ${path} cannot be read: ${error.message}`);
      }
      throw noAnswer(path, error);
    }
    const parsed = answer.safeParse(parseJson(text));
    if (!parsed.success) {
      const reason = z.prettifyError(parsed.error).slice(0, 500);
      throw unreadable(counted, `the answer to ${path} is not what a web status says: ${reason}`);
    }
    return parsed.data;
  }

  /** What the master says of builds, by number; undefined where it has no such pages. */
  function pages(
    builder: string,
    numbers: readonly number[],
    counted = inputs,
  ): Promise<Record<string, unknown> | undefined> {
    const query = numbers.map((number) => `select=${number}`).join('&');
    return json(`/json/builders/${encodeURIComponent(builder)}/builds?${query}`, anyRecord, counted);
  }

  function pageOf(builder: string, number: number): string {
    return `${base}/builders/${encodeURIComponent(builder)}/builds/${number}`;
  }

  function readPage(builder: string, number: number, given: unknown): WebBuild | undefined {
    const parsed = buildAnswer.safeParse(given);
    if (!parsed.success && !isGone(given)) {
      inputs?.rejected('legacy-ci-answer');
      const reason = excerpt(z.prettifyError(parsed.error));
      log?.warn({ builder, number, reason }, 'page of a build left out: it cannot be read');
    }
    return parsed.success && parsed.data.number === number ? parsed.data : undefined;
  }

  /**
   * @param budget calls that may still be made, and until when: where nothing can be read, as of somebody who answers in
   * the master's place, it is not asked of each by itself
   * @returns by number; the error in place of what cannot be read
   */
  async function readPages(
    builder: string,
    numbers: readonly number[],
    budget = { calls: MAX_SPLIT, end: performance.now() + timeoutMs },
  ): Promise<readonly (readonly [number, WebBuild | LegacyCiError])[]> {
    let answer: Record<string, unknown> | undefined;
    try {
      // What is bad about an answer is counted once, however often it is divided.
      const counted = budget.calls === MAX_SPLIT ? inputs : NOBODY;
      budget.calls -= 1;
      answer = await pages(builder, numbers, counted);
    } catch (error) {
      if (!(error instanceof LegacyCiError && error.code === 'legacy-ci-protocol')) {
        throw error;
      }
      if (numbers.length === 1 || budget.calls <= 0 || performance.now() >= budget.end) {
        return numbers.map((number) => [number, error]);
      }
      const half = Math.ceil(numbers.length / 2);
      const first = await readPages(builder, numbers.slice(0, half), budget);
      return [...first, ...(await readPages(builder, numbers.slice(half), budget))];
    }
    if (answer === undefined) {
      await checkMissing(builder);
    }
    return numbers.flatMap((number) => {
      const page = readPage(builder, number, answer?.[String(number)]);
      return page === undefined ? [] : [[number, page] as const];
    });
  }

  /** What stands before a master answers 404, too, while the master is away: only its own list tells. */
  async function checkMissing(builder: string): Promise<void> {
    const all = await listBuilders();
    // A master that is only starting may have none yet.
    if (all.size === 0 || all.has(builder)) {
      throw unavailable(`"${builder}" was not found, and the master's list of builders does not say that it is gone`);
    }
  }

  async function listBuilders(): Promise<ReadonlySet<string>> {
    const answer = await json('/json/builders', anyRecord);
    if (answer === undefined) {
      throw unavailable('the master has no list of builders');
    }
    return new Set(Object.keys(answer));
  }

  /** Form-encoded; never repeated by itself. @returns false for a 404, the master's or not */
  async function post(path: string, form: Record<string, string>): Promise<boolean> {
    // Each time: a session dies with its master, and a form that is not allowed answers like one that is.
    const cookie = await session();
    try {
      const headers = cookie === undefined ? {} : { cookie };
      const { headers: answered } = await limited(
        client.post(`${base}${path}`, { form, headers, retry: { limit: 0 } }),
      );
      if (/authz?fail/.test(answered.location ?? '')) {
        throw new LegacyCiError('legacy-ci-forbidden', `the master does not allow POST ${path}`, { isTransient: true });
      }
      return true;
    } catch (error) {
      if (error instanceof HTTPError && error.response.statusCode === 404) {
        return false;
      }
      countIfUnreadable(inputs, error);
      throw error instanceof LegacyCiError ? error : noAnswer(`POST ${path}`, error);
    }
  }

  /** A signed-in session's cookie, where there is somebody to sign in. */
  async function session(): Promise<string | undefined> {
    if (username === undefined || password === undefined) {
      return undefined;
    }
    let answer: Response<string>;
    try {
      const form = { username, passwd: password.reveal() };
      answer = await limited(client.post(`${base}/login`, { form, retry: { limit: 0 } }));
    } catch (error) {
      countIfUnreadable(inputs, error);
      // Without the cause: it holds the request's options, and in them the password.
      throw unavailable(`no answer to the sign-in: ${toError(error).message}`);
    }
    const { statusCode, headers } = answer;
    const cookie = (headers['set-cookie'] ?? []).flatMap((line) => COOKIE.exec(line)?.[1] ?? []).at(-1);
    if (/authfail/.test(headers.location ?? '')) {
      const message = `the master at ${base} does not take the user name and password of legacyCi.schedulerDb.webStatus`;
      throw new LegacyCiError('legacy-ci-forbidden', message);
    }
    if (cookie === undefined) {
      // Of a page in the master's place, such as one that says that it is being maintained.
      throw unavailable(`the sign-in was answered with ${statusCode} and without a session, as by no master`);
    }
    return cookie;
  }

  /**
   * A log that is HTML, as the `err.html` of each step that breaks in the master, has no text of its own. Of one without
   * a file any more, or with nothing in it, neither is found; nor is anything while the master is away.
   */
  async function* readLog(path: string): AsyncGenerator<Buffer> {
    const build = `/json${BUILD_PATH.exec(path)?.[0]}`;
    try {
      yield* streams.read(`${base}${path}/text`);
      return;
    } catch (error) {
      throwUnlessMissing(error);
      if ((await json(build, anyRecord)) === undefined) {
        throw error;
      }
    }
    // Once more, as the master is there by now.
    for (const form of ['/text', '']) {
      try {
        yield* streams.read(`${base}${path}${form}`);
        return;
      } catch (error) {
        throwUnlessMissing(error);
      }
    }
    yield Buffer.from('(the master does not have this log any more)\n');
  }

  return {
    pageOf,
    logOf: (builder, number, ...names) =>
      `${pageOf(builder, number)}/steps/${names.map(encodeURIComponent).join('/logs/')}`,
    async builds(builder, numbers) {
      return new Map(await inBatches(numbers, (some) => readPages(builder, some), MAX_SELECTED));
    },
    async startOf(builder, number) {
      const answer = await pages(builder, [number]);
      if (answer === undefined) {
        throw unavailable(`the master has no pages of builds of "${builder}"`);
      }
      const given = answer[String(number)];
      if (isGone(given)) {
        return undefined;
      }
      const parsed = startAnswer.safeParse(given);
      if (!parsed.success) {
        const reason = z.prettifyError(parsed.error).slice(0, 500);
        throw unreadable(inputs, `the page of build ${number} of "${builder}" cannot be read: ${reason}`);
      }
      return parsed.data.times[0] ?? undefined;
    },
    builders: listBuilders,
    async *logText(logUrl) {
      const path = logPath(base, logUrl);
      if (path === undefined) {
        inputs?.rejected('legacy-ci-answer');
        throw new LegacyCiError('legacy-ci-protocol', 'a log is not where a web status has its logs');
      }
      try {
        yield* readLog(path);
      } catch (error) {
        countIfUnreadable(inputs, error);
        throw error instanceof LegacyCiError ? error : noAnswer(path, error);
      }
    },
    async stopBuild(builder, number, comments) {
      if (!(await post(`/builders/${encodeURIComponent(builder)}/builds/${number}/stop`, { comments }))) {
        // The build may also be one of an earlier life of the master: the database will tell.
        throw unavailable(`the build ${number} of "${builder}" that was to be stopped was not found`);
      }
    },
    async cancelRequest(builder, id) {
      const isThere = await post(`/builders/${encodeURIComponent(builder)}/cancelbuild`, { id: String(id) });
      if (!isThere) {
        await checkMissing(builder);
      }
      return isThere;
    },
    async signIn() {
      await session();
    },
    close() {
      agent.http.destroy();
      agent.https.destroy();
      streams.close();
    },
  };
}

/**
 * The path of a step's log below the master's, and of nothing else that the master, or what stands beside it, may have.
 * What parses a URL takes tabs and line breaks out of it, so that dots come together that were apart.
 */
function logPath(base: string, logUrl: string): string | undefined {
  const path = logUrl.length > MAX_LOG_URL ? undefined : LOG_PATH.exec(logUrl)?.[0];
  if (path === undefined || CONTROL.test(path) || path.split('/').some((part) => DOTS.test(part))) {
    return undefined;
  }
  // Whatever else a parser may make of it: what is asked has to be the master's.
  const { pathname } = new URL(`${base}${path}`);
  return pathname.startsWith(new URL(`${base}/builders/`).pathname) ? path : undefined;
}

/**
 * Whether a page is of the build that a row tells of. Numbers count per master, and one that was killed gives those of
 * the builds that it lost again.
 */
export function isPageOf({ times: [startTime] }: WebBuild, row: Pick<BuildRow, 'startTime'>): boolean {
  return startTime != null && isSameStart({ startTime }, row);
}

/**
 * Whether somebody stopped a build, as far as its page tells: 0.8.12 has no code for it and ends the build EXCEPTION, and
 * the text of the step that was at work says `interrupted`.
 */
export function wasInterrupted({ text, steps }: WebBuild): boolean {
  return [text, ...steps.map((one) => one.text)].some((words) => words.includes('interrupted'));
}

/** A build that the master no longer has is null, or says why in place of its number. */
function isGone(given: unknown): boolean {
  return given === null || given === undefined || !z.object({ number: z.number() }).safeParse(given).success;
}

function throwUnlessMissing(error: unknown): void {
  if (!(error instanceof RefusedStream && error.statusCode === 404)) {
    throw error;
  }
}

function noAnswer(path: string, error: unknown): LegacyCiError {
  return unavailable(`the web status gave no answer to ${path}: ${toError(error).message}`);
}
