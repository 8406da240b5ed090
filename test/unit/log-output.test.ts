import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { createLogOutput } from '../../src/log-output.ts';

type Outcome = 'EAGAIN' | 'ENOSPC' | 'EPIPE' | number;

/** An output to something that does as `next` says: takes so many bytes, or fails; all of it where nothing is said. */
function start() {
  let taken = '';
  const next: Outcome[] = [];
  let always: Outcome | undefined;
  const output = createLogOutput({
    write(bytes) {
      const outcome = next.shift() ?? always ?? bytes.length;
      if (typeof outcome === 'string') {
        throw Object.assign(new Error(outcome), { code: outcome });
      }
      taken += bytes.toString('utf8', 0, outcome);
      return Math.min(outcome, bytes.length);
    },
    onLost: (lines) => output.write(`lost ${lines}\n`),
    lastMs: 50,
  });
  return {
    output,
    next,
    taken: () => taken,
    from: (outcome: Outcome | undefined) => {
      always = outcome;
    },
  };
}

describe('the log’s output', () => {
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  it('goes out at once', () => {
    const { output, taken } = start();
    output.write('a\n');
    output.write('b\n');
    expect(taken()).toBe('a\nb\n');
    expect(jest.getTimerCount()).toBe(0);
  });

  it('waits for a slow reader, and keeps its lines whole and in their order', () => {
    const { output, next, taken, from } = start();
    next.push(2, 'EAGAIN');
    output.write('äöü\n');
    output.write('b\n');
    expect(taken()).toBe('ä');
    from('EAGAIN');
    jest.advanceTimersByTime(1000);
    output.write('c\n');
    from(undefined);
    jest.advanceTimersByTime(20);
    expect(taken()).toBe('äöü\nb\nc\n');
    expect(jest.getTimerCount()).toBe(0);
  });

  it('keeps a line of which nothing but the end of the torn one before it went out', () => {
    const { output, next, taken } = start();
    next.push(2, 'ENOSPC');
    output.write('torn\n');
    next.push(1, 'EAGAIN');
    output.write('whole\n');
    expect(taken()).toBe('to\n');
    jest.advanceTimersByTime(20);
    expect(taken()).toBe('to\nwhole\nlost 1\n');
  });

  it('keeps no more than a megabyte for one, and says how many lines it lost', () => {
    const { output, taken, from } = start();
    from('EAGAIN');
    const line = `${'x'.repeat(99_999)}\n`;
    for (let i = 0; i < 12; i += 1) {
      output.write(line);
    }
    from(undefined);
    jest.advanceTimersByTime(20);
    expect(taken()).toBe(`${line.repeat(10)}lost 2\n`);
    // There is room again.
    output.write(line);
    expect(taken()).toHaveLength(11 * line.length + 'lost 2\n'.length);
  });

  it.each(['ENOSPC', 'EPIPE'] as const)('is lost where nothing takes it (%s), which is said later', (code) => {
    const { output, taken, from } = start();
    from(code);
    output.write('a\n');
    output.write('b\n');
    expect(jest.getTimerCount()).toBe(0);
    from(undefined);
    output.write('c\n');
    expect(taken()).toBe('c\nlost 2\n');
  });

  it('is said to be lost until that is taken, too', () => {
    const { output, next, taken } = start();
    next.push('ENOSPC', 'ENOSPC', 2, 'ENOSPC');
    for (const line of ['a\n', 'b\n', 'c\n', 'd\n']) {
      output.write(line);
    }
    // The line that says so is one of them.
    expect(taken()).toBe('c\nd\nlost 3\n');
  });

  it('begins a new line after one that was torn', () => {
    const { output, next, taken } = start();
    next.push(3, 'ENOSPC');
    output.write('aaaa\n');
    output.write('b\n');
    expect(taken()).toBe('aaa\nb\nlost 1\n');
  });
});

describe('at the end of the process the log’s output', () => {
  it('is taken by a slow reader', () => {
    const { output, next, taken } = start();
    next.push(1, 'EAGAIN', 'EAGAIN');
    output.write('ab\n');
    output.finish();
    expect(taken()).toBe('ab\n');
  });

  it.each(['EAGAIN', 'ENOSPC'] as const)('is not waited for without end: %s', (code) => {
    const { output, taken, from } = start();
    from(code);
    output.write('a\n');
    output.finish();
    expect(taken()).toBe('');
  });
});
