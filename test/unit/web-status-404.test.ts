/** A 404 in front of a classic master: ingresses answer so while a backend is replaced, and nothing is concluded of it. */
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from '@jest/globals';
import { createStoppedReader } from '../../src/buildbot/scheduler-db/stopped.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { LegacyCiError, toError } from '../../src/errors.ts';
import { type HostileServer, type Misbehaviour, startHostileServer } from '../support/hostile-server.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

const WEB_STATUS = 'answers of a Data API, a web status or Self-serve';
const NOT_FOUND: Misbehaviour = { kind: 'says', status: 404, body: '<title>404 - No Such Resource</title>' };
const says = (value: unknown): Misbehaviour => ({ kind: 'says', body: JSON.stringify(value) });

/** A master, or what stands before it, that answers 404 to everything but the list of its builders. */
async function behind(list: Misbehaviour) {
  const server = await startHostileServer(WEB_STATUS, (line) => (line === 'GET /json/builders' ? list : NOT_FOUND));
  undo.push(() => server.stop());
  const master = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(() => master.close());
  return { server, master };
}

const AWAY = { code: 'legacy-ci-unavailable', isTransient: true };

describe.each<[string, Misbehaviour]>([
  ['by a master that is away', NOT_FOUND],
  ['by a master that has the builder', says({ b: {} })],
  ['by a master that has no builders yet', says({})],
  ['by a page with status 200', { kind: 'says', body: '<html>back soon</html>' }],
])('a 404 that is followed %s', (what, list) => {
  const error = what.endsWith('200') ? { code: 'legacy-ci-protocol', isTransient: true } : AWAY;

  it('tells nothing of builds', async () => {
    const { master } = await behind(list);
    const told = master.builds('b', [5]).then((found) => found.get(5), toError);
    expect(await told).toMatchObject(error);
  });

  it('tells of no builder that it is not there', async () => {
    const { master } = await behind(list);
    await expect(master.cancelRequest('b', 9)).rejects.toMatchObject(error);
  });
});

describe('a 404 of a master that has other builders', () => {
  it('tells that it has no such builds', async () => {
    const { master } = await behind(says({ other: {} }));
    expect(await master.builds('b', [5])).toEqual(new Map());
  });

  it('tells that it has no such builder', async () => {
    const { master } = await behind(says({ other: {} }));
    expect(await master.cancelRequest('b', 9)).toBe(false);
  });
});

it('a build that is to be stopped is not taken for stopped by a 404', async () => {
  const { master } = await behind(says({ b: {} }));
  await expect(master.stopBuild('b', 5, 'why')).rejects.toMatchObject(AWAY);
});

it('a person’s stop is learnt when the master is back', async () => {
  const { server, master } = await behind(NOT_FOUND);
  const read = createStoppedReader({ all: [master], of: () => master }, undefined);
  const build = { id: 1, brid: 9, number: 5, startTime: 1000, finishTime: 1100 };
  const request = {
    id: 9,
    builder: 'b',
    claimedAt: 1000,
    claimedBy: 'm',
    isComplete: true,
    results: 4,
    submittedAt: 900,
  };
  const suspects = [{ build, request: { ...request, completeAt: 1100 } }];
  expect(await read(suspects)).toEqual({ builds: new Set(), unknown: new Set([1]) });
  comesBack(server);
  expect(await read(suspects)).toEqual({ builds: new Set([1]), unknown: new Set() });
});

function comesBack(server: HostileServer): void {
  server.does = () => says({ 5: { number: 5, times: [1000, 1100], text: ['exception', 'interrupted'] } });
}

it('very many builds are asked for in several calls', async () => {
  const server = await startHostileServer(WEB_STATUS, (line) => {
    const numbers = new URL(line.slice('GET '.length), 'http://x').searchParams.getAll('select');
    return says(Object.fromEntries(numbers.map((number) => [number, { number: Number(number) }])));
  });
  undo.push(() => server.stop());
  const master = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(() => master.close());
  const numbers = Array.from({ length: 250 }, (_, at) => 1_000_000 + at);
  expect([...(await master.builds('b', numbers)).keys()]).toEqual(numbers);
  expect(server.calls).toHaveLength(3);
  expect(Math.max(...server.calls.map((line) => line.length))).toBeLessThan(2000);
});

