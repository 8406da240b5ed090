/** Why tasks were refused that wait for a whole pass. To be asked again, the legacy CI may want some time. */
import type { Admission } from './admission.ts';

export interface Refusals {
  /** @param mappingId of the task's mapping: what is refused later is refused for reasons of its own */
  keep(mappingId: number, admission: Admission): void;
  of(mappingId: number): Admission | undefined;
  forget(mappingId: number): void;
}

/** Of the oldest beyond these the legacy CI is asked again. */
const MAX_REFUSALS = 1000;

/** Those of tasks that others have brought to their end are never asked for: where there are too many, the oldest goes. */
export function createRefusals(max = MAX_REFUSALS): Refusals {
  const kept = new Map<number, Admission>();
  return {
    keep(mappingId, admission) {
      kept.delete(mappingId);
      kept.set(mappingId, admission);
      const [oldest] = kept.keys();
      if (kept.size > max && oldest !== undefined) {
        kept.delete(oldest);
      }
    },
    of: (mappingId) => kept.get(mappingId),
    forget: (mappingId) => void kept.delete(mappingId),
  };
}
