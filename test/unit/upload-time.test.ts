/** How much of the time before a task's deadline an upload has. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { isLastChance, LAST_CHANCE_MS, nextChance, standInsMs, uploadEnd } from '../../src/reflector/upload-time.ts';

const DEADLINE = 1_000_000_000;
const SECOND = 1000;

describe('an upload', () => {
  it.each([
    ['hours before the deadline has until shortly before it', 7200, undefined, 45],
    ['at its last chance has the same, where nobody waits for its place', 180, 1, 45],
    ['where others do leaves them the place in time', 180, 0.9, 150],
    ['of twice as many as there are places for has half of the time', 65, 0.5, 55],
    ['of very many has a little', 180, 0.001, 175],
    ['in the last seconds, too', 3, 1, -2],
    ['after the deadline, too', -10, undefined, -15],
  ])('%s', (_what, left, share, end) => {
    expect((DEADLINE - uploadEnd(DEADLINE, DEADLINE - left * SECOND, share)) / SECOND).toBe(end);
  });

  it('never ends in the past, nor so late that the run could not be resolved, if there was time', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -600, max: 7200 }),
        fc.option(fc.double({ min: 0.001, max: 1, noNaN: true }), { nil: undefined }),
        (left, share) => {
          const now = DEADLINE - left * SECOND;
          const end = uploadEnd(DEADLINE, now, share);
          expect(end).toBeGreaterThanOrEqual(now + 5 * SECOND);
          expect(end).toBeLessThanOrEqual(Math.max(now + 5 * SECOND, DEADLINE - 45 * SECOND));
        },
      ),
    );
  });

  it.each([
    ['have ten seconds', 45, 1, 10],
    ['have two where others wait for their place', 45, 0.5, 2],
    ['leave time to resolve the run in', 12, 1, 7],
    ['have none shortly before the deadline, and after it', 3, 1, 0],
  ])('has stand-ins that %s', (_what, left, share, seconds) => {
    expect(standInsMs(DEADLINE, DEADLINE - left * SECOND, share)).toBe(seconds * SECOND);
  });

  it('is looked at when its last chance begins, and often then', () => {
    const inSeconds = (left: number) => (nextChance(DEADLINE, DEADLINE - left * SECOND) - DEADLINE) / SECOND;
    expect([7200, 181, 180, 10, 0].map(inSeconds)).toEqual([-180, -180, -170, 0, Number.POSITIVE_INFINITY]);
  });

  it('has its last chance in the last three minutes', () => {
    expect([LAST_CHANCE_MS + 1, LAST_CHANCE_MS, 0, -1].map((left) => isLastChance(DEADLINE, DEADLINE - left))).toEqual([
      false,
      true,
      true,
      true,
    ]);
  });
});
