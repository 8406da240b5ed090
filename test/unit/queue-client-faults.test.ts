/** The queue client when the queue, or what stands before it, does not answer as it should. */
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { describeError } from '../../src/errors.ts';
import type { TaskQueue } from '../../src/ports.ts';
import { eventually } from '../support/eventually.ts';
import {
  clientOf,
  type FakeAnswer,
  type FakeRequest,
  type FakeServer,
  startFakeServer,
} from '../support/queue-client.ts';
import { createManualClock, newTaskId } from '../support/queue-emulator.ts';

const TIME = '2026-11-23T21:00:00.000Z';
function statusOf(taskId: string, runs: readonly object[] = []) {
  const identity = { taskId, taskQueueId: 'buildbot/bridge', schedulerId: 's', taskGroupId: taskId, priority: 'low' };
  return { ...identity, deadline: TIME, expires: '2026-11-24T21:00:00+00:00', retriesLeft: 5, state: 'pending', runs };
}
const run = (changes: object) => ({
  runId: 0,
  state: 'pending',
  reasonCreated: 'scheduled',
  scheduled: TIME,
  ...changes,
});
const NO_ROUTE = { status: 404, body: { error: 'Not found' } };

let server: FakeServer;
let answer: (request: FakeRequest) => FakeAnswer | undefined;
beforeEach(async () => {
  server = await startFakeServer((request) => answer(request));
});
afterEach(() => server.stop());

const errorOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );
const isUnavailable = (message: RegExp) =>
  expect.objectContaining({ code: 'queue-unavailable', isTransient: true, message: expect.stringMatching(message) });

describe('a call that fails on the way', () => {
  it('is repeated when the answer is 5xx', async () => {
    let left = 2;
    answer = () =>
      left-- > 0 ? { status: 502, body: 'bad gateway', contentType: 'text/html' } : { body: { status: statusOf('t') } };
    expect(await clientOf(server.url).status('t')).toMatchObject({ kind: 'present', value: { taskId: 't' } });
    expect(server.requests).toHaveLength(3);
  });

  it('is one that cannot be read where a run that is claimed is not so until any time', async () => {
    answer = () => ({ body: { status: statusOf('t', [run({ state: 'running' })]) } });
    const seen = await clientOf(server.url).status('t');
    expect(seen).toMatchObject({ kind: 'unreadable', error: { message: expect.stringMatching(/takenUntil/) } });
  });

  it('is given up after two repeats', async () => {
    answer = () => ({ status: 503 });
    const error = await errorOf(clientOf(server.url).claim('t', 0));
    expect(error).toEqual(isUnavailable(/^claimTask: /));
    expect(error).toMatchObject({ context: { taskId: 't', runId: 0, statusCode: 503 } });
    expect(server.requests).toHaveLength(3);
  });

  it('ends by its time-out when no answer comes', async () => {
    answer = () => undefined;
    const started = Date.now();
    const error = await errorOf(clientOf(server.url, { timeoutMs: 100, retries: 1 }).reclaim('t', 0));
    expect(error).toEqual(isUnavailable(/^reclaimTask: no answer/));
    expect(describeError(error)).toMatch(/100 ?ms/);
    expect(Date.now() - started).toBeLessThan(5000);
    expect(server.requests).toHaveLength(2);
  });

  it('says that nothing listens there', async () => {
    await server.stop();
    const error = await errorOf(clientOf(server.url, { retries: 0 }).rerunTask('t'));
    expect(error).toEqual(isUnavailable(/^rerunTask: no answer/));
    expect(describeError(error)).toContain('ECONNREFUSED');
  });

  it.each([
    ['cancelTask', (queue: TaskQueue) => queue.cancelTask('t')],
    ['rerunTask', (queue: TaskQueue) => queue.rerunTask('t')],
  ])('is not repeated where it would hit another run: %s', async (_what, call) => {
    answer = () => ({ status: 502 });
    expect(await errorOf(call(clientOf(server.url)))).toEqual(isUnavailable(/./));
    answer = () => undefined;
    expect(await errorOf(call(clientOf(server.url, { timeoutMs: 100 })))).toEqual(isUnavailable(/no answer/));
    expect(server.requests).toHaveLength(2);
  });

  it.each([408, 425, 429])('is not repeated at once when the answer is %i, and may be tried later', async (status) => {
    answer = () => ({ status });
    expect(await errorOf(clientOf(server.url).claim('t', 0))).toEqual(isUnavailable(/./));
    expect(server.requests).toHaveLength(1);
  });

  it('does not take the request with its credentials along in the error', async () => {
    await server.stop();
    const error = await errorOf(clientOf(server.url, { retries: 0 }).rerunTask('t'));
    expect(error).toMatchObject({ cause: { code: 'ECONNREFUSED' } });
    expect(inspect(error, { depth: 10 })).not.toMatch(/hawk|authorization/i);
  });
});

