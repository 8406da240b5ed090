/** What the parts of the table decide by, and the actions that several of them come to. */
import type { RequestView } from '../../domain/build.ts';
import { retryCount } from '../../domain/build.ts';
import type { Mapping } from '../../domain/mapping.ts';
import type { TaskRun } from '../../domain/task.ts';
import type { Resolution } from '../../ports.ts';
import type { Action } from '../actions.ts';
import { reclaimDue } from '../claims.ts';
import type { Observation, Policy } from '../decide.ts';
import { resolutionName, resolutionOf } from '../outcome.ts';
import { isLastChance, nextChance } from '../upload-time.ts';

/** What is known of a mapping whose task can be read; times in UTC milliseconds. */
export interface Facts {
  readonly mapping: Mapping;
  readonly request: Observation['request'];
  readonly policy: Policy;
  readonly now: number;
  /** Until when the mapped run is claimed by this bridge; null: it is not. */
  readonly takenUntil: number | null;
}

/** The queue retries these by itself; after them the build request that is under way belongs to the next run. */
export const RETRY_REASONS = new Set(['worker-shutdown', 'intermittent-task', 'claim-expired']);

export function unreadable(facts: Facts, because: string): readonly Action[] {
  return [...reclaimIfNear(facts), lookAgain(nextLook(facts), because)];
}

/** Reclaims when the claim is near its end. */
export function reclaimIfNear({ mapping, policy, now, takenUntil }: Facts): readonly Action[] {
  if (takenUntil === null || now >= mapping.deadline) {
    return [];
  }
  if (now < reclaimDue(mapping, takenUntil, policy.reclaimThresholdMs, now)) {
    return [];
  }
  return [{ do: 'reclaimRun', runId: mapping.runId, because: 'its claim is near its end' }];
}

/** When to look again if nothing happens: after the usual interval, or when a reclaim is due, or the last chance. */
export function nextLook({ mapping, policy, now, takenUntil }: Facts): number {
  const usual = now + policy.recheckMs;
  return takenUntil === null || now >= mapping.deadline
    ? usual
    : Math.min(
        usual,
        nextChance(mapping.deadline, now),
        Math.max(now, reclaimDue(mapping, takenUntil, policy.reclaimThresholdMs, now)),
      );
}

/** The request, if it is open, is to be cancelled; then the mapping is history. */
export function abandon(facts: Facts, because: string, isLoud = false): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  if (mapping.state === 'intended' && request.kind === 'absent' && now < mapping.nextCheckAt) {
    return [lookAgain(mapping.nextCheckAt, `${because}, and the answer to a submission may still take effect`)];
  }
  if (mapping.state === 'intended' && request.kind === 'present') {
    return [{ do: 'adopt', buildRequestId: request.value.buildRequestId, because }];
  }
  if (request.kind !== 'present' || request.value.state === 'complete') {
    return [{ do: 'closeMapping', because }];
  }
  if (mapping.state === 'cancelling' && now < mapping.nextCheckAt) {
    return [lookAgain(Math.min(mapping.nextCheckAt, now + policy.recheckMs), 'a cancel takes a moment')];
  }
  return [{ do: 'cancelRequest', isLoud, because }];
}

/** Another request for the same run, while there may be one. */
export function resubmit({ mapping, policy }: Facts, request: RequestView): readonly Action[] | undefined {
  if (mapping.submissions >= policy.maxSubmissions) {
    return undefined;
  }
  const because = isLostToShutdown(request)
    ? 'its build was cancelled by a stopping master'
    : 'a newer request collapsed its build request';
  return [{ do: 'resubmit', because: `${because}; it was submitted ${mapping.submissions} times` }];
}

/** Whether a `worker-shutdown` that was reported was one of the request's RETRY builds, and not its final result. */
export function wasRetry({ mapping, policy }: Facts, request: RequestView): boolean {
  const isFinal =
    request.state === 'complete' &&
    request.results !== 'CANCELLED' &&
    RETRY_REASONS.has(resolutionName(resolutionOf(request.results, policy.results)).reason);
  return !isFinal && retryCount(request) > mapping.retriesReported;
}

/** Complete, but nobody meant it: the master went down. A final RETRY is the same: the build was taken away. */
export function isLostToShutdown(request: RequestView): boolean {
  return request.results === 'RETRY' || (request.results === 'CANCELLED' && request.cancelledBy === 'master-shutdown');
}

export function lookAgain(at: number, because: string): Action {
  return { do: 'lookAgain', at, because };
}

export function claimRun({ request }: Facts, run: TaskRun, because: string): Action {
  return {
    do: 'claimRun',
    runId: run.runId,
    retriesReported: request.kind === 'present' ? retryCount(request.value) : 0,
    because,
  };
}

export function resolveRun(run: TaskRun, resolution: Resolution, because: string): Action {
  return { do: 'resolveRun', runId: run.runId, resolution, because };
}

/** Upload before resolving: afterwards the queue takes no artifacts any more. */
export function uploadAndResolve(
  facts: Facts,
  run: TaskRun,
  resolution: Resolution,
  because: string,
): readonly Action[] {
  return [uploadOutcome(facts, run, resolution, because), resolveRun(run, resolution, because)];
}

export function uploadOutcome(
  facts: Facts,
  run: TaskRun,
  resolution: Resolution | 'canceled',
  because: string,
): Action {
  const { mapping, policy, now } = facts;
  return {
    do: 'uploadOutcome',
    runId: run.runId,
    resolution,
    isLastTry: mapping.attempts >= policy.maxUploadAttempts || isLastChance(mapping.deadline, now),
    because,
  };
}

/** After so many failed passes an explanation that cannot be uploaded is given up. */
const EXPLANATION_TRIES = 20;

/** Why there is no build. */
export function explain(
  { mapping, now }: Facts,
  run: TaskRun,
  about: Extract<Action, { do: 'uploadExplanation' }>['about'],
): Action {
  return {
    do: 'uploadExplanation',
    runId: run.runId,
    about,
    isLastTry: mapping.attempts >= EXPLANATION_TRIES || isLastChance(mapping.deadline, now),
    because: 'the author has to know why',
  };
}

/** Whoever claimed it may not have come to linking the build. */
export function followClaimed(facts: Facts, run: TaskRun, because: string): readonly Action[] {
  const { request } = facts;
  const isBuilding = request.kind === 'present' && request.value.state === 'building';
  return [follow(facts, run, because), ...(isBuilding ? [announceBuild(run)] : [])];
}

export function announceBuild(run: TaskRun): Action {
  return { do: 'announceBuild', runId: run.runId, because: 'people want to see the build while it runs' };
}

/** @param isAnew whether the run has all its submissions before it: somebody asked for it, and it is no retry */
export function follow({ mapping, request }: Facts, run: TaskRun, because: string, isAnew = false): Action {
  // One that may still take effect counts.
  const underWay = mapping.state === 'held' ? 0 : 1;
  return {
    do: 'follow',
    runId: run.runId,
    takenUntil: run.state === 'running' ? (run.takenUntil ?? null) : null,
    retriesReported: request.kind === 'present' ? retryCount(request.value) : 0,
    submissions: isAnew ? Math.min(mapping.submissions, underWay) : mapping.submissions,
    because,
  };
}
