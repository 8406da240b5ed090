/** Every client of a web server, against servers that answer as no honest one does. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { createBuilders } from '../../src/buildbot/scheduler-db/builders.ts';
import { createSchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { createMasters } from '../../src/buildbot/scheduler-db/masters.ts';
import { createSelfServe } from '../../src/buildbot/scheduler-db/self-serve.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { systemClock } from '../../src/clock.ts';
import { connect } from '../../src/db/connection.ts';
import { BridgeError } from '../../src/errors.ts';
import { MAX_ANSWER } from '../../src/foreign-answer.ts';
import { Secret } from '../../src/secret.ts';
import { countInputs } from '../support/count-inputs.ts';
import { startHalfOpenServer, startHostileServer } from '../support/hostile-server.ts';
import { clientOf } from '../support/queue-client.ts';

/** Long for what is to be cut off by its size, short for what is to end by its time-out. */
const limits = { timeoutMs: 8000, retries: 0 };
const BUILDBOT = 'answers of a Data API, a web status or Self-serve';
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

function rest(url: string, { signsIn = false, inputs = countInputs() } = {}) {
  const session = signsIn ? createSession(url, 'u', new Secret('p'), inputs) : createSession(url);
  const client = createRestClient({ url, session, inputs, ...limits });
  undo.push(() => client.close());
  return { client, session };
}

function web(url: string, inputs = countInputs(), more = {}) {
  const client = createWebStatus({ url, ...more }, { ...limits, inputs });
  undo.push(() => client.close());
  return client;
}

function selfServe(url: string, inputs = countInputs()) {
  const client = createSelfServe(url, systemClock, { ...limits, inputs });
  undo.push(() => client.close());
  return client;
}

/** Each call reads it anew: nothing was ever known. */
function listOfBuilders(url: string, inputs = countInputs()): Promise<ReadonlySet<string>> {
  const database = createSchedulerDb(connect('sqlite::memory:'));
  undo.push(() => database.close());
  const masters = createMasters(undefined);
  return createBuilders({ url, masters, database, clock: systemClock, log: undefined, inputs })('b');
}

type Counted = ReturnType<typeof countInputs>;

const anything = z.object({ wanted: z.string() });
const drain = async (chunks: AsyncGenerator<Buffer>, most = Number.POSITIVE_INFINITY) => {
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > most) {
      return;
    }
  }
};

/** @throws what there is in place of a page that cannot be read */
async function theOne(pages: ReturnType<ReturnType<typeof web>['builds']>): Promise<unknown> {
  const [page] = (await pages).values();
  if (page instanceof Error) {
    throw page;
  }
  return page;
}

/** Calls whose whole answer is held in memory. */
const HELD: Readonly<Record<string, (url: string, inputs?: Counted) => Promise<unknown>>> = {
  'a read of the Data API': (url, inputs) => rest(url, { inputs }).client.get('builds', anything),
  'a control call of the Data API': (url, inputs) => rest(url, { inputs }).client.control('builds/1', 'stop', {}),
  'the sign-in of the Data API': (url, inputs) => rest(url, { signsIn: true, inputs }).session.renew(),
  'builds of a web status': (url, inputs) => theOne(web(url, inputs).builds('b', [1])),
  'builders of a web status': (url, inputs) => web(url, inputs).builders(),
  'a form of a web status': (url, inputs) => web(url, inputs).stopBuild('b', 1, 'why'),
  'the sign-in of a web status': (url, inputs) =>
    web(url, inputs, { username: 'u', password: new Secret('p') }).signIn(),
  'a cancel in Self-serve': (url, inputs) => selfServe(url, inputs).cancelRequest('main', 1),
};
const held = Object.entries(HELD);

const failure = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

describe.each(held)('%s', (_what, call) => {
  it.each([200, 500])('is given up when the answer, with status %i, does not end', async (status) => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'endless', status }));
    undo.push(() => server.stop());
    const inputs = countInputs();
    const error = await failure(call(server.url, inputs));
    expect(error).toBeInstanceOf(BridgeError);
    expect(inputs.counts).toEqual({ 'rejected legacy-ci-answer': 1 });
    // With what lies in the buffers of both ends.
    expect(server.sent()).toBeLessThan(server.calls.length * (MAX_ANSWER + 30_000_000));
  });

  it('is given up when the answer is small only as long as it is packed', async () => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'bomb' }));
    undo.push(() => server.stop());
    expect(String(await failure(call(server.url)))).toContain('longer than');
  });

  it('is given up when the answer is cut short', async () => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'cut' }));
    undo.push(() => server.stop());
    expect(await failure(call(server.url))).toBeInstanceOf(BridgeError);
  });
});

