/** The properties of a build have the same bounds whichever way they come, and are told whole or not at all. */
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { readOutcome as ofDataApi } from '../../src/buildbot/data-api/outcome.ts';
import type { RestClient } from '../../src/buildbot/data-api/rest-client.ts';
import type { SchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { parseEvent } from '../../src/buildbot/scheduler-db/messages.ts';
import { readOutcome as ofSchedulerDb } from '../../src/buildbot/scheduler-db/outcome.ts';
import { createWebStatus, type WebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { connect } from '../../src/db/connection.ts';
import type { KeptBuild } from '../../src/domain/kept-build.ts';
import type { Artifact, Outcome } from '../../src/ports.ts';
import { PROPERTIES, STATUS, uploadOutcome } from '../../src/reflector/upload.ts';
import { aBuild, NOW, requestComplete, TASK_ID } from '../support/builders.ts';
import { countInputs } from '../support/count-inputs.ts';
import { type Misbehaviour, startHostileServer } from '../support/hostile-server.ts';
import { aLegacyCi, anEffort, aQueue } from '../support/stubs.ts';

type Given = readonly (readonly [name: string, value: unknown, source: string])[];
interface Told {
  readonly properties: Outcome['properties'];
  readonly leftOut: readonly unknown[];
}

const STARTED_S = NOW / 1000;
const BUILD = aBuild('SUCCESS', { buildId: 5, number: 7 });
const REQUEST = requestComplete('SUCCESS', BUILD);
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

let lines: { msg: string; what?: readonly unknown[] }[];
let inputs: ReturnType<typeof countInputs>;
const context = () => ({ inputs, log: pino({}, { write: (line: string) => void lines.push(JSON.parse(line)) }) });
beforeEach(() => {
  lines = [];
  inputs = countInputs();
});

/** What was left out is one line of the log, and counts once. */
async function told(outcome: Promise<Outcome>): Promise<Told> {
  const { properties } = await outcome;
  expect(inputs.counts).toEqual(lines.length === 0 ? {} : { 'rejected legacy-ci-answer': 1 });
  expect(lines.length).toBeLessThanOrEqual(1);
  return { properties, leftOut: lines[0]?.what ?? [] };
}

async function ofDataApiAnswer(given: Given): Promise<Told> {
  const body = { properties: [Object.fromEntries(given.map(([name, ...pair]) => [name, pair]))] };
  const rest: Pick<RestClient, 'get'> = { get: async (_path, answer) => answer.parse(body) };
  return told(ofDataApi(rest as RestClient, REQUEST, context()));
}

async function ofScheduler(page: WebStatus | undefined, requested: Given = []): Promise<Told> {
  return told(outcomeOf(page, requested));
}

async function outcomeOf(page: WebStatus | undefined, requested: Given, kept?: KeptBuild): Promise<Outcome> {
  const db = connect('sqlite::memory:');
  undo.push(() => db.destroy());
  const columns =
    'id, buildsetid, buildername, complete, results, complete_at, submitted_at, claimed_at, claimed_by_name';
  await db.raw(`CREATE TABLE buildrequests (${columns})`);
  await db.raw('CREATE TABLE builds (id, brid, number, start_time, finish_time)');
  await db.raw('CREATE TABLE buildset_properties (buildsetid, property_name, property_value)');
  const { buildRequestId: id } = REQUEST;
  await db('buildrequests').insert({ id, buildsetid: 3, buildername: 'b', complete: 1, results: 0, submitted_at: 1 });
  await db('builds').insert({ id: 5, brid: id, number: 7, start_time: STARTED_S });
  for (const [name, ...pair] of requested) {
    await db('buildset_properties').insert({
      ...{ buildsetid: 3, property_name: name, property_value: JSON.stringify(pair) },
    });
  }
  const time: unknown = async () => [[{ now: STARTED_S }]];
  // The one thing that SQLite does not know.
  const ownTime = new Proxy(db, { get: (target, key) => (key === 'raw' ? time : Reflect.get(target, key)) });
  const database: SchedulerDb = { run: (_what, work) => work(ownTime), inputs, close: () => db.destroy() };
  const masters = { all: page === undefined ? [] : [page], of: () => undefined };
  const never = () => Promise.reject(new Error('not expected'));
  const reader = { keptOf: async () => kept, readMany: never, findByExternalId: never };
  const schema = async () => ({ kind: 'A' as const, limits: new Map() });
  return ofSchedulerDb({ database, schema, masters, reader, ...context() }, REQUEST);
}

async function ofWebStatus(given: Given): Promise<Told> {
  const server = await startHostileServer('answers of a Data API, a web status or Self-serve', () => ({
    kind: 'says',
    body: JSON.stringify({ 7: { number: 7, times: [STARTED_S, null], properties: given } }),
  }));
  const page = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(
    () => server.stop(),
    () => page.close(),
  );
  return ofScheduler(page);
}

async function ofEvent(given: Given): Promise<Told> {
  const body = JSON.stringify({ payload: { build: { number: 7, properties: given } } });
  const parsed = parseEvent('build.b.7.finished', Buffer.from(body));
  return parsed.kind === 'event'
    ? { properties: parsed.build?.properties ?? {}, leftOut: parsed.leftOut }
    : { properties: {}, leftOut: [parsed.kind] };
}

describe.each([
  ['the Data API', ofDataApiAnswer],
  ['a web status', ofWebStatus],
  ['a build event', ofEvent],
  ['what was asked for', (given: Given) => ofScheduler(undefined, given)],
])('properties from %s', (_what, tell) => {
  it('are told as they are', async () => {
    const value = { list: [1, null, 'é中\u{1f600}'] };
    expect(await tell([['a', value, 'Build']])).toEqual({ properties: { a: [value, 'Build'] }, leftOut: [] });
  });

  it('are left out where one is too large', async () => {
    const { properties, leftOut } = await tell([
      ['huge', 'x'.repeat(100_000), 's'],
      ['small', 'x', 's'],
    ]);
    expect([Object.keys(properties), leftOut]).toEqual([['small'], ['huge']]);
  });

  it('are measured by the bytes that they are stored in', async () => {
    const { properties, leftOut } = await tell([
      ['many bytes', '中'.repeat(17_000), 's'],
      ['few', '中'.repeat(16_000), 's'],
    ]);
    expect([Object.keys(properties), leftOut]).toEqual([['few'], ['many bytes']]);
  });

  it('are left out where all together are too large', async () => {
    const given = Array.from({ length: 20 }, (_, at) => [`p${at}`, 'x'.repeat(90_000), 's'] as const);
    const { properties, leftOut } = await tell(given);
    expect(Object.keys(properties)).toHaveLength(11);
    expect(leftOut.length).toBeGreaterThan(0);
  });
});

it('do not wait for a master that is away where an event has told of them; the log does', async () => {
  const away: Misbehaviour = { kind: 'says', status: 404, body: 'default backend' };
  const server = await startHostileServer('answers of a Data API, a web status or Self-serve', () => away);
  const page = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(
    () => server.stop(),
    () => page.close(),
  );
  const kept = {
    ...{ buildRequestId: REQUEST.buildRequestId, number: 7, master: 'm', startedAt: NOW, logUrl: null, worker: null },
    ...{ isFinal: true, properties: { a: ['b', 'Build'] } as const },
  };
  const { properties, log } = await outcomeOf(page, [], kept);
  expect(properties).toEqual({ a: ['b', 'Build'] });
  const error = { code: 'legacy-ci-unavailable', isTransient: true };
  await expect(log.kind === 'stream' ? log.open() : undefined).rejects.toMatchObject(error);
  await expect(outcomeOf(page, [], { ...kept, isFinal: false })).rejects.toMatchObject(error);
});

it('and the log of a classic master that was not told its own URL are read all the same', async () => {
  const step = { name: 'un tar', step_number: 0, logs: [['stdio', null]] };
  const given = { number: 7, times: [STARTED_S, null], properties: [['a', 'b', 'Build']], steps: [step] };
  const path = `/builders/${REQUEST.builder}/builds/7/steps/un%20tar/logs/stdio/text`;
  const server = await startHostileServer('answers of a Data API, a web status or Self-serve', (line) => ({
    kind: 'says',
    body: line === `GET ${path}` ? 'all is well' : JSON.stringify({ 7: given }),
  }));
  const page = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(
    () => server.stop(),
    () => page.close(),
  );
  const { properties, log } = await outcomeOf(page, []);
  expect(properties).toEqual({ a: ['b', 'Build'] });
  expect(log.kind === 'stream' && (await text(await log.open()))).toContain('all is well');
});

it('what is nested deep is not made longer by being uploaded', async () => {
  const nested: unknown = JSON.parse(
    `${'['.repeat(99)}${Array.from({ length: 9000 }, () => 1).join()}${']'.repeat(99)}`,
  );
  const properties: Outcome['properties'] = { deep: [nested, 'Build'], empty: ['', ''] };
  const put = new Map<string, string>();
  const queue = aQueue({
    async putArtifact(_taskId, _runId, artifact: Artifact) {
      put.set(artifact.name, artifact.kind === 'content' ? String(artifact.content) : '');
    },
  });
  const ci = aLegacyCi({ outcome: async () => ({ properties, log: { kind: 'none' } }) });
  const target = { taskId: TASK_ID, runId: 0, builder: 'b', expires: NOW, resolution: { state: 'completed' } as const };
  const log = pino({ level: 'silent' });
  await uploadOutcome({ queue, ci, log, tempDir: '/nowhere', maxLogSize: 1 }, target, REQUEST, anEffort(false));
  const text = put.get(PROPERTIES) ?? '';
  expect(JSON.parse(text)).toEqual(properties);
  expect(text.length).toBeLessThan(JSON.stringify(properties).length + 100);
  // A line for each, for people.
  expect(text.split('\n')).toHaveLength(5);
  expect(JSON.parse(put.get(STATUS) ?? '')).toMatchObject({ version: 1, resultName: 'SUCCESS' });
});
