import { afterEach, describe, expect, it } from '@jest/globals';
import { createCronTimer } from '../../src/reflector/cron.ts';
import { eventually } from '../support/eventually.ts';
import { createManualClock } from '../support/queue-emulator.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const NOON = new Date(2026, 0, 5, 12).getTime();

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0)) {
    await work();
  }
});

/** A timer, and how long after noon its turns were, in seconds. */
function aTimer(expression: string) {
  const clock = createManualClock(NOON);
  const turns: number[] = [];
  let ahead = 0;
  const shown = { ...clock, now: () => clock.now() + ahead };
  const timer = createCronTimer(shown)(expression, async () => {
    turns.push((shown.now() - NOON) / SECOND);
  });
  undo.push(() => timer.destroy());
  return {
    turns,
    /** Time goes by, second by second. */
    async pass(seconds: number): Promise<void> {
      for (let second = 0; second < seconds; second += 1) {
        await eventually(() => clock.sleepers() > 0);
        clock.advance(SECOND);
      }
      await eventually(() => clock.sleepers() > 0);
    },
    setForward(ms: number) {
      ahead += ms;
    },
  };
}

describe('the timer of the reflector', () => {
  it.each([
    ['*/20 * * * * *', [20, 40, 60, 80]],
    ['0 * * * * *', [60]],
    ['5 1 12 * * *', [65]],
  ])('has its turns as %s says', async (expression, expected) => {
    const { pass, turns } = aTimer(expression);
    await pass(90);
    expect(turns).toEqual(expected);
  });

  it('goes on at once when the clock is set back', async () => {
    const { pass, turns, setForward } = aTimer('*/20 * * * * *');
    await pass(25);
    setForward(-HOUR);
    await pass(60);
    expect(turns.slice(1)).toEqual([40, 60, 80].map((turn) => turn - 3600));
  });

  it('does not make up for the turns that were skipped when it is set forward by years', async () => {
    const { pass, turns, setForward } = aTimer('*/20 * * * * *');
    await pass(25);
    setForward(60 * 365 * 24 * HOUR);
    await pass(60);
    expect(turns).toHaveLength(4);
  });
});
