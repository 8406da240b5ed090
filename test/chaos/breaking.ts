/** Breaks things as planned, side by side, and mends them. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Place } from './faults.ts';
import type { PlannedFault } from './plan.ts';
import type { Stage } from './stage.ts';

/** What came of one kind of fault. */
export interface Toll {
  /** How often it happened, hit something, and was mended. */
  readonly survived: number;
  /** How many processes, connections, packets, calls or messages were hit in all. */
  readonly hits: number;
  /** How often it happened where nothing was there to be hit. */
  readonly missed: number;
}

export interface FaultReport {
  /** Of each kind of fault, also of those that never happened. */
  readonly kinds: ReadonlyMap<string, Toll>;
  /** How many were left out because their place was still broken. */
  readonly skipped: number;
  /** In words, of each fault that could not be mended. */
  readonly problems: readonly string[];
}

/** Resolves when the last fault is mended; `signal` ends it sooner. */
export async function breakThings(
  stage: Stage,
  places: readonly Place[],
  plan: readonly PlannedFault[],
  signal: AbortSignal,
): Promise<FaultReport> {
  const names = places.flatMap(({ faults }) => faults.map(({ name }) => name));
  const kinds = new Map<string, Toll>(names.map((name) => [name, { survived: 0, hits: 0, missed: 0 }]));
  const problems: string[] = [];
  const broken = new Map<string, Promise<void>>();
  const begin = Date.now();
  let skipped = 0;

  function count(name: string, hits: number): void {
    const toll = kinds.get(name) ?? { survived: 0, hits: 0, missed: 0 };
    const what = hits > 0 ? 'survived' : 'missed';
    kinds.set(name, { ...toll, [what]: toll[what] + 1, hits: toll.hits + hits });
  }

  async function happen({ fault, place, random }: PlannedFault): Promise<void> {
    try {
      count(fault.name, await fault.happen(stage, random));
    } catch (error) {
      problems.push(`${fault.name}: it could not be mended: ${error}`);
    } finally {
      broken.delete(place);
    }
  }

  for (const planned of plan) {
    await delay(Math.max(0, begin + planned.atMs - Date.now()), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) {
      break;
    }
    if (broken.has(planned.place)) {
      skipped += 1;
    } else {
      broken.set(planned.place, happen(planned));
    }
  }
  await Promise.all(broken.values());
  return { kinds, skipped, problems };
}
