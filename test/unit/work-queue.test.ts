import { describe, expect, it } from '@jest/globals';
import { createLog } from '../../src/log.ts';
import type { PassResult } from '../../src/reflector/reconcile.ts';
import { createWorkQueue, type WorkQueueOptions } from '../../src/reflector/work-queue.ts';
import { createManualClock } from '../support/queue-emulator.ts';

const DONE: PassResult = { kind: 'done' };

/** A queue whose passes end when the test says so. */
function fixture(concurrency = 2, wishes: Partial<WorkQueueOptions> = {}) {
  const clock = createManualClock(1_000_000);
  const begun: string[] = [];
  const lines: string[] = [];
  const ends: ((result: PassResult) => void)[] = [];
  const queue = createWorkQueue({
    concurrency,
    clock,
    log: createLog({ level: 'info', destination: { write: (line) => void lines.push(JSON.parse(line).msg) } }),
    maxTries: 3,
    ...wishes,
    pass: (taskId) => {
      begun.push(taskId);
      return new Promise((resolve) => ends.push(resolve));
    },
  });
  const settle = async () => {
    for (let i = 0; i < 20; i += 1) {
      await Promise.resolve();
    }
  };
  async function end(result: PassResult = DONE) {
    ends.shift()?.(result);
    await settle();
  }
  /** All that are under way end well in the same moment, the last one first. */
  async function endTogether() {
    for (const one of ends.splice(0).reverse()) {
      one(DONE);
    }
    await settle();
  }
  async function later(ms: number) {
    clock.advance(ms);
    await settle();
  }
  return {
    ...{ queue, clock, begun, lines, settle, end, endTogether, later },
    fail: (waitMs = 0) => end({ kind: 'failed', retryAt: clock.now() + waitMs }),
    /** Asks for a look, and says whether the hint was followed. */
    hint(taskId: string) {
      const hint = { isOver: false };
      queue.add(taskId).then(
        () => {
          hint.isOver = true;
        },
        () => undefined,
      );
      return hint;
    },
  };
}

/** A queue with a task `a` whose message is done with, and which is tried again by itself in four seconds. */
async function withParked(wishes: Partial<WorkQueueOptions> = {}, concurrency = 2) {
  const parts = fixture(concurrency, { maxTries: 12, ...wishes });
  const { hint, fail, later } = parts;
  hint('a');
  await fail();
  await later(1000);
  await fail();
  await later(2000);
  await fail();
  return parts;
}

