/**
 * How long to wait before connecting again, to Pulse or to a master, or taking a message again. All in milliseconds;
 * everything has jitter and a cap.
 */

const FIRST_RECONNECT_MS = 500;
const MAX_RECONNECT_MS = 30_000;
const FIRST_REDELIVERY_MS = 500;
const MAX_REDELIVERY_MS = 30_000;

/** What held for this long was no accident: the next failure is the first again. */
export const STABLE_MS = 60_000;

/** The wait before the `attempt`th try (from 1) to connect or to consume. */
export function reconnectDelay(attempt: number, random: () => number = Math.random): number {
  return Math.round(doubled(FIRST_RECONNECT_MS, MAX_RECONNECT_MS, attempt - 1) * (0.5 + random() / 2));
}

/**
 * The wait before a message that failed is given back.
 * @param deliveryCount how often it was delivered before, as quorum queues count it in `x-delivery-count`; whatever
 *   else stands there counts as 0
 */
export function redeliveryDelay(deliveryCount: unknown, random: () => number = Math.random): number {
  const count = typeof deliveryCount === 'number' && deliveryCount > 0 ? deliveryCount : 0;
  return Math.round(doubled(FIRST_REDELIVERY_MS, MAX_REDELIVERY_MS, count) * (0.5 + random() / 2));
}

function doubled(first: number, max: number, times: number): number {
  return Math.min(max, first * 2 ** Math.min(times, 20));
}
