/** How long an upload may take, and when a run that is claimed has its last chance. Pure; times are UTC milliseconds. */

/**
 * So long before its deadline a run is resolved with what there is: afterwards its result would be lost. Long enough for
 * two rounds of the reflector and what they find to do.
 */
export const LAST_CHANCE_MS = 180_000;
/** So soon it is looked at again then; and the longest wait between tries of an upload. */
export const LAST_LOOKS_MS = 10_000;
/** To resolve the run takes a moment, and the queue's clock may be half a minute ahead of the database's. */
const RESOLVING_MS = 45_000;
/** Of those 45 s, or of what is left then, what stands in for artifacts takes so much. */
const STAND_INS_MS = 10_000;
/** Where others wait for its place. */
export const LEAST_STAND_INS_MS = 2000;
/** To resolve the run in, after stand-ins that got no answer. */
const LEAST_RESOLVING_MS = 5000;
/** Where others wait for its place, an upload at its last chance does not take all of the time that is left. */
const MOST_MS = 30_000;
/** However little time is left: most uploads take less. */
const LEAST_MS = 5000;

/** Whether uploads that hang must keep the run from its end no longer. */
export function isLastChance(deadline: number, now: number): boolean {
  return now >= deadline - LAST_CHANCE_MS;
}

/** When a run that is claimed is to be looked at, whatever else is waited for, so as not to miss its last chance. */
export function nextChance(deadline: number, now: number): number {
  if (now >= deadline) {
    return Number.POSITIVE_INFINITY;
  }
  return isLastChance(deadline, now) ? now + LAST_LOOKS_MS : deadline - LAST_CHANCE_MS;
}

/**
 * When an upload is given up: in time for the deadline.
 * @param begun when it began
 * @param share of the time that is left, between 0 and 1: less than all of it where it is at its last chance, and others
 *   that are wait for its place
 */
export function uploadEnd(deadline: number, begun: number, share = 1): number {
  const end = deadline - RESOLVING_MS;
  const most = share < 1 ? Math.min(end, begun + Math.min(MOST_MS, (end - begun) * share)) : end;
  return Math.max(begun + LEAST_MS, most);
}

/**
 * How long what stands in for artifacts is waited for, from `now` on, when no time is left for these.
 * @param share as for `uploadEnd`
 */
export function standInsMs(deadline: number, now: number, share = 1): number {
  const most = share < 1 ? LEAST_STAND_INS_MS : STAND_INS_MS;
  return Math.max(0, Math.min(most, deadline - LEAST_RESOLVING_MS - now));
}