describe('what is not the queue’s own answer', () => {
  it.each([
    ['a page with a 404', { status: 404, body: '<html>', contentType: 'text/html' }],
    ['a service without the route', NO_ROUTE],
    ['a page with a 200', { body: '<html>maintenance', contentType: 'text/html' }],
    ['a redirect', { status: 302, body: 'elsewhere', contentType: 'text/html' }],
  ])('never makes a task absent: %s', async (_what, given) => {
    answer = () => given;
    const client = clientOf(server.url);
    expect(await client.status('t')).toEqual({ kind: 'unreadable', error: isUnavailable(/./) });
    expect((await client.statuses(['t'])).get('t')).toEqual({ kind: 'unreadable', error: isUnavailable(/./) });
    expect(await client.task('t')).toEqual({ kind: 'unreadable', error: isUnavailable(/./) });
  });

  it.each([400, 405, 409, 421])('refuses nothing for good: a page with a %d', async (status) => {
    answer = () => ({ status, body: '<html>maintenance', contentType: 'text/html' });
    const client = clientOf(server.url);
    expect(await errorOf(client.claim('t', 0))).toEqual(isUnavailable(/^claimTask: /));
    const type = { kind: 'content', contentType: 'text/plain', expires: Date.parse(TIME), content: 'x' } as const;
    expect(await errorOf(client.putArtifact('t', 0, { ...type, name: 'a' }))).toEqual(isUnavailable(/./));
  });

  it('is absent only when the queue says so', async () => {
    answer = () => ({ status: 404, body: { code: 'ResourceNotFound', message: 'no such task' } });
    expect(await clientOf(server.url).status('t')).toEqual({ kind: 'absent' });
  });
});

describe('an answer', () => {
  it('may have times in either spelling', async () => {
    const takenUntil = '2026-11-23T22:20:00.5+01:00';
    answer = () => ({ body: { status: statusOf('t', [run({ state: 'running', takenUntil })]) } });
    expect(await clientOf(server.url).status('t')).toMatchObject({
      value: {
        deadline: Date.UTC(2026, 10, 23, 21),
        expires: Date.UTC(2026, 10, 24, 21),
        runs: [{ takenUntil: Date.UTC(2026, 10, 23, 21, 20, 0, 500) }],
      },
    });
  });

  it('may have a priority of old, which is the lowest', async () => {
    answer = () => ({ body: { status: { ...statusOf('t'), priority: 'normal' } } });
    expect(await clientOf(server.url).status('t')).toMatchObject({ value: { priority: 'lowest' } });
  });

  it('may have reasons that nobody has heard of', async () => {
    const news = { state: 'exception', reasonCreated: 'whim', reasonResolved: 'moonphase' };
    answer = () => ({ body: { status: statusOf('t', [run(news)]) } });
    expect(await clientOf(server.url).status('t')).toMatchObject({ kind: 'present', value: { runs: [news] } });
  });

  it('with an unknown run state is unreadable, and the error names it', async () => {
    answer = () => ({ body: { status: statusOf('t', [run({ state: 'paused' })]) } });
    expect(await clientOf(server.url).status('t')).toEqual({
      kind: 'unreadable',
      error: expect.objectContaining({ code: 'queue-invalid', message: expect.stringContaining('runs[0].state') }),
    });
  });

  it('of which one status is unreadable leaves the others readable', async () => {
    const statuses = [statusOf('good'), statusOf('bad', [run({ state: 'paused' })])];
    answer = () => ({ body: { statuses: statuses.map((status) => ({ taskId: status.taskId, status })) } });
    const all = await clientOf(server.url).statuses(['good', 'bad', 'gone']);
    expect([...all].map(([taskId, { kind }]) => [taskId, kind])).toEqual([
      ['good', 'present'],
      ['bad', 'unreadable'],
      ['gone', 'absent'],
    ]);
  });
});