describe('the work queue', () => {
  it('has one worker a task: hints meanwhile lead to one more pass', async () => {
    const { queue, begun, end } = fixture();
    const first = queue.add('a');
    const second = queue.add('a');
    const third = queue.add('a');
    expect(begun).toEqual(['a']);
    await end();
    await first;
    expect(begun).toEqual(['a', 'a']);
    await end();
    await Promise.all([second, third]);
    expect(queue.size()).toBe(0);
  });

  it('looks at no more tasks at once than it may', async () => {
    const { queue, begun, end } = fixture(2);
    const all = ['a', 'b', 'c'].map((taskId) => queue.add(taskId));
    expect(begun).toEqual(['a', 'b']);
    await end();
    expect(begun).toEqual(['a', 'b', 'c']);
    await end();
    await end();
    await Promise.all(all);
  });

  it('counts a task that is looked at once more as under way, whoever else ends in the same moment', async () => {
    const { queue, begun, hint, end, endTogether } = fixture(2);
    for (const taskId of ['a', 'b', 'a']) {
      hint(taskId);
    }
    await endTogether();
    for (const taskId of ['c', 'd']) {
      hint(taskId);
    }
    expect(begun).toEqual(['a', 'b', 'a', 'c']);
    expect(queue.isUnderWay('a')).toBe(true);
    let isStopped = false;
    const stopped = queue.stop().then(() => {
      isStopped = true;
    });
    await end();
    expect([queue.isUnderWay('a'), isStopped]).toEqual([false, false]);
    await end();
    await stopped;
  });

  it('tries a failed pass again, no sooner than it is told', async () => {
    const { queue, clock, begun, end, settle } = fixture();
    const hint = queue.add('a');
    await end({ kind: 'failed', retryAt: clock.now() + 5000 });
    clock.advance(4999);
    await settle();
    expect(begun).toHaveLength(1);
    clock.advance(1);
    await settle();
    expect(begun).toHaveLength(2);
    await end();
    await hint;
  });

  it('leaves a task to the reflector when it keeps failing', async () => {
    const { queue, clock, begun, end, settle } = fixture();
    const hint = queue.add('a');
    for (let i = 0; i < 3; i += 1) {
      await end({ kind: 'failed', retryAt: clock.now() });
      clock.advance(60_000);
      await settle();
    }
    await hint;
    expect(begun).toHaveLength(3);
    expect(queue.size()).toBe(0);
  });

  it('holds on to its hints for as long as the database is away', async () => {
    const { queue, clock, begun, end, settle } = fixture();
    const hint = queue.add('a');
    for (let i = 0; i < 2000; i += 1) {
      await end({ kind: 'store-away' });
      clock.advance(60_000);
      await settle();
    }
    expect(queue.size()).toBe(1);
    expect(begun).toHaveLength(2001);
    await end();
    await hint;
    expect(queue.size()).toBe(0);
  });

  it('waits for the database with patience of its own, of a minute at most', async () => {
    const { begun, hint, end, later } = fixture();
    hint('a');
    for (const [index, seconds] of [1, 2, 4, 8, 16, 32, 60, 60].entries()) {
      await end({ kind: 'store-away' });
      await later(seconds * 1000 - 1);
      expect(begun).toHaveLength(index + 1);
      await later(1);
      expect(begun).toHaveLength(index + 2);
    }
  });

  it('begins its patience anew once the database is back', async () => {
    const { queue, begun, hint, end, fail, later } = fixture(2, { maxTries: 12 });
    const first = hint('a');
    for (let count = 0; count < 13; count += 1) {
      await end({ kind: 'store-away' });
      await later(60_000);
    }
    await fail();
    expect([first.isOver, queue.parked(), queue.size()]).toEqual([false, 0, 1]);
    await later(1000);
    await end({ kind: 'busy' });
    expect([first.isOver, queue.parked(), queue.size()]).toEqual([false, 0, 1]);
    await later(1000);
    expect(begun).toHaveLength(16);
    await end({ kind: 'store-away' });
    await later(1000);
    expect(begun).toHaveLength(17);
    await fail();
    await later(2000);
    expect(begun).toHaveLength(18);
    await fail();
    expect([first.isOver, queue.parked(), queue.size()]).toEqual([true, 1, 0]);
  });

  it('does not take having been busy for failures', async () => {
    const { queue, hint, end, fail, later } = fixture(2, { maxTries: 12 });
    const first = hint('a');
    for (let count = 0; count < 11; count += 1) {
      await end({ kind: 'busy' });
      await later(1000);
    }
    await fail();
    expect([first.isOver, queue.parked(), queue.size()]).toEqual([false, 0, 1]);
    await later(1000);
    await end({ kind: 'busy' });
    expect([first.isOver, queue.parked(), queue.size()]).toEqual([true, 0, 0]);
  });

  it('gives unfinished hints back when it is stopped, after the passes under way', async () => {
    const { queue, end } = fixture(1);
    const first = queue.add('a');
    const second = queue.add('b');
    const stopped = queue.stop();
    await end();
    await stopped;
    await first;
    await expect(second).rejects.toThrow('stopped');
    await expect(queue.add('c')).rejects.toThrow('stopped');
  });
});

