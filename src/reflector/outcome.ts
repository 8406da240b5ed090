/** How Buildbot's results become a resolution, and what a run's `status.json` says. Pure. */
import type { RequestView, ResultName } from '../domain/build.ts';
import { RESULT_NAMES } from '../domain/build.ts';
import type { ExceptionReason } from '../domain/task.ts';
import type { Resolution } from '../ports.ts';

/** What a result is resolved as: `completed`, `failed`, or an exception with this reason. */
export type ResultResolution = 'completed' | 'failed' | ExceptionReason;

/** Configurable; SUCCESS is always `completed`, RETRY and CANCELLED are decided by `decide`. */
export interface ResultPolicy {
  readonly warnings: ResultResolution;
  readonly failure: ResultResolution;
  readonly exception: ResultResolution;
  /** A build that ran and skipped everything. */
  readonly skipped: ResultResolution;
}

/** Treeherder's words for Buildbot's results. */
const TREEHERDER = {
  SUCCESS: { result: 'success', colour: 'green' },
  WARNINGS: { result: 'testfailed', colour: 'orange' },
  FAILURE: { result: 'busted', colour: 'red' },
  SKIPPED: { result: 'skipped', colour: 'grey' },
  EXCEPTION: { result: 'exception', colour: 'purple' },
  RETRY: { result: 'retry', colour: 'blue' },
  CANCELLED: { result: 'usercancel', colour: 'pink' },
} as const satisfies Record<ResultName, { result: string; colour: string }>;

function toResolution(resolution: ResultResolution): Resolution {
  if (resolution === 'completed' || resolution === 'failed') {
    return { state: resolution };
  }
  return { state: 'exception', reason: resolution };
}

/**
 * The resolution of a run whose build request is complete with these results.
 * RETRY and CANCELLED as a final result mean that the infrastructure took the build away: `worker-shutdown`, which
 * makes the queue try again. A code that this bridge does not know is an `internal-error`.
 */
export function resolutionOf(results: ResultName | undefined, policy: ResultPolicy): Resolution {
  switch (results) {
    case 'SUCCESS':
      return { state: 'completed' };
    case 'WARNINGS':
      return toResolution(policy.warnings);
    case 'FAILURE':
      return toResolution(policy.failure);
    case 'EXCEPTION':
      return toResolution(policy.exception);
    case 'SKIPPED':
      return toResolution(policy.skipped);
    case 'RETRY':
    case 'CANCELLED':
      return { state: 'exception', reason: 'worker-shutdown' };
    case undefined:
      return { state: 'exception', reason: 'internal-error' };
    default:
      return results satisfies never;
  }
}

/** A resolution, or a cancel in Taskcluster, as `status.json` and the mapping's `resolution` name it. */
export function resolutionName(resolution: Resolution | 'canceled'): { state: string; reason: string } {
  if (resolution === 'canceled') {
    return { state: 'exception', reason: 'canceled' };
  }
  return resolution.state === 'exception'
    ? { state: 'exception', reason: resolution.reason }
    : { state: resolution.state, reason: resolution.state };
}

export interface StatusInput {
  readonly taskId: string;
  readonly runId: number;
  readonly builder: string;
  /** Null when no build request was ever made, as for a task that is refused. */
  readonly request: RequestView | null;
  readonly resolution: Resolution | 'canceled';
  /** What the run is judged by; the request's results unless a single build ended the run (RETRY). */
  readonly results: ResultName | undefined;
}

/** The content of `public/buildbot/status.json`, so that no consumer has to infer a colour from a status. */
export function statusJson(input: StatusInput): Record<string, unknown> {
  const { request, results } = input;
  const time = (ms: number | undefined) =>
    // A row may hold what is no date.
    ms === undefined || Number.isNaN(new Date(ms).getTime()) ? null : new Date(ms).toISOString();
  return {
    version: 1,
    taskId: input.taskId,
    runId: input.runId,
    builder: input.builder,
    buildRequestId: request?.buildRequestId ?? null,
    results: results === undefined ? null : RESULT_NAMES.indexOf(results),
    resultName: results ?? null,
    resolution: resolutionName(input.resolution),
    treeherder: TREEHERDER[results ?? 'EXCEPTION'],
    builds: (request?.builds ?? []).map((build) => ({
      number: build.number,
      results: build.results === undefined ? null : RESULT_NAMES.indexOf(build.results),
      worker: build.worker ?? null,
      startedAt: time(build.startedAt),
      completedAt: time(build.completedAt),
      url: build.url ?? null,
    })),
  };
}

/**
 * The results a run is judged by: those of the complete request, else (a RETRY ends a run while its request stays
 * open) those of the last build that is over.
 */
export function runResults(request: RequestView): ResultName | undefined {
  if (request.state === 'complete') {
    return request.results;
  }
  return request.builds.filter((build) => build.isComplete).at(-1)?.results;
}