describe('statuses', () => {
  it('ends a list whose next page is always the same', async () => {
    answer = () => ({ body: { tasks: [{ taskId: 'a' }], continuationToken: 'same' } });
    const pages: (readonly string[])[] = [];
    for await (const page of clientOf(server.url).listPending()) {
      pages.push(page);
    }
    expect(pages).toEqual([['a'], ['a']]);
  });

  it('come in pages', async () => {
    answer = ({ url }) => {
      const taskId = url.includes('continuationToken=next') ? 'b' : 'a';
      const status = { taskId, status: statusOf(taskId) };
      return { body: { statuses: [status], ...(taskId === 'a' ? { continuationToken: 'next' } : {}) } };
    };
    const all = await clientOf(server.url).statuses(['a', 'b', 'c']);
    expect([...all].map(([taskId, { kind }]) => `${taskId} ${kind}`)).toEqual(['a present', 'b present', 'c absent']);
    expect(server.requests).toHaveLength(2);
  });

  it('are read one by one where the batch is unknown, which is asked for again later', async () => {
    const clock = createManualClock(0);
    const taskIds = Array.from({ length: 20 }, newTaskId);
    answer = ({ url }) => {
      const taskId = /task\/([^/]+)\/status/.exec(url)?.[1];
      return taskId === undefined ? NO_ROUTE : { body: { status: statusOf(taskId) } };
    };
    const client = clientOf(server.url, { clock });
    const batches = () => server.requests.filter(({ method }) => method === 'POST').length;
    expect([...(await client.statuses(taskIds)).values()].every(({ kind }) => kind === 'present')).toBe(true);
    await client.statuses(taskIds);
    expect(server.requests).toHaveLength(41);
    expect(batches()).toBe(1);
    clock.advance(10 * 60_000);
    await client.statuses(taskIds);
    expect(batches()).toBe(2);
  });

  it('are given up, one by one, where the queue is away', async () => {
    const taskIds = Array.from({ length: 100 }, newTaskId);
    const known = new Set(taskIds.slice(0, 20));
    answer = ({ url }) => {
      const taskId = /task\/([^/]+)\/status/.exec(url)?.[1];
      if (taskId === undefined) {
        return NO_ROUTE;
      }
      return known.has(taskId) ? { body: { status: statusOf(taskId) } } : { status: 503 };
    };
    const all = await clientOf(server.url, { retries: 0 }).statuses(taskIds);
    const kinds = taskIds.map((taskId) => all.get(taskId)?.kind);
    expect(kinds).toEqual([...Array(20).fill('present'), ...Array(80).fill('unreadable')]);
    // A few times as many as are asked for at a time.
    expect(server.requests.length).toBeLessThan(1 + 20 + 4 * 8);
  });
});

describe('connections', () => {
  it('are kept and used again', async () => {
    answer = () => ({ body: { status: statusOf('t') } });
    const client = clientOf(server.url);
    for (let i = 0; i < 10; i += 1) {
      await client.status('t');
    }
    expect(server.connections()).toBe(1);
  });

  it('are no more than allowed at once', async () => {
    answer = () => ({ body: { status: statusOf('t') } });
    const client = clientOf(server.url, { maxSockets: 3 });
    await Promise.all(Array.from({ length: 30 }, () => client.status('t')));
    expect(server.requests).toHaveLength(30);
    expect(server.connections()).toBe(3);
  });

  it('are there for an upload, whatever of others hangs', async () => {
    answer = ({ method, url }) => {
      if (url.includes('hung')) {
        return undefined;
      }
      return method === 'PUT' ? {} : { body: { storageType: 's3', putUrl: `${server.url}/${bucketOf(url)}` } };
    };
    const bucketOf = (url: string) => (url.includes('swallowed') ? 'hung' : 'bucket');
    const client = clientOf(server.url, { maxSockets: 3 });
    const stop = new AbortController();
    const type = { kind: 'content', contentType: 'text/plain', expires: Date.parse(TIME), content: 'x' } as const;
    const put = (name: string) => client.putArtifact('t', 0, { ...type, name }, stop.signal);
    const hung = Array.from({ length: 40 }, (_, i) => errorOf(put(i % 2 === 0 ? `hung${i}` : `swallowed${i}`)));
    await eventually(() => server.requests.length === 60, { what: 'all of them to hang' });
    await put('good');
    expect(server.requests.at(-1)).toMatchObject({ method: 'PUT', url: '/bucket' });
    // Nor does a claim wait for them.
    answer = () => ({ body: { status: statusOf('t') } });
    await client.status('t');
    stop.abort();
    await server.stop();
    await Promise.all(hung);
  });
});

describe('expanded scopes', () => {
  it('are kept by set, whatever the order, and not without bound', async () => {
    answer = ({ body }) => ({ body: JSON.parse(body.toString()) });
    const client = clientOf(server.url);
    await client.expandScopes(['a', 'b']);
    await client.expandScopes(['b', 'a']);
    expect(server.requests).toHaveLength(1);
    await Promise.all(Array.from({ length: 1000 }, (_, i) => client.expandScopes([`s${i}`])));
    await client.expandScopes(['a', 'b']);
    expect(server.requests).toHaveLength(1002);
  });
});