describe('a task that fails again and again', () => {
  it('is parked after three failures: its hint is done with, and it is tried again with growing waits', async () => {
    const { queue, begun, hint, fail, later, lines } = fixture(2, { maxTries: 12 });
    const first = hint('a');
    const waits = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60];
    for (const [index, seconds] of waits.entries()) {
      await fail();
      expect([first.isOver, queue.parked(), queue.size()]).toEqual(index < 2 ? [false, 0, 1] : [true, 1, 0]);
      await later(seconds * 1000 - 1);
      expect(begun).toHaveLength(index + 1);
      await later(1);
      expect(begun).toHaveLength(index + 2);
    }
    await fail();
    expect([queue.parked(), queue.size()]).toEqual([0, 0]);
    await later(600_000);
    expect(begun).toHaveLength(12);
    expect(lines).toEqual(['hint given up; the reflector will find the task']);
  });

  it('is parked at once where its next try is far away', async () => {
    const { queue, begun, hint, fail, later } = fixture(2, { maxTries: 12 });
    const first = hint('a');
    await fail(300_000);
    expect([first.isOver, queue.parked()]).toEqual([true, 1]);
    await later(299_999);
    expect(begun).toHaveLength(1);
    await later(1);
    expect(begun).toHaveLength(2);
  });

  it('is not parked for what was only busy, or while the database is away', async () => {
    const { queue, hint, end, later } = fixture(2, { maxTries: 12 });
    const first = hint('a');
    for (let count = 0; count < 11; count += 1) {
      await end(count % 2 === 0 ? { kind: 'busy' } : { kind: 'store-away' });
      await later(60_000);
    }
    expect([first.isOver, queue.parked(), queue.size()]).toEqual([false, 0, 1]);
  });

  it('is forgotten when it can be looked at', async () => {
    const { queue, begun, end, later } = await withParked();
    await later(4000);
    await end();
    expect([queue.parked(), queue.size(), begun.length]).toEqual([0, 0, 4]);
  });

  it('is looked at once more for a fresh hint, soon, which is answered after that; the waits go on growing', async () => {
    const { queue, begun, hint, fail, later } = await withParked();
    await later(4000);
    await fail();
    await later(1000);
    const fresh = [hint('a'), hint('a')];
    expect([queue.size(), queue.parked()]).toEqual([1, 0]);
    await later(3999);
    expect(begun).toHaveLength(4);
    await later(1);
    expect(begun).toHaveLength(5);
    expect(fresh).toEqual([{ isOver: false }, { isOver: false }]);
    await fail();
    expect(fresh).toEqual([{ isOver: true }, { isOver: true }]);
    expect([queue.size(), queue.parked()]).toEqual([0, 1]);
    await later(15_999);
    expect(begun).toHaveLength(5);
    await later(1);
    expect(begun).toHaveLength(6);
  });

  it('is looked at within seconds for a fresh hint, however far away its next try is, and not twice', async () => {
    const { begun, hint, fail, later } = fixture(2, { maxTries: 12 });
    hint('a');
    await fail(300_000);
    await later(60_000);
    const fresh = hint('a');
    await later(0);
    expect(begun).toHaveLength(2);
    await fail(300_000);
    expect(fresh.isOver).toBe(true);
    await later(299_999);
    expect(begun).toHaveLength(2);
    await later(1);
    expect(begun).toHaveLength(3);
  });

  it('is looked at once more for a hint that came during its last try, but not at once', async () => {
    const { queue, begun, hint, fail, later } = await withParked({ maxTries: 4 });
    await later(4000);
    const fresh = hint('a');
    await fail();
    expect([fresh.isOver, queue.size()]).toEqual([false, 1]);
    await later(4999);
    expect(begun).toHaveLength(4);
    await later(1);
    expect(begun).toHaveLength(5);
    await fail();
    expect([fresh.isOver, queue.parked(), queue.size()]).toEqual([true, 0, 0]);
  });

  it('is not looked at more often than every few seconds, however many hints come', async () => {
    const { begun, hint, fail, later } = await withParked();
    const before = begun.length;
    for (let second = 0; second < 40; second += 1) {
      hint('a');
      const tries = begun.length;
      await later(1000);
      if (begun.length > tries) {
        await fail();
      }
    }
    expect(begun.length - before).toBeLessThanOrEqual(9);
  });

  it('is looked at once more for a hint that came while it was looked at well', async () => {
    const { queue, begun, hint, end, later } = await withParked();
    await later(4000);
    const fresh = hint('a');
    await end();
    expect(begun).toHaveLength(5);
    expect([fresh.isOver, queue.parked(), queue.size()]).toEqual([false, 0, 1]);
    await end();
    expect([fresh.isOver, queue.size()]).toEqual([true, 0]);
  });

  it('holds on to fresh hints again when the database goes away', async () => {
    const { queue, begun, hint, end, fail, settle, later } = await withParked({ maxTries: 5 });
    await later(4000);
    await end({ kind: 'store-away' });
    await later(900);
    expect([queue.parked(), queue.size(), queue.oldestAgeMs()]).toEqual([0, 1, 900]);
    const fresh = hint('a');
    await settle();
    expect(fresh.isOver).toBe(false);
    await later(100);
    expect(begun).toHaveLength(5);
    await fail();
    expect(fresh.isOver).toBe(true);
  });

  it('counts neither as waiting nor as old', async () => {
    const { queue, hint, later } = await withParked();
    expect([queue.size(), queue.oldestAgeMs()]).toEqual([0, 0]);
    hint('b');
    await later(500);
    expect([queue.size(), queue.oldestAgeMs(), queue.parked()]).toEqual([1, 500, 1]);
  });

  it('is as old as the hints that are not answered yet, however it was hinted before', async () => {
    const { queue, hint, fail, end, later } = fixture(2, { maxTries: 12 });
    hint('a');
    for (let count = 0; count < 15; count += 1) {
      await later(1000);
      hint('a');
      await fail();
      await later(5000);
    }
    expect([queue.size(), queue.oldestAgeMs()]).toEqual([1, 5000]);
    hint('b');
    hint('a');
    await end();
    await later(300);
    await end();
    expect([queue.size(), queue.oldestAgeMs()]).toEqual([1, 300]);
  });

  it('lets fresh hints go first, and leaves room for them', async () => {
    const { queue, begun, hint, end, fail, later } = fixture(2, { maxTries: 12 });
    for (const taskId of ['a', 'b', 'c']) {
      hint(taskId);
      await fail(10_000);
    }
    expect(queue.parked()).toBe(3);
    await later(10_000);
    // The other place is kept free.
    expect(begun.slice(3)).toEqual(['a']);
    hint('x');
    hint('y');
    expect(begun.slice(4)).toEqual(['x']);
    // For whom somebody waits again is parked no longer.
    hint('b');
    await fail(60_000);
    expect(begun.slice(5)).toEqual(['c']);
    await end();
    expect(begun.slice(6)).toEqual(['y']);
    await end();
    expect(begun.slice(7)).toEqual(['b']);
  });

  it.each([2, 4])('has a place among %s, however many fresh hints come', async (concurrency) => {
    const { begun, hint, end, fail, later } = fixture(concurrency, { maxTries: 12 });
    for (const taskId of ['a', 'b', 'c']) {
      hint(taskId);
      await fail(10_000);
    }
    for (let count = 0; count < 2 * concurrency; count += 1) {
      hint(`fresh ${count}`);
    }
    await later(10_000);
    for (let count = 0; count < 20; count += 1) {
      hint(`more ${count}`);
      await end();
    }
    expect(begun.slice(3).filter((taskId) => taskId.length === 1)).toEqual(['a', 'b', 'c']);
  });

  it('is looked at within seconds for a fresh hint, also when the clock was set back', async () => {
    const { queue, clock, begun, hint, fail, settle } = fixture(2, { maxTries: 12 });
    hint('a');
    await fail(300_000);
    clock.set(clock.now() - 3_600_000);
    hint('a');
    expect(queue.size()).toBe(1);
    clock.advance(5000);
    await settle();
    expect(begun).toHaveLength(2);
  });

  it('is left to the reflector where too many are parked, which is said once', async () => {
    const { queue, begun, lines, hint, fail, later, settle } = fixture(2, { maxTries: 12, maxParked: 2 });
    for (const taskId of ['a', 'b', 'c', 'd']) {
      const one = hint(taskId);
      await fail(10_000);
      expect(one.isOver).toBe(true);
    }
    expect([queue.parked(), queue.size(), lines.length]).toEqual([2, 0, 1]);
    expect(lines[0]).toMatch(/^too many tasks/);
    await later(10_000);
    await settle();
    expect(begun.slice(4)).toEqual(['a']);
  });

  it('just ends when the queue is stopped', async () => {
    const { queue, begun, later } = await withParked();
    await queue.stop();
    expect([queue.parked(), queue.size()]).toEqual([0, 0]);
    await later(600_000);
    expect(begun).toHaveLength(3);
  });
});
