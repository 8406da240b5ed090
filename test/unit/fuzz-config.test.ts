/** Configurations and answers of the queue that are none. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { allKeys, loadConfig, parseConfig } from '../../src/config.ts';
import { ConfigError, QueueError } from '../../src/errors.ts';
import { tried } from '../support/hostile-input.ts';
import { clientOf, type FakeServer, startFakeServer } from '../support/queue-client.ts';
import { newTaskId } from '../support/queue-emulator.ts';

const SECRET = 'hunter2-hunter2';
const text = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom(SECRET, '__proto__', '10m', 'http://x', '0'));
const value = fc.oneof(fc.jsonValue({ maxDepth: 3 }), text, fc.double());

/** Only what a configuration error may be. */
function isRefusal(error: unknown): boolean {
  return error instanceof ConfigError && error.message.length < 100_000;
}

describe('a configuration', () => {
  const keys = allKeys();

  it('is one or is refused, whatever stands at its keys, and shows no secret', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom(...keys), value), { maxLength: 12 }), (entries) => {
        const given: Record<string, unknown> = {};
        for (const [key, what] of entries) {
          place(given, key.split('.'), what);
        }
        tried('configuration values');
        place(given, ['taskcluster', 'credentials', 'accessToken'], [SECRET]);
        place(given, ['pulse', 'url'], `nonsense ${SECRET}`);
        try {
          parseConfig(given, {}, 'bridge.yml');
        } catch (error) {
          expect(isRefusal(error)).toBe(true);
          expect(
            String(error)
              .split('\n')
              .filter((line) => /accessToken|pulse\.url/.test(line))
              .join(),
          ).not.toContain(SECRET);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('is one or is refused, whatever it is and whatever the environment', () => {
    fc.assert(
      fc.property(
        fc.anything(),
        fc.dictionary(fc.constantFrom('PULSE_URL', 'DATABASE_URL', 'BUILDBOT_PASSWORD'), text),
        (given, env) => {
          tried('configuration values');
          try {
            parseConfig(given, env, 'bridge.yml');
          } catch (error) {
            expect(isRefusal(error)).toBe(true);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  describe('in a file', () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(path.join(tmpdir(), 'bbb-fuzz-'));
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    const bomb = ['a0: &a0 [x,x,x,x,x,x,x,x,x,x]']
      .concat(Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(10).fill(`*a${i}`).join()}]`))
      .join('\n');
    const file = fc.oneof(
      fc.string({ unit: 'binary' }).map((one) => Buffer.from(one)),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
      fc
        .array(fc.constantFrom('a', ':', ' ', '\n', '-', '&a', '*a', '!x', '|', '"', '{', '[', '<<', '---', '\t'))
        .map((parts) => Buffer.from(parts.join(''))),
      fc.constantFrom(bomb, 'a: &a [*a]').map((one) => Buffer.from(one)),
    );

    it('is refused when it goes deep', () => {
      const name = path.join(folder, 'deep.yml');
      for (const deep of ['['.repeat(1000), '['.repeat(3000)]) {
        tried('configuration files');
        writeFileSync(name, deep);
        expect(() => loadConfig({ file: name, env: {} })).toThrow(ConfigError);
      }
    });

    it('is refused, whatever the bytes', () => {
      const name = path.join(folder, 'bridge.yml');
      fc.assert(
        fc.property(file, (bytes) => {
          tried('configuration files');
          writeFileSync(name, bytes);
          try {
            loadConfig({ file: name, env: {} });
            expect('a configuration').toBe('refused');
          } catch (error) {
            expect({ error, isRefusal: isRefusal(error) }).toMatchObject({ isRefusal: true });
          }
        }),
        { numRuns: 300 },
      );
    });
  });
});

function place(target: Record<string, unknown>, [key = '', ...rest]: readonly string[], what: unknown): void {
  if (rest.length === 0) {
    target[key] = what;
    return;
  }
  const known = target[key];
  const inner: Record<string, unknown> =
    typeof known === 'object' && known !== null && !Array.isArray(known) ? { ...known } : {};
  target[key] = inner;
  place(inner, rest, what);
}

describe('what the queue answers', () => {
  let server: FakeServer;
  let body: unknown;
  let status = 200;
  beforeEach(async () => {
    server = await startFakeServer(() => {
      tried('answers of the queue or of auth');
      return { body, status, contentType: 'application/json' };
    });
  });
  afterEach(() => server.stop());

  const TIME = '2026-11-23T21:00:00.000Z';
  const time = fc.oneof(
    fc.constantFrom(TIME, '9999-12-31T23:59:59+14:00', '0000-01-01T00:00:00Z', '2026-02-31T00:00:00Z'),
    value,
  );
  const run = fc.record({
    runId: value,
    state: fc.oneof(fc.constant('pending'), value),
    reasonCreated: text,
    scheduled: time,
  });
  const taskStatus = fc.record({
    ...{
      taskQueueId: text,
      schedulerId: text,
      taskGroupId: text,
      taskId: text,
      priority: fc.oneof(fc.constant('low'), value),
    },
    ...{
      deadline: time,
      expires: time,
      retriesLeft: fc.oneof(fc.integer(), value),
      runs: fc.array(run, { maxLength: 2 }),
    },
  });
  const answer = fc.oneof(
    value.map((one) => JSON.stringify(one)),
    fc.string({ unit: 'binary' }),
    taskStatus.map((one) => JSON.stringify({ status: one, ...one, takenUntil: one.deadline, putUrl: one.taskGroupId })),
    taskStatus.map((one) =>
      JSON.stringify({ statuses: [{ taskId: one.taskId, status: one }], tasks: [one], scopes: [one.taskId] }),
    ),
  );

  it('is read, absent or unreadable; no other error comes of it', async () => {
    const queue = clientOf(server.url, { retries: 0 });
    const taskId = newTaskId();
    const typed = (work: Promise<unknown>) =>
      work.then(
        () => undefined,
        (error: unknown) => expect(error).toBeInstanceOf(QueueError),
      );
    await fc.assert(
      fc.asyncProperty(answer, fc.constantFrom(200, 200, 200, 400, 401, 404, 409), async (text, code) => {
        body = text;
        status = code;
        for (const seen of [
          await queue.status(taskId),
          await queue.task(taskId),
          (await queue.statuses([taskId])).get(taskId),
        ]) {
          expect(['present', 'absent', 'unreadable']).toContain(seen?.kind);
          if (seen?.kind === 'present') {
            expect(Number.isNaN(seen.value.deadline)).toBe(false);
          }
        }
        await typed(queue.claim(taskId, 0));
        await typed(queue.reclaim(taskId, 0));
        await typed(queue.expandScopes([text]));
        await typed(queue.listPending()[Symbol.asyncIterator]().next());
      }),
      { numRuns: 100 },
    );
  });

  it('is given up when a list has no end', async () => {
    let page = 0;
    body = undefined;
    await server.stop();
    server = await startFakeServer(() => {
      tried('answers of the queue or of auth');
      page += 1;
      return { body: { tasks: [], continuationToken: String(page) } };
    });
    const all = async () => {
      for await (const _ of clientOf(server.url).listPending()) {
        // Only the end counts.
      }
    };
    await expect(all()).rejects.toMatchObject({
      code: 'queue-unavailable',
      message: expect.stringContaining('does not end'),
    });
  }, 30_000);
});
