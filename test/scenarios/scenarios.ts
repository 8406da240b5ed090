/** One table of scenarios for every legacy CI, with all services and with the reflector alone. */
import { afterAll, beforeAll, describe, it } from '@jest/globals';
import type { LegacySide } from '../support/legacy/legacy-side.ts';
import { startWorld, type World } from '../support/world.ts';
import { CRASHES, type Crash, MESSAGES } from './crashes.ts';
import { STORIES, type Story } from './stories.ts';

interface Cast {
  readonly name: string;
  readonly services?: readonly string[];
}

const ALL: Cast = { name: 'with all services' };
const ALONE: Cast = { name: 'with both listeners off', services: ['reflector'] };

/** @param legacy starts the legacy CI, once for each set of scenarios */
export function describeScenarios(legacy: () => Promise<LegacySide>): void {
  describe.each([ALL, ALONE])('$name', ({ services }) => {
    let world: World;
    beforeAll(async () => {
      world = await startWorld({ legacy, ...(services ? { services } : {}) });
    });
    afterAll(() => world?.stop());
    it.each(named(STORIES))('%s', (_name, story) => story.tell(world));
  });

  describe.each([
    { ...ALL, crashes: [...CRASHES, ...MESSAGES] },
    { ...ALONE, crashes: CRASHES },
  ])('$name, when the bridge dies', ({ services, crashes }) => {
    let world: World;
    beforeAll(async () => {
      // A claim lasts long enough for a whole story, and short enough for one that waits for its end.
      world = await startWorld({
        legacy,
        claimTimeoutMs: 12_000,
        config: { reflector: { schedule: '* * * * * *', recheck: '1s', reclaimThreshold: '8s' } },
        ...(services ? { services } : {}),
      });
    });
    afterAll(() => world?.stop());
    it.each(named(crashes))('%s', (_name, crash) => crash.tell(world));
  });
}

function named<T extends Story | Crash>(list: readonly T[]): (readonly [string, T])[] {
  return list.map((one) => [one.name, one] as const);
}
