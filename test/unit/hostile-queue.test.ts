/** The queue client against a queue, or a proxy before it, that answers as no honest one does. */
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from '@jest/globals';
import { describeError, QueueError } from '../../src/errors.ts';
import { MAX_ANSWER } from '../../src/foreign-answer.ts';
import type { TaskQueue } from '../../src/ports.ts';
import type { QueueClientOptions } from '../../src/taskcluster/queue-client.ts';
import { countInputs } from '../support/count-inputs.ts';
import { tried } from '../support/hostile-input.ts';
import { type Misbehaviour, startHostileServer } from '../support/hostile-server.ts';
import { clientOf } from '../support/queue-client.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function serve(does: (line: string) => Misbehaviour) {
  const server = await startHostileServer('answers of the queue or of auth', does);
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
      const server = await serve(() => ({
        kind: 'says',
        status: 302,
        body: '',
        headers: { location: encodeURI(location) },
      }));
      expectTransientAndShort(await failure(call(once(server.url))));
      expect(new Set(server.calls.map((line) => line.includes('elsewhere')))).toEqual(new Set([false]));
    },
  );
});

const TIME = '2026-11-23T21:00:00.000Z';
const RUN = { runId: 0, state: 'pending', reasonCreated: 'scheduled', scheduled: TIME };
const runs = (count: number, changes: (runId: number) => object = () => ({})) =>
  Array.from({ length: count }, (_, runId) => ({ ...RUN, runId, ...changes(runId) }));
function statusOf(taskId: string, changes: object = {}) {
  const identity = { taskId, taskQueueId: 'buildbot/bridge', schedulerId: 's', taskGroupId: 'g', priority: 'low' };
  return { ...identity, deadline: TIME, expires: TIME, retriesLeft: 5, state: 'pending', runs: [RUN], ...changes };
}

const NESTED = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
/** As JSON, since JavaScript cannot write all of it. */
const ABSURD: Readonly<Record<string, string>> = {
  'of another task': JSON.stringify(statusOf('other')),
  'nested deep': `{"taskId":${NESTED}}`,
  'of nothing but a prototype': '{"__proto__":{"taskId":"bad","runs":[]},"constructor":{"prototype":{}}}',
  'that is a list': '[]',
  'with a runId beyond all': JSON.stringify(statusOf('bad', { runs: [RUN] })).replace('"runId":0', '"runId":1e300'),
  'with a runId that no column holds': JSON.stringify(statusOf('bad', { runs: [{ ...RUN, runId: 2 ** 40 }] })),
  'with a negative runId': JSON.stringify(statusOf('bad', { runs: [{ ...RUN, runId: -1 }] })),
  'with half a runId': JSON.stringify(statusOf('bad', { runs: [{ ...RUN, runId: 1.5 }] })),
  'with a run twice': JSON.stringify(statusOf('bad', { runs: [RUN, RUN] })),
  'with runs out of order': JSON.stringify(statusOf('bad', { runs: runs(3).reverse() })),
  'with ten thousand bad runs': JSON.stringify(
    statusOf('bad', { runs: runs(1000, () => ({ state: 'x'.repeat(99) })) }),
  ),
  'with retries beyond all': JSON.stringify(statusOf('bad')).replace('"retriesLeft":5', '"retriesLeft":1e300'),
  'with a deadline beyond all dates': JSON.stringify(statusOf('bad', { deadline: '+275760-09-13T00:00:00.001Z' })),
  'with a deadline that is a word': JSON.stringify(statusOf('bad', { deadline: 'Infinity' })),
  'with a deadline that is a number': JSON.stringify(statusOf('bad', { deadline: 1e300 })),
  'with an expiry on no day': JSON.stringify(statusOf('bad', { expires: '2026-02-30T00:00:00Z' })),
  'with a claim that ends never': JSON.stringify(statusOf('bad', { runs: [{ ...RUN, takenUntil: 'never' }] })),
  'with a group that no column holds': JSON.stringify(statusOf('bad', { taskGroupId: 'g'.repeat(1_000_000) })),
  'of a newer queue': JSON.stringify(statusOf('bad', { runs: [{ ...RUN, state: 'hibernating' }] })),
};