/** Those whose time-out a test can set: all but one sign-in. */
const timed = held.filter(([what]) => what !== 'the sign-in of the Data API');
describe.each(timed)('%s ends in time', (_what, call) => {
  beforeEach(() => {
    limits.timeoutMs = 300;
  });
  afterEach(() => {
    limits.timeoutMs = 8000;
  });

  it('when the answer drips', async () => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'drips', everyMs: 20 }));
    undo.push(() => server.stop());
    const began = Date.now();
    expect(await failure(call(server.url))).toMatchObject({ isTransient: true });
    expect(Date.now() - began).toBeLessThan(8000);
  });

  it('when nothing is answered at all', async () => {
    const server = await startHalfOpenServer();
    undo.push(() => server.stop());
    const began = Date.now();
    expect(await failure(call(server.url))).toMatchObject({ isTransient: true });
    expect(Date.now() - began).toBeLessThan(8000);
  });
});

describe('a log', () => {
  const STREAMS: Readonly<Record<string, (url: string) => AsyncGenerator<Buffer>>> = {
    'of the Data API': (url) => rest(url).client.stream('logs/1/raw'),
    'of a web status': (url) => web(url).logText(`${url}/builders/b/builds/1/steps/s/logs/stdio`),
  };

  it.each(Object.entries(STREAMS))('%s is not read when it is refused', async (_what, open) => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'endless', status: 404 }));
    undo.push(() => server.stop());
    expect(await failure(drain(open(server.url)))).toBeInstanceOf(BridgeError);
    expect(server.sent()).toBeLessThan(30_000_000);
  });

  it.each(Object.entries(STREAMS))('%s is read no further than somebody wants', async (_what, open) => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'endless' }));
    undo.push(() => server.stop());
    await drain(open(server.url), 1_000_000);
    const sent = server.sent();
    expect(sent).toBeLessThan(30_000_000);
  });

  it.each(Object.entries(STREAMS))('%s that is cut off fails typed', async (_what, open) => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'cut' }));
    undo.push(() => server.stop());
    expect(await failure(drain(open(server.url)))).toBeInstanceOf(BridgeError);
  });
});

/** Mozilla's had 40 MB: it may be longer than any other answer. */
describe('the list of builders', () => {
  it('is given up when it does not end', async () => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'endless' }));
    undo.push(() => server.stop());
    const inputs = countInputs();
    expect(String(await failure(listOfBuilders(server.url, inputs)))).toContain('longer than');
    expect(server.calls).toHaveLength(1);
    expect(server.sent()).toBeLessThan(230_000_000);
    expect(inputs.counts).toEqual({ 'rejected legacy-ci-answer': 1 });
  }, 30_000);

  it('that is none, or is cut short, is an error, and what is one has the names that are in it', async () => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'cut' }));
    undo.push(() => server.stop());
    expect(await failure(listOfBuilders(server.url))).toBeInstanceOf(BridgeError);
    for (const body of ['', 'null', '[]', '{"builders":[]}', '{"builders":"b"}', '['.repeat(100_000), '<html>']) {
      server.does = () => ({ kind: 'says', body });
      const error = await failure(listOfBuilders(server.url));
      expect([body.slice(0, 20), error instanceof BridgeError]).toEqual([body.slice(0, 20), true]);
      expect(String(error).length).toBeLessThan(500);
    }
    server.does = () => ({ kind: 'says', body: '{"builders":{"b":null,"__proto__":{"a":1},"constructor":[]}}' });
    expect(await listOfBuilders(server.url)).toContain('b');
    expect(Object.prototype).not.toHaveProperty('a');
  });
});

