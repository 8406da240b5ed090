import { describe, expect, it } from '@jest/globals';
import { toStoreError } from '../../src/db/errors.ts';
import { BridgeError, QueueError } from '../../src/errors.ts';
import { clean, createLog, serializeError } from '../../src/log.ts';
import { Secret } from '../../src/secret.ts';

function capture(level = 'info', base?: Record<string, string>) {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  const log = createLog({ level, destination, ...(base ? { base } : {}) });
  const entries = (): Record<string, unknown>[] => lines.map((line) => JSON.parse(line));
  return { log, lines, entries };
}

describe('the log', () => {
  it('is JSON lines with the level in words, the time, and what is on every line', () => {
    const { log, lines, entries } = capture('info', { instance: 'i' });
    log.child({ service: 'reflector' }).warn({ taskId: 't' }, 'said');
    log.debug('not said');
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/\n$/);
    expect(entries()).toEqual([
      {
        level: 'warn',
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        instance: 'i',
        service: 'reflector',
        taskId: 't',
        msg: 'said',
      },
    ]);
  });

  it('keeps a foreign text on its line', () => {
    const { log, lines, entries } = capture();
    const text = 'a\n{"level":"fatal"}\r\u001b[31m\u009b31m\u007f\u2028\u202e\u{e0001}\ud800\u0000🎉';
    log.info({ builder: text }, 'said');
    expect(lines).toHaveLength(1);
    expect(lines[0]?.trimEnd()).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}]/u);
    expect(entries()).toMatchObject([{ builder: text }]);
  });

  it('does not show secrets, wherever they stand', () => {
    const { log, lines } = capture();
    const secrets = {
      accessToken: 'hush',
      certificate: 'hush',
      password: 'hush',
      authorization: 'hush',
      cookie: 'hush',
      putUrl: 'http://bucket/?signature=hush',
    };
    log.info(secrets, 'top');
    log.info({ options: secrets, request: { headers: secrets } }, 'deeper');
    log.info({ credentials: { any: 'hush' }, url: new Secret('hush') }, 'wrapped');
    log.child(secrets).info('child');
    expect(lines).toHaveLength(4);
    expect(lines.join('')).not.toContain('hush');
    expect(lines.every((line) => line.includes('[secret]'))).toBe(true);
  });

  it('tells an error with its code, its facts and its causes', () => {
    const { log, entries } = capture();
    const root = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' });
    const error = new QueueError('queue-unavailable', 'claimTask: no answer', {
      cause: root,
      context: { taskId: 't' },
    });
    log.warn({ err: error }, 'pass failed');
    expect(entries()[0]?.err).toEqual({
      type: 'QueueError',
      message: 'claimTask: no answer',
      code: 'queue-unavailable',
      taskId: 't',
      cause: { type: 'Error', message: 'connect ECONNREFUSED 127.0.0.1:1', code: 'ECONNREFUSED' },
    });
  });

  it('keeps the code that operators alert on, whatever an engine calls it', () => {
    const cause = Object.assign(new Error('Connection lost'), { code: 'PROTOCOL_CONNECTION_LOST' });
    expect(serializeError(toStoreError('leaseDue', cause))).toMatchObject({
      code: 'store-unavailable',
      cause: { code: 'PROTOCOL_CONNECTION_LOST' },
    });
  });
});

describe('an error in the log', () => {
  it('has a stack where it is a bug, also behind an expected one', () => {
    const bug = new TypeError('x is not a function');
    expect(serializeError(bug)).toMatchObject({ type: 'TypeError', stack: expect.stringContaining('log.test') });
    const wrapped = new BridgeError('queue-unavailable', 'no answer', { cause: bug });
    expect(serializeError(wrapped)).not.toHaveProperty('stack');
    expect(serializeError(wrapped)).toMatchObject({ cause: { stack: expect.stringContaining('log.test') } });
  });

  it('shows the first of several', () => {
    const error = new AggregateError([new Error('connect ECONNREFUSED ::1'), new Error('the other')], '');
    expect(serializeError(error)).toMatchObject({ cause: { message: 'connect ECONNREFUSED ::1' } });
  });

  it('ends, even if its causes go in circles', () => {
    const error = new Error('round');
    error.cause = error;
    expect(JSON.stringify(serializeError(error)).match(/"message"/g)?.length).toBeLessThan(10);
  });

  it.each(['a text', undefined, null, 7])('may be anything: %p', (thrown) => {
    expect(serializeError(thrown)).toMatchObject({ message: String(thrown) });
  });

  it('is clipped', () => {
    expect(serializeError(new Error('x'.repeat(100_000))).message).toHaveLength(2001);
  });

  it.each([
    ['amqps://user:pass@host/', 'amqps://[secret]@host/'],
    ['refused by mysql://u:p@ss@host:3306/db at once', 'refused by mysql://[secret]@host:3306/db at once'],
    ['http://host/a@b stays', 'http://host/a@b stays'],
    ['mail a@example.com', 'mail a@example.com'],
  ])('hides the credentials of a URL: %j', (text, expected) => {
    expect(clean(text)).toBe(expected);
  });

  it('hides the credentials of a URL on which the text is clipped', () => {
    expect(clean(`${'x'.repeat(1985)} amqp://user:pass@host`)).not.toContain('user');
  });
});
