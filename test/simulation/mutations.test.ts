/** A simulation that finds nothing proves something only if it finds what is wrong. */
import { describe, expect, it } from '@jest/globals';
import { catchMutation } from '../../src/sandbox/simulation/catching.ts';
import { MUTATIONS } from '../../src/sandbox/simulation/mutations.ts';

describe('a bridge', () => {
  it.each(MUTATIONS.map((mutation) => [mutation.name, mutation.wrong, mutation] as const))(
    '(%s) that %s is found out',
    async (_name, _wrong, mutation) => {
      expect(await catchMutation(mutation)).toMatchObject({ complaint: expect.stringMatching(mutation.complaint) });
    },
  );
});
