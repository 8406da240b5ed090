import { describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import type { PassResult } from '../../src/reflector/reconcile.ts';
import { createWorkQueue } from '../../src/reflector/work-queue.ts';
import { createManualClock } from '../support/queue-emulator.ts';

const DONE: PassResult = { kind: 'done' };

/** A queue whose passes end when the test says so. */
function fixture(concurrency = 2) {
  const clock = createManualClock(1_000_000);
  const begun: string[] = [];
  const ends: ((result: PassResult) => void)[] = [];
  const queue = createWorkQueue({
    concurrency,
    clock,
    log: pino({ level: 'silent' }),
    maxTries: 3,
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
  return {
    queue,
    clock,
    begun,
    settle,
    async end(result: PassResult = DONE) {
      ends.shift()?.(result);
      await settle();
    },
  };
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
      await end({ kind: 'store-away', retryAt: clock.now() });
      clock.advance(60_000);
      await settle();
    }
    expect(queue.size()).toBe(1);
    expect(begun).toHaveLength(2001);
    await end();
    await hint;
    expect(queue.size()).toBe(0);
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
