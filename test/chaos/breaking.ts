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

/**
 * Breaks what is planned. A fault whose place is still broken is left out; the first of its kind waits for its place
 * instead, unless its turn comes only after `ms`.
 * Resolves when the last fault is mended; `signal` ends it sooner.
 */
export async function breakThings(
  stage: Stage,
  places: readonly Place[],
  plan: readonly PlannedFault[],
  { ms, signal }: { readonly ms: number; readonly signal: AbortSignal },
): Promise<FaultReport> {
  const names = places.flatMap(({ faults }) => faults.map(({ name }) => name));
  const kinds = new Map<string, Toll>(names.map((name) => [name, { survived: 0, hits: 0, missed: 0 }]));
  const problems: string[] = [];
  /** Of each place that is broken, when it is mended. */
  const broken = new Map<string, Promise<void>>();
  const asked = new Set<string>();
  const begin = Date.now();
  let skipped = 0;

  function count(name: string, hits: number): void {
    const toll = kinds.get(name) ?? { survived: 0, hits: 0, missed: 0 };
    const what = hits > 0 ? 'survived' : 'missed';
    kinds.set(name, { ...toll, [what]: toll[what] + 1, hits: toll.hits + hits });
  }

  async function happen({ fault, random }: PlannedFault): Promise<void> {
    try {
      count(fault.name, await fault.happen(stage, random));
    } catch (error) {
      problems.push(`${fault.name}: it could not be mended: ${error}`);
    }
  }

  /** Happens when its place is mended, if that is in time. */
  async function takeTurn(planned: PlannedFault, before: Promise<void>): Promise<void> {
    await before;
    if (signal.aborted || Date.now() > begin + ms) {
      skipped += 1;
    } else {
      await happen(planned);
    }
  }

  for (const planned of plan) {
    await delay(Math.max(0, begin + planned.atMs - Date.now()), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) {
      break;
    }
    const { place, fault } = planned;
    const before = broken.get(place);
    if (before !== undefined && asked.has(fault.name)) {
      skipped += 1;
      continue;
    }
    asked.add(fault.name);
    const mended = (before === undefined ? happen(planned) : takeTurn(planned, before)).finally(() => {
      if (broken.get(place) === mended) {
        broken.delete(place);
      }
    });
    broken.set(place, mended);
  }
  await Promise.all(broken.values());
  return { kinds, skipped, problems };
}