describe('a status', () => {
  it.each(Object.entries(ABSURD))('%s is unreadable, in few words, and the others are not', async (_what, bad) => {
    tried('statuses that no queue has');
    const good = JSON.stringify(statusOf('good'));
    const server = await serve((line) => ({
      kind: 'says',
      body: line.startsWith('POST')
        ? `{"statuses":[{"taskId":"bad","status":${bad}},{"taskId":"good","status":${good}},{"taskId":"unasked","status":${good}}]}`
        : `{"status":${bad}}`,
    }));
    const queue = once(server.url);
    const all = await queue.statuses(['bad', 'good']);
    expect([...all].map(([taskId, { kind }]) => [taskId, kind])).toEqual([
      ['bad', 'unreadable'],
      ['good', 'present'],
    ]);
    for (const seen of [all.get('bad'), await queue.status('bad')]) {
      expect(seen).toMatchObject({ kind: 'unreadable', error: expect.any(QueueError) });
      expect(describeError(seen?.kind === 'unreadable' ? seen.error : '').length).toBeLessThan(700);
    }
    expect(String(await failure(queue.claim('bad', 0))).length).toBeLessThan(700);
    expect(Object.prototype).not.toHaveProperty('taskId');
  });

  it.each(['0000-01-01T00:00:00Z', '9999-12-31T23:59:59.999999999Z', '1970-01-01T00:00:00+23:59'])(
    'with all its times at %s is read as it is',
    async (time) => {
      const given = statusOf('t', {
        deadline: time,
        expires: time,
        runs: runs(1000, () => ({ scheduled: time, takenUntil: time, reasonResolved: 'a whim of a newer queue' })),
      });
      const server = await serve(() => ({ kind: 'says', body: JSON.stringify({ status: given }) }));
      const seen = await once(server.url).status('t');
      expect(seen).toMatchObject({ kind: 'present', value: { deadline: Date.parse(time), expires: Date.parse(time) } });
      expect(seen.kind === 'present' && seen.value.runs.length).toBe(1000);
    },
  );
});

describe('a list of tasks', () => {
  /** A list of so many tasks, of which the first `heavy` are as large as the queue lets a task be; and what was asked. */
  async function serveList(length: number, heavy: number) {
    const limits: number[] = [];
    const task = (at: number) => ({ taskId: `t${at}`, task: { payload: 'x'.repeat(at < heavy ? 1_000_000 : 1) } });
    const server = await serve((line) => {
      const query = new URL(line.slice('GET '.length), 'http://x').searchParams;
      const start = Number(query.get('continuationToken') ?? 0);
      const limit = Number(query.get('limit'));
      limits.push(limit);
      const tasks = Array.from({ length: Math.min(limit, length - start) }, (_, i) => task(start + i));
      const next = start + limit < length ? { continuationToken: String(start + limit) } : {};
      return { kind: 'says', body: JSON.stringify({ tasks, ...next }) };
    });
    return { server, limits };
  }

  async function collect(queue: TaskQueue): Promise<string[]> {
    const found: string[] = [];
    for await (const page of queue.listPending()) {
      found.push(...page);
    }
    return found;
  }

  it('whose pages are too long is read in smaller ones, and nothing of it is lost', async () => {
    const { server, limits } = await serveList(40, 40);
    const inputs = countInputs();
    expect(await collect(once(server.url, { timeoutMs: 8000, inputs }))).toEqual(
      Array.from({ length: 40 }, (_, i) => `t${i}`),
    );
    expect(limits[0]).toBe(200);
    expect(Math.min(...limits)).toBeGreaterThan(5);
    expect(inputs.counts['rejected queue-answer']).toBeUndefined();
  });

  it('is read in large pages again behind what was too long', async () => {
    const { server, limits } = await serveList(2000, 20);
    expect(await collect(once(server.url, { timeoutMs: 8000 }))).toHaveLength(2000);
    expect(limits.slice(0, 4)).toEqual([200, 50, 13, 26]);
    expect(limits.at(-1)).toBe(200);
    expect(limits.length).toBeLessThan(20);
  });

  it('may take longer to come than other answers', async () => {
    const end = JSON.stringify({ tasks: [{ taskId: 'slow', task: {} }] });
    const server = await serve(() => ({ kind: 'drips', everyMs: 50, times: 20, end }));
    expect(await collect(once(server.url, { timeoutMs: 400 }))).toEqual(['slow']);
  });

  it('that takes too long is not asked for at once again', async () => {
    const server = await serve(() => ({ kind: 'drips', everyMs: 20 }));
    expectTransientAndShort(await failure(collect(clientOf(server.url, { timeoutMs: 100 }))));
    expect(server.calls).toHaveLength(1);
  });

  it('that is too long a task at a time is counted, once', async () => {
    const server = await serve(() => ({ kind: 'endless' }));
    const inputs = countInputs();
    expectTransientAndShort(await failure(collect(once(server.url, { inputs }))));
    expect(server.calls.length).toBeGreaterThan(1);
    expect(inputs.counts['rejected queue-answer']).toBe(1);
  });
});

it('scopes without end are not kept', async () => {
  const scopes = Array.from({ length: 10_000 }, (_, i) => `scope:${i}`);
  const server = await serve(() => ({ kind: 'says', body: JSON.stringify({ scopes }) }));
  const queue = once(server.url);
  await queue.expandScopes(['a']);
  await queue.expandScopes(['a']);
  expect(server.calls).toHaveLength(2);
});
