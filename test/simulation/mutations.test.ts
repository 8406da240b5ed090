/** A simulation that finds nothing proves something only if it finds what is wrong. */
import { describe, expect, it } from '@jest/globals';
import { MUTATIONS } from '../../src/sandbox/simulation/mutations.ts';
import { simulate } from '../../src/sandbox/simulation/simulation.ts';
import type { Mutate } from '../../src/sandbox/simulation/world.ts';

const MOST_SEEDS = 600;

async function firstComplaint(mutate: Mutate): Promise<string | undefined> {
  for (let seed = 1; seed <= MOST_SEEDS; seed += 1) {
    const [complaint] = (await simulate(seed, mutate)).complaints;
    if (complaint !== undefined) {
      return complaint;
    }
  }
  return undefined;
}

describe('a bridge', () => {
  it.each(MUTATIONS.map(({ name, wrong, mutate, complaint }) => [name, wrong, mutate, complaint] as const))(
    '(%s) that %s is found out',
    async (_name, _wrong, mutate, complaint) => {
      expect(await firstComplaint(mutate)).toMatch(complaint);
    },
  );
});
