/** One time for all instances: the database server's, whatever happens to the machine's clock. */
import { afterEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import { createSettableClock, type SettableClock } from '../../src/clock.ts';
import { StoreError } from '../../src/errors.ts';
import { createTimekeeper, type Timekeeper } from '../../src/timekeeper.ts';
import { eventually } from '../support/eventually.ts';
import { createManualClock } from '../support/queue-emulator.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const NOW = Date.UTC(2026, 0, 5, 8);
const AWAY = new StoreError('store-unavailable', 'away', { isTransient: true });

let keeper: Timekeeper | undefined;
afterEach(() => keeper?.stop());

/** A machine whose clock is `off`, and a database whose clock is right. */
function aMachine(off: number) {
  const time = createManualClock(NOW);
  const lines: Record<string, unknown>[] = [];
  const is = { off, databaseOff: 0, answerMs: 0, isAway: false, set: 0, setBack: 0, isRefusing: false, isWrong: false };
  const clock: SettableClock = createSettableClock({
    now: () => time.now() + is.off,
    uptime: () => time.now() - NOW + 12_345.6,
    sleep: time.sleep,
  });
  keeper = createTimekeeper({
    clock,
    store: {
      async now() {
        time.advance(is.answerMs / 2);
        const now = time.now() + is.databaseOff;
        time.advance(is.answerMs / 2);
        if (is.isAway) {
          throw AWAY;
        }
        return now;
      },
    },
    log: pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) }),
    async onSet(wasSetBack) {
      is.set += 1;
      is.setBack += wasSetBack ? 1 : 0;
      if (is.isRefusing) {
        throw is.isWrong ? new StoreError('store-schema', 'no such column') : AWAY;
      }
    },
  });
  /** How far the bridge's clock is off the database's. */
  const error = () => clock.now() - time.now() - is.databaseOff;
  return { time, clock, keeper, is, lines, error };
}

describe('the clock', () => {
  it('shows the machine’s time until it is set', () => {
    const { clock, time } = aMachine(HOUR);
    time.advance(SECOND);
    expect(clock.now()).toBe(NOW + HOUR + SECOND);
  });

  it('does not follow when the machine’s is set', () => {
    const { is, error } = aMachine(0);
    is.off = -9 * HOUR;
    expect(error()).toBe(0);
  });

  it.each([HOUR, -HOUR, 3 * SECOND])('is set by the database’s at the start (%d ms off)', async (off) => {
    const { keeper: one, error, lines, is } = aMachine(off);
    await one.start();
    expect([error(), is.setBack]).toEqual([0, 0]);
    expect(lines.filter(({ forwardMs }) => forwardMs === -off)).toHaveLength(Math.abs(off) > 5000 ? 1 : 0);
  });

  it('takes the middle of question and answer, and no answer that took long', async () => {
    const { keeper: one, is, error, time } = aMachine(HOUR);
    is.answerMs = 2002;
    const starting = one.start();
    await eventually(() => time.sleepers() === 1);
    expect(error()).toBe(HOUR);
    is.answerMs = 1000;
    time.advance(5 * SECOND);
    await starting;
    expect(error()).toBe(0);
  });

  it('is set again every minute, and while the database is away goes on by itself', async () => {
    const { keeper: one, is, error, time, lines } = aMachine(0);
    await one.start();
    is.isAway = true;
    is.databaseOff = HOUR;
    await eventually(() => time.sleepers() === 1);
    time.advance(MINUTE);
    await eventually(() => time.sleepers() === 1);
    expect(error()).toBe(-HOUR);
    is.isAway = false;
    time.advance(5 * SECOND);
    await eventually(() => error() === 0);
    expect(lines.filter(({ level }) => Number(level) >= 40)).toHaveLength(1);
    expect(is.setBack).toBe(0);
  });

  it('says so when it is set back', async () => {
    const { keeper: one, is, error, time } = aMachine(0);
    await one.start();
    await eventually(() => time.sleepers() === 1);
    is.databaseOff = -HOUR;
    time.advance(MINUTE);
    await eventually(() => error() === 0);
    expect(is.setBack).toBe(1);
  });

  it('says so again until it has been heard', async () => {
    const { keeper: one, is, error, time } = aMachine(0);
    await one.start();
    await eventually(() => time.sleepers() === 1);
    is.databaseOff = -HOUR;
    is.isRefusing = true;
    time.advance(MINUTE);
    await eventually(() => is.setBack === 1 && time.sleepers() === 1);
    is.isRefusing = false;
    time.advance(5 * SECOND);
    await eventually(() => is.setBack === 2 && time.sleepers() === 1);
    time.advance(MINUTE);
    await eventually(() => is.set === 4);
    expect([error(), is.setBack]).toEqual([0, 2]);
  });

  it('starts although what depends on it cannot be mended, says so, and tries again', async () => {
    const { keeper: one, is, error, time, lines } = aMachine(HOUR);
    is.isRefusing = true;
    await one.start();
    expect([error(), is.set]).toEqual([0, 1]);
    expect(lines.filter(({ msg, level }) => Number(level) === 40 && String(msg).includes('not mended'))).toHaveLength(
      1,
    );
    await eventually(() => time.sleepers() === 1);
    is.isRefusing = false;
    time.advance(5 * SECOND);
    await eventually(() => is.set === 2 && time.sleepers() === 1);
    time.advance(5 * SECOND);
    expect(is.set).toBe(2);
  });

  it('does not try more often what waiting does not mend', async () => {
    const { keeper: one, is, time } = aMachine(0);
    is.isRefusing = true;
    is.isWrong = true;
    await one.start();
    await eventually(() => time.sleepers() === 1);
    time.advance(59 * SECOND);
    expect(is.set).toBe(1);
    time.advance(SECOND);
    await eventually(() => is.set === 2);
  });

  it('waits at the start for a database that is away', async () => {
    const { keeper: one, is, error, time } = aMachine(HOUR);
    is.isAway = true;
    const starting = one.start();
    await eventually(() => time.sleepers() === 1);
    expect(error()).toBe(HOUR);
    is.isAway = false;
    time.advance(5 * SECOND);
    await starting;
    expect(error()).toBe(0);
  });

  it('takes the quickest of five answers of a database that is always slow', async () => {
    const { keeper: one, is, error, time } = aMachine(HOUR);
    is.answerMs = 6000;
    const starting = one.start();
    for (const answerMs of [5000, 3000, 4000, 8000]) {
      await eventually(() => time.sleepers() === 1);
      is.answerMs = answerMs;
      time.advance(5 * SECOND);
    }
    await starting;
    expect(error()).toBe(0);
  });
});
