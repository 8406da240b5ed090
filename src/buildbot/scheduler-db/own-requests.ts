/** Which build requests of a build event are the bridge's own: a master publishes the builds of everybody. */
import type { MappingStore } from '../../ports.ts';
import { MAX_REQUEST_IDS } from './messages.ts';

/** Whichever of its requests a build is kept for, it is found for the others, too. */
const MAX_UNLEARNT = 10;

/**
 * @param named the build requests that the event names; none where the masters' version does not say
 * @param taskId the task that the build's properties name
 * @returns those of `named` that are the bridge's; where none is, the task's own, if it may be the build's: where its id has
 *   not been learnt yet, those of `named` among which it is
 */
export async function ownRequests(
  store: Pick<MappingStore, 'ownAmong' | 'openMapping'>,
  named: readonly number[],
  taskId: string | null,
): Promise<readonly number[]> {
  const known = await store.ownAmong(named);
  if (known.size > 0) {
    return named.filter((id) => known.has(id));
  }
  const mapping = taskId === null ? undefined : await store.openMapping(taskId);
  if (mapping === undefined) {
    return [];
  }
  const { buildRequestId: own } = mapping;
  if (own === null) {
    // The properties of a merged build are those of its last request.
    return named.slice(-MAX_UNLEARNT);
  }
  // It has been learnt a moment ago, or may be one of those that are not told; else somebody has built the same again.
  return named.length === 0 || named.length >= MAX_REQUEST_IDS || named.includes(own) ? [own] : [];
}