describe.each<[string, Misbehaviour]>([
  ['is too large', { kind: 'says', body: `{"5":{"number":5,"text":["${'x'.repeat(16_100_000)}"]}}` }],
  ['is no JSON', { kind: 'says', body: '{"5":{"number":5,"text":[' }],
])('a page that %s', (_what, bad) => {
  const numbersOf = (line: string) => new URL(line.slice('GET '.length), 'http://x').searchParams.getAll('select');

  it('keeps none of the others from being read', async () => {
    const server = await startHostileServer(WEB_STATUS, (line) => {
      const numbers = numbersOf(line);
      return numbers.includes('5') ? bad : says(Object.fromEntries(numbers.map((n) => [n, { number: Number(n) }])));
    });
    undo.push(() => server.stop());
    const master = createWebStatus({ url: server.url }, { retries: 0 });
    undo.push(() => master.close());
    const numbers = Array.from({ length: 100 }, (_, at) => at);
    const found = await master.builds('b', numbers);
    expect(numbers.filter((number) => found.get(number) instanceof LegacyCiError)).toEqual([5]);
    expect(found.size).toBe(100);
    expect(server.calls.length).toBeLessThan(20);
  });
});

it('a master in whose place nothing that can be read comes is not asked for each page by itself', async () => {
  const server = await startHostileServer(WEB_STATUS, () => ({ kind: 'says', body: '<html>back soon</html>' }));
  undo.push(() => server.stop());
  const master = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(() => master.close());
  const numbers = Array.from({ length: 100 }, (_, at) => at);
  const found = await master.builds('b', numbers);
  expect([...found.values()].every((page) => page instanceof LegacyCiError)).toBe(true);
  expect(found.size).toBe(100);
  expect(server.calls.length).toBeLessThan(60);
});

it('of builds whose pages cannot be read, others’ stops are learnt', async () => {
  const { server, master } = await behind(NOT_FOUND);
  server.does = (line) =>
    line.includes('select=6')
      ? { kind: 'says', body: 'not JSON' }
      : says({ 5: { number: 5, times: [1000, 1100], text: ['exception', 'interrupted'] } });
  const read = createStoppedReader({ all: [master], of: () => master }, undefined);
  const build = { id: 1, brid: 9, number: 5, startTime: 1000, finishTime: 1100 };
  const times = { claimedAt: 1000, submittedAt: 900, completeAt: 1100 };
  const request = { id: 9, builder: 'b', claimedBy: 'm', isComplete: true, results: 4, ...times };
  const suspects = [
    { build, request },
    { build: { ...build, id: 2, number: 6 }, request },
  ];
  expect(await read(suspects)).toEqual({ builds: new Set([1]), unknown: new Set([2]) });
});

describe('a log that is not found as text', () => {
  const LOGS = '/builders/b/builds/5/steps/shell/logs';
  const PAGE = 'GET /json/builders/b/builds/5';

  async function read(answers: Readonly<Record<string, Misbehaviour>>): Promise<string> {
    const server = await startHostileServer(WEB_STATUS, (line) => answers[line] ?? NOT_FOUND);
    undo.push(() => server.stop());
    const master = createWebStatus({ url: server.url }, { retries: 0 });
    undo.push(() => master.close());
    return text(master.logText(`${server.url}${LOGS}/err.html`));
  }

  it('is read as HTML, as the traceback of each step that breaks in the master', async () => {
    const html: Misbehaviour = { kind: 'says', body: '<b>KeyError</b>' };
    expect(await read({ [PAGE]: says({ number: 5 }), [`GET ${LOGS}/err.html`]: html })).toBe('<b>KeyError</b>');
  });

  it('nor otherwise is a note, where the master has the build’s page', async () => {
    expect(await read({ [PAGE]: says({ number: 5 }) })).toBe('(the master does not have this log any more)\n');
  });

  it('at first, but once the master is there, is read as that', async () => {
    let isAway = true;
    const server = await startHostileServer(WEB_STATUS, (line) => {
      const was = isAway;
      isAway = false;
      return was ? NOT_FOUND : line === PAGE ? says({ number: 5 }) : { kind: 'says', body: line };
    });
    undo.push(() => server.stop());
    const master = createWebStatus({ url: server.url }, { retries: 0 });
    undo.push(() => master.close());
    expect(await text(master.logText(`${server.url}${LOGS}/stdio`))).toBe(`GET ${LOGS}/stdio/text`);
  });

  it('nor otherwise is waited for, where the master may be away', async () => {
    await expect(read({})).rejects.toMatchObject(AWAY);
  });
});
