/** When the claim of a run is to be renewed. Times are UTC milliseconds. */
import type { Mapping } from '../domain/mapping.ts';

/** Not even the shortest claim is renewed more often: a pass is over before it would be due again. */
const LEAST_WAIT_MS = 1000;

/**
 * When a claim that was just made or renewed is to be renewed: when no more than the threshold is left of it, but not
 * before a quarter of it is over. How long claims last is the queue's setting: where it is no longer than the threshold,
 * the claim is near its end from the beginning. The rest is for an interval of the reflector and slow answers.
 */
export function reclaimTime(takenUntil: number, thresholdMs: number, now: number): number {
  // By a clock that is far ahead of the queue's it is over already.
  const least = Math.max(LEAST_WAIT_MS, (takenUntil - now) / 4);
  return Math.round(Math.max(takenUntil - thresholdMs, now + least));
}

/**
 * When the claim that ends at `takenUntil` is to be renewed. Of one that the mapping does not know (the bridge died
 * before it was recorded, it was renewed while the mapping database was away, or another version made it) nobody knows
 * how long it was: the threshold alone has to do, once. By the end of the one that the mapping knows it is recorded at
 * the latest, since operators are told how long claims last by what is recorded. Nor does anybody know of one that was
 * recorded by a clock that was ahead.
 */
export function reclaimDue(
  mapping: Pick<Mapping, 'takenUntil' | 'reclaimAt'>,
  takenUntil: number,
  thresholdMs: number,
  now: number,
): number {
  const isKnown =
    mapping.reclaimAt !== null &&
    mapping.takenUntil === takenUntil &&
    recordedAt(mapping.reclaimAt, takenUntil) <= now + LEAST_WAIT_MS;
  return isKnown ? mapping.reclaimAt : Math.min(takenUntil - thresholdMs, mapping.takenUntil ?? takenUntil);
}

/** When a claim was made or renewed, at the latest, that is to be renewed then: `reclaimTime` the other way round. */
function recordedAt(reclaimAt: number, takenUntil: number): number {
  return Math.min(reclaimAt - LEAST_WAIT_MS, (4 * reclaimAt - takenUntil) / 3);
}
