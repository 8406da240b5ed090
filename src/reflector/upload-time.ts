/** How long an upload may take. Pure; times are UTC milliseconds. */

/**
 * So long before its deadline a run is resolved with what there is: afterwards its result would be lost. Long enough for
 * two rounds of the reflector and what they find to do.
 */
export const LAST_CHANCE_MS = 180_000;
/** To resolve the run takes a moment, and the queue's clock may be half a minute ahead of the database's. */
const RESOLVING_MS = 45_000;
/** Where others wait for their last chance as well, one upload does not take all of the time that is left. */
const MOST_MS = 30_000;
/** However little time is left: most uploads take less. */
const LEAST_MS = 5000;

/** Whether uploads that hang must keep the run from its end no longer. */
export function isLastChance(deadline: number, now: number): boolean {
  return now >= deadline - LAST_CHANCE_MS;
}

/**
 * When an upload that begins now is given up: in time for the deadline.
 * @param share of the time that is left, between 0 and 1, where it is one of many at their last chance; undefined where it
 *   began before that, in a place that it may keep until then
 */
export function uploadEnd(deadline: number, now: number, share?: number): number {
  const end = deadline - RESOLVING_MS;
  const most = share === undefined ? end : Math.min(end, now + Math.min(MOST_MS, (end - now) * share));
  return Math.max(now + LEAST_MS, most);
}