describe('whoever is told to go elsewhere goes nowhere', () => {
  const all: typeof held = [
    ...held,
    ['the list of builders', listOfBuilders],
    ['a log of the Data API', (url) => drain(rest(url).client.stream('logs/1/raw'))],
    ['a log of a web status', (url) => drain(web(url).logText(`${url}/builders/b/builds/1/steps/s/logs/stdio`))],
    [
      'an upload to a bucket',
      async (url) => {
        const queue = await startHostileServer('answers of the queue or of auth', () => ({
          kind: 'says',
          body: JSON.stringify({ putUrl: `${url}/bucket` }),
        }));
        undo.push(() => queue.stop());
        const artifact = { kind: 'content', name: 'a', contentType: 'text/plain', expires: 0, content: 'x' } as const;
        await clientOf(queue.url).putArtifact('t', 0, artifact);
      },
    ],
  ];

  it.each(all)('%s', async (_what, call) => {
    const elsewhere = await startHostileServer(BUILDBOT, () => ({ kind: 'says', body: '{}' }));
    const server = await startHostileServer(BUILDBOT, () => ({
      kind: 'says',
      status: 302,
      body: '',
      headers: { location: `${elsewhere.url}/latest/meta-data/` },
    }));
    undo.push(
      () => elsewhere.stop(),
      () => server.stop(),
    );
    const error = await failure(call(server.url));
    // A form of a web status is answered so.
    expect(error === undefined || error instanceof BridgeError).toBe(true);
    expect(server.calls.length).toBeGreaterThan(0);
    expect(elsewhere.calls).toEqual([]);
  });
});

it('a refusal that brings its own toString is typed', async () => {
  const body = JSON.stringify({ error: { message: { field: { toString: 1, valueOf: 1 } } } });
  const server = await startHostileServer(BUILDBOT, () => ({ kind: 'says', status: 400, body }));
  undo.push(() => server.stop());
  const work = rest(server.url).client.control('x', 'force', {});
  expect(await failure(work)).toMatchObject({ code: 'legacy-ci-rejected' });
});

it('an artifact is given up when the bucket answers without end', async () => {
  const server = await startHostileServer('answers of the queue or of auth', (line) =>
    line.startsWith('PUT') ? { kind: 'endless' } : { kind: 'says', body: `{"putUrl":"${server.url}/bucket"}` },
  );
  undo.push(() => server.stop());
  const artifact = { kind: 'content', name: 'a', contentType: 'text/plain', expires: 0, content: 'x' } as const;
  const inputs = countInputs();
  const error = await failure(clientOf(server.url, { inputs }).putArtifact('t', 0, artifact));
  expect(error).toMatchObject({ code: 'queue-unavailable', isTransient: true });
  expect(String(error)).toContain('ERR_ANSWER_TOO_LONG');
  // One for each try.
  expect(inputs.counts).toEqual({ 'rejected queue-answer': 4 });
});

it.each([302, 307])('an artifact that the bucket answers with %i is not taken for uploaded', async (status) => {
  const server = await startHostileServer('answers of the queue or of auth', (line) =>
    line.startsWith('PUT')
      ? { kind: 'says', status, body: '', headers: { location: `${server.url}/elsewhere` } }
      : { kind: 'says', body: `{"putUrl":"${server.url}/bucket"}` },
  );
  undo.push(() => server.stop());
  const artifact = { kind: 'content', name: 'a', contentType: 'text/plain', expires: 0, content: 'x' } as const;
  const error = await failure(clientOf(server.url).putArtifact('t', 0, artifact));
  expect(error).toMatchObject({ code: 'queue-unavailable', isTransient: true, context: { statusCode: status } });
  expect(String(error)).toContain(`status ${status}`);
  expect(server.calls.filter((line) => line.includes('elsewhere'))).toEqual([]);
});

describe('whatever a server says', () => {
  const json = fc.oneof(
    { weight: 3, arbitrary: fc.jsonValue({ maxDepth: 4 }).map((value) => JSON.stringify(value)) },
    fc.string({ unit: 'binary' }),
    fc.constantFrom('', 'null', '[]', '{"result":', '<html>no</html>', '['.repeat(100_000), '{"__proto__":{"a":1}}'),
  );
  const status = fc.constantFrom(200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 418);

  it.each(held)('%s succeeds or fails typed', async (_what, call) => {
    const server = await startHostileServer(BUILDBOT, () => ({ kind: 'says', body: '' }));
    undo.push(() => server.stop());
    await fc.assert(
      fc.asyncProperty(json, status, async (body, code) => {
        server.does = () => ({ kind: 'says', body, status: code });
        const error = await failure(call(server.url));
        expect(error === undefined || error instanceof BridgeError).toBe(true);
        expect(String(error).length).toBeLessThan(2000);
      }),
      { numRuns: 60 },
    );
  });
});
