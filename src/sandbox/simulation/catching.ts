/** A simulation that finds nothing proves something only if it finds what is wrong. */
import type { Mutation } from './mutation-parts.ts';
import { simulate } from './simulation.ts';

/** Of so many seeds at least one has to show each broken bridge. */
export const MOST_SEEDS = 1500;

/** Plain data: it travels between processes. */
export interface Caught {
  readonly seed: number;
  readonly complaint: string;
}

/** The first seed of which something is said that is said of this fault. */
export async function catchMutation({ mutate, complaint }: Mutation): Promise<Caught | undefined> {
  for (let seed = 1; seed <= MOST_SEEDS; seed += 1) {
    const found = (await simulate(seed, mutate)).complaints.find((one) => complaint.test(one));
    if (found !== undefined) {
      return { seed, complaint: found };
    }
  }
  return undefined;
}
