/** One table of scenarios for every legacy CI, with all services and with the reflector alone. */
import { afterAll, beforeAll, describe, it } from '@jest/globals';
import type { LegacyCast, LegacySide } from '../support/legacy/legacy-side.ts';
import { startWorld, type World, type WorldOptions } from '../support/world.ts';
import { CRASHES, type Crash, MESSAGES } from './crashes.ts';
import { STORIES, type Story } from './stories.ts';

type Start = (cast: LegacyCast) => Promise<LegacySide>;

/** A claim lasts long enough for a bridge to come back, on a busy machine too, and short enough to wait for its end. */
const SHORT_CLAIMS: WorldOptions = {
  claimTimeoutMs: 20_000,
  config: { reflector: { schedule: '* * * * * *', recheck: '1s', reclaimThreshold: '15s' } },
};

/** @param legacy starts the legacy CI, once for each set of scenarios */
export function describeWithAllServices(legacy: Start): void {
  describeSet('with all services', STORIES, { legacy });
  describeSet('with all services, when something dies', [...CRASHES, ...MESSAGES], { legacy, ...SHORT_CLAIMS });
}

/** The same, with both listeners off. */
export function describeReflectorAlone(legacy: Start): void {
  const services = ['reflector'];
  describeSet('with the reflector alone', STORIES, { legacy, services });
  describeSet('with the reflector alone, when something dies', CRASHES, { legacy, services, ...SHORT_CLAIMS });
}

function describeSet(name: string, set: readonly (Story | Crash)[], options: WorldOptions): void {
  describe(name, () => {
    let world: World;
    beforeAll(async () => {
      world = await startWorld(options);
    });
    afterAll(() => world?.stop());
    it.each(set.map((one) => [one.name, one] as const))('%s', (_name, { tell }) => tell(world));
  });
}
