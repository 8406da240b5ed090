/**
 * Self-serve (BuildAPI), through which Mozilla's builds are stopped. A 202 means that an agent was told; whether it did
 * anything is in the job's own status, and whether that had an effect only in the database.
 */
import http from 'node:http';
import https from 'node:https';
import got, { type Got, HTTPError } from 'got';
import { z } from 'zod';
import { LegacyCiError, toError } from '../../errors.ts';
import { limited } from '../../foreign-answer.ts';
import { anyRecord } from '../../lists.ts';
import type { Clock, InputCounter } from '../../ports.ts';
import { countIfUnreadable } from '../unreadable.ts';
import { unavailable } from './database.ts';

export interface SelfServe {
  /**
   * Asks for a request to be cancelled, whether it waits or builds.
   * @returns `unknown-branch` where Self-serve will never find it; `not-found` where it does not (yet)
   * @throws LegacyCiError
   */
  cancelRequest(branch: string, buildRequestId: number): Promise<SelfServeAnswer>;
  close(): void;
}
export type SelfServeAnswer =
  | { readonly kind: 'queued'; readonly jobId: number }
  | { readonly kind: 'not-found' }
  | { readonly kind: 'unknown-branch' };

/** Self-serve wants to know who asks; the first bridge gave this name. */
const USER = 'buildbot-bridge';
const TIMEOUT_MS = 20_000;
/** Self-serve itself keeps its list of branches for so long. */
const BRANCHES_MS = 300_000;

const queued = z.object({ request_id: z.int() });

/** The last part of a branch's path, by which Self-serve knows it: `mozilla-inbound` of `integration/mozilla-inbound`. */
export function shortBranch(branch: string): string {
  return branch.split('/').filter(Boolean).at(-1) ?? branch;
}

export interface SelfServeContext {
  /** For each single call. */
  readonly timeoutMs?: number;
  /** Of a read. */
  readonly retries?: number;
  readonly inputs?: InputCounter | undefined;
}

/** @param base its URL, without a slash at its end */
export function createSelfServe(
  base: string,
  clock: Clock,
  { timeoutMs = TIMEOUT_MS, retries = 2, inputs }: SelfServeContext = {},
): SelfServe {
  const agentOptions = { keepAlive: true, maxSockets: 6, maxFreeSockets: 2, timeout: 60_000 };
  const agent = { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) };
  const client: Got = got.extend({
    agent,
    timeout: { connect: 5000, request: timeoutMs },
    // Unless it is asked for JSON, it redirects to pages for people.
    followRedirect: false,
    headers: { accept: 'application/json', 'x-remote-user': USER },
    retry: { limit: retries, methods: ['GET'] },
  });
  let branches: { readonly names: ReadonlySet<string>; readonly at: number } | undefined;

  async function isKnown(branch: string): Promise<boolean> {
    const cached = branches;
    if (cached?.names.has(branch) && clock.uptime() - cached.at < BRANCHES_MS) {
      return true;
    }
    const { body } = await limited(client.get(`${base}/branches`));
    const names = new Set(Object.keys(anyRecord.parse(JSON.parse(body))));
    branches = { names, at: clock.uptime() };
    return names.has(branch);
  }

  return {
    async cancelRequest(branch, buildRequestId) {
      try {
        if (!(await isKnown(branch))) {
          return { kind: 'unknown-branch' };
        }
        const path = `${encodeURIComponent(branch)}/request/${buildRequestId}`;
        const { body } = await limited(client.delete(`${base}/${path}`, { retry: { limit: 0 } }));
        return { kind: 'queued', jobId: queued.parse(JSON.parse(body)).request_id };
      } catch (error) {
        countIfUnreadable(inputs, error);
        return notFoundOr(error);
      }
    },
    close() {
      agent.http.destroy();
      agent.https.destroy();
    },
  };
}

function notFoundOr(error: unknown): SelfServeAnswer {
  const statusCode = error instanceof HTTPError ? error.response.statusCode : 0;
  if (statusCode === 404) {
    return { kind: 'not-found' };
  }
  if (statusCode === 401 || statusCode === 403) {
    throw new LegacyCiError('legacy-ci-forbidden', `Self-serve does not let ${USER} cancel`, {
      context: { statusCode },
    });
  }
  throw unavailable(`Self-serve gave no answer to a cancel: ${toError(error).message.slice(0, 500)}`);
}
