/** Which build requests of a build event are the bridge's own: a master publishes the builds of everybody. */
import type { MappingStore } from '../../ports.ts';

/**
 * @param named the build requests that the event names; none where the masters' version does not say
 * @param taskId the task that the build's properties name
 * @returns all of `named` where one of them is the bridge's, or the task's own where the event names none; else none
 */
export async function ownRequests(
  store: Pick<MappingStore, 'tasksOfRequests' | 'openMapping'>,
  named: readonly number[],
  taskId: string | null,
): Promise<readonly number[]> {
  if ((await store.tasksOfRequests(named)).length > 0) {
    return named;
  }
  const mapping = taskId === null ? undefined : await store.openMapping(taskId);
  if (mapping === undefined) {
    return [];
  }
  return named.length > 0 || mapping.buildRequestId === null ? named : [mapping.buildRequestId];
}
