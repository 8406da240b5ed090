/** A simulation that finds nothing proves something only if it finds what is wrong. */
import { describe, expect, it } from '@jest/globals';
import { MUTATIONS } from '../../src/sandbox/simulation/mutations.ts';
import { simulate } from '../../src/sandbox/simulation/simulation.ts';
import type { Mutate } from '../../src/sandbox/simulation/world.ts';

const MOST_SEEDS = 600;

/** The first seed of which something is said that is said of this fault. */
async function findOut(mutate: Mutate, complaint: RegExp): Promise<string | undefined> {
  for (let seed = 1; seed <= MOST_SEEDS; seed += 1) {
    const found = (await simulate(seed, mutate)).complaints.find((one) => complaint.test(one));
    if (found !== undefined) {
      return found;
    }
  }
  return undefined;
}

describe('a bridge', () => {
  it.each(MUTATIONS.map(({ name, wrong, mutate, complaint }) => [name, wrong, mutate, complaint] as const))(
    '(%s) that %s is found out',
    async (_name, _wrong, mutate, complaint) => {
      expect(await findOut(mutate, complaint)).toEqual(expect.any(String));
    },
  );
});
