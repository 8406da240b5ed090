/** The queue client against a queue, or a proxy before it, that answers as no honest one does. */
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from '@jest/globals';
import { QueueError } from '../../src/errors.ts';
import { MAX_ANSWER } from '../../src/foreign-answer.ts';
import type { TaskQueue } from '../../src/ports.ts';
import type { QueueClientOptions } from '../../src/taskcluster/queue-client.ts';
import { type Misbehaviour, startHostileServer } from '../support/hostile-server.ts';
import { clientOf } from '../support/queue-client.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function serve(does: (line: string) => Misbehaviour) {
  const server = await startHostileServer(does);
  undo.push(() => server.stop());
  return server;
}

const failure = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

/** Every kind of call: read and written, by the queue and by auth. What cannot be read is thrown. */
const CALLS: Readonly<Record<string, (queue: TaskQueue) => Promise<unknown>>> = {
  status: async (queue) => thrown(await queue.status('t')),
  statuses: async (queue) => thrown((await queue.statuses(['t'])).get('t')),
  task: async (queue) => thrown(await queue.task('t')),
  claim: (queue) => queue.claim('t', 0),
  reclaim: (queue) => queue.reclaim('t', 0),
  resolve: (queue) => queue.resolve('t', 0, { state: 'completed' }),
  cancelTask: (queue) => queue.cancelTask('t'),
  putArtifact: (queue) =>
    queue.putArtifact('t', 0, { kind: 'error', name: 'a', reason: 'r', message: 'm', expires: 0 }),
  listPending: async (queue) => {
    for await (const _page of queue.listPending()) {
      // Nothing is wanted of it.
    }
  },
  expandScopes: (queue) => queue.expandScopes(['a']),
};
const calls = Object.entries(CALLS);

function thrown(seen: { kind: string; error?: unknown } | undefined): unknown {
  if (seen?.kind === 'unreadable') {
    throw seen.error;
  }
  return seen;
}

/** A client that does not repeat what fails. */
const once = (url: string, changes: Partial<QueueClientOptions> = {}) =>
  clientOf(url, { retries: 0, timeoutMs: 4000, ...changes });

function expectTransientAndShort(error: unknown): void {
  expect(error).toBeInstanceOf(QueueError);
  expect(error).toMatchObject({ code: 'queue-unavailable', isTransient: true });
  expect(inspect(error, { depth: 10 })).not.toMatch(/hawk/i);
  expect(String(error).length).toBeLessThan(500);
}

describe.each(calls)('%s', (_what, call) => {
  it.each([200, 500])('is given up when the answer, with status %i, does not end', async (status) => {
    const server = await serve(() => ({ kind: 'endless', status }));
    const error = await failure(call(once(server.url, { retries: 2 })));
    expectTransientAndShort(error);
    expect(inspect(error)).toContain('longer than');
    // With what lies in the buffers of both ends.
    expect(server.sent()).toBeLessThan(server.calls.length * (MAX_ANSWER + 30_000_000));
    // Repeated at once it would be as long.
    expect(server.calls.length).toBeLessThan(10);
  });

  it('is given up when the answer is small only as long as it is packed', async () => {
    const server = await serve(() => ({ kind: 'bomb' }));
    expect(inspect(await failure(call(once(server.url))))).toContain('longer than');
  });

  it.each<[string, Misbehaviour]>([
    ['drips', { kind: 'drips', everyMs: 20 }],
    ['is cut short', { kind: 'cut' }],
    ['is silence', { kind: 'silent' }],
    ['is headers without end', { kind: 'floods', head: 'HTTP/1.1 200 OK\r\n', chunk: 'x-more: and more\r\n' }],
    ['is interim answers without end', { kind: 'floods', head: '', chunk: 'HTTP/1.1 102 Processing\r\n\r\n' }],
    ['is one header without end', { kind: 'floods', head: 'HTTP/1.1 200 OK\r\nx: ', chunk: 'y'.repeat(1000) }],
    ['is not HTTP', { kind: 'floods', head: '', chunk: '\0\xff\r\n' }],
  ])('ends in time when what comes %s', async (_how, does) => {
    const server = await serve(() => does);
    const began = Date.now();
    expectTransientAndShort(await failure(call(once(server.url, { timeoutMs: 500 }))));
    expect(Date.now() - began).toBeLessThan(5000);
  });

  it.each(['/elsewhere', 'http://127.0.0.1:1/', 'file:///etc/passwd', '//evil', '\u0001'])(
    'goes nowhere else when it is told to go to %j',
    async (location) => {
      const server = await serve(() => ({ kind: 'says', status: 302, body: '', headers: { location: encodeURI(location) } }));
      expectTransientAndShort(await failure(call(once(server.url))));
      expect(new Set(server.calls.map((line) => line.includes('elsewhere')))).toEqual(new Set([false]));
    },
  );
});
