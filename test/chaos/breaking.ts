/** Breaks things as planned, side by side, and mends them. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Place } from './faults.ts';
import type { PlannedFault } from './plan.ts';
import type { Stage } from './stage.ts';

export interface FaultReport {
  /** How often each fault happened and was mended; also those that never did. */
  readonly happened: ReadonlyMap<string, number>;
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
  const happened = new Map(names.map((name) => [name, 0]));
  const problems: string[] = [];
  const broken = new Map<string, Promise<void>>();
  const begin = Date.now();
  let skipped = 0;

  async function happen({ fault, place, random }: PlannedFault): Promise<void> {
    try {
      await fault.happen(stage, random);
      happened.set(fault.name, (happened.get(fault.name) ?? 0) + 1);
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
  return { happened, skipped, problems };
}
