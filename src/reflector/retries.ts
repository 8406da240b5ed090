/** When a task is tried again whose pass has failed. Pure; times are UTC milliseconds. */
import type { Mapping } from '../domain/mapping.ts';
import { isForbidden } from '../errors.ts';
import type { ActionKind } from './actions.ts';
import { SubmissionUnknown } from './apply/submission.ts';
import { reclaimDue } from './claims.ts';
import { nextChance } from './upload-time.ts';

/** What takes long: uploads. They have tries of their own. */
export const LONG: ReadonlySet<ActionKind> = new Set(['uploadOutcome', 'uploadExplanation']);

export const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 60_000;
/** After so many failures the wait is the longest one. */
const SLOWEST_AFTER = 7;
/** Rights are not mended in seconds. */
const FORBIDDEN_RETRY_MS = 300_000;
/** Of the tries of an upload: its wait is as long as several others' are. */
const FORBIDDEN_COUNTS = 7;

/**
 * Failed passes in a row, with this one. What is away for hours uses up none of the tries that an upload has once it is
 * back: others count no further than waits grow.
 * @param doing what failed, of this
 */
export function attemptsAfter(mapping: Mapping | null, doing: ActionKind | undefined, error: unknown): number {
  const before = mapping?.attempts ?? 0;
  if (doing !== undefined && LONG.has(doing)) {
    return before + (isForbidden(error) ? FORBIDDEN_COUNTS : 1);
  }
  return Math.max(before, Math.min(before + 1, SLOWEST_AFTER));
}

export interface Failure {
  readonly mapping: Mapping | null;
  readonly error: unknown;
  /** With this one. */
  readonly attempts: number;
  readonly now: number;
  /** When there is something else to see. */
  readonly notAfter: number;
  readonly reclaimThresholdMs: number;
  /** Uniform in [0, 1): jitter. */
  readonly random: number;
}

/** After a wait that grows, and in time for the claim and the deadline; but a submission's or a cancel's grace is not cut short. */
export function retryTime({ mapping, error, attempts, now, notAfter, reclaimThresholdMs, random }: Failure): number {
  const soonest = Math.min(
    notAfter,
    now + backoff(error, attempts, random),
    nextDuty(mapping, reclaimThresholdMs, now),
  );
  return Math.max(soonest, graceOf(error, mapping, now));
}

/**
 * When a run that is claimed has to be seen to, whatever else is waited for: its claim is to be renewed, unless that is
 * what fails, or it has its last chance. Never, where it is not claimed.
 */
function nextDuty(mapping: Mapping | null, reclaimThresholdMs: number, now: number): number {
  if (mapping === null || mapping.takenUntil === null) {
    return Number.POSITIVE_INFINITY;
  }
  const due = reclaimDue(mapping, mapping.takenUntil, reclaimThresholdMs, now);
  return Math.min(due > now ? due : Number.POSITIVE_INFINITY, nextChance(mapping.deadline, now));
}

/** When a mapping with nothing to do is looked at again: after the usual interval, but in time for the claim and the deadline. */
export function nextLookAt(
  mapping: Mapping,
  { recheckMs, reclaimThresholdMs }: { readonly recheckMs: number; readonly reclaimThresholdMs: number },
  now: number,
): number {
  return Math.min(now + recheckMs, nextDuty(mapping, reclaimThresholdMs, now));
}

/** A submission or a cancel may still take effect: looking sooner must not cut the wait for it short. */
export function isInGrace(mapping: Mapping, now: number): boolean {
  return (mapping.state === 'intended' || mapping.state === 'cancelling') && mapping.nextCheckAt > now;
}

/** A failed submission is not repeated before its late answer is out of the question. */
function graceOf(error: unknown, mapping: Mapping | null, now: number): number {
  if (error instanceof SubmissionUnknown) {
    return error.retryAt;
  }
  return mapping !== null && isInGrace(mapping, now) ? mapping.nextCheckAt : 0;
}

function backoff(error: unknown, attempts: number, random: number): number {
  const base = isForbidden(error) ? FORBIDDEN_RETRY_MS : Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempts - 1));
  return base * (0.75 + random / 2);
}
