/** For which build requests what a build event tells is kept, and that it is found by each of the bridge's that it serves. */
import { afterEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import slugid from 'slugid';
import type { SchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { startEvents } from '../../src/buildbot/scheduler-db/events.ts';
import { createMasters } from '../../src/buildbot/scheduler-db/masters.ts';
import { parseEvent } from '../../src/buildbot/scheduler-db/messages.ts';
import { ownRequests } from '../../src/buildbot/scheduler-db/own-requests.ts';
import { createRequestReader } from '../../src/buildbot/scheduler-db/requests.ts';
import { connect, migrate } from '../../src/db/connection.ts';
import { createKeptBuilds } from '../../src/db/kept-builds.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import type { KeptBuilds, SubscriptionOptions } from '../../src/ports.ts';
import { aMapping, NOW } from '../support/builders.ts';
import { tried } from '../support/hostile-input.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aBroker } from '../support/stubs.ts';

const STARTED_S = NOW / 1000;
const SUBMITTED = { submitted_at: STARTED_S, complete_at: STARTED_S };
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

const numbers = (first: number, count: number) => Array.from({ length: count }, (_, at) => first + at);

/** Open mappings of tasks that have these requests; null: its id has not been learnt. */
function openMappings(...requests: (number | null)[]) {
  const mappings = requests.map((buildRequestId): Mapping => aMapping({ taskId: slugid.nice(), buildRequestId }));
  const store = {
    ownAmong: async (ids: readonly number[]) =>
      new Set(mappings.flatMap(({ buildRequestId: id }) => (id !== null && ids.includes(id) ? [id] : []))),
    openMapping: async (taskId: string) => mappings.find((one) => one.taskId === taskId),
  };
  const [first] = mappings;
  return {
    taskId: first?.taskId ?? '',
    own: (named: readonly number[], taskId: string | null = null) => ownRequests(store, named, taskId),
  };
}

describe('of the requests that an event names', () => {
  it('each of the bridge’s is told, and nobody else’s', async () => {
    const { own } = openMappings(17, 19, 40);
    expect(await own([16, 17, 18, 19, 20])).toEqual([17, 19]);
    expect(await own([17])).toEqual([17]);
    expect(await own([16, 18])).toEqual([]);
  });

  it('none is told where somebody has built the same again, properties and all', async () => {
    const { own, taskId } = openMappings(17);
    expect(await own([16], taskId)).toEqual([]);
  });

  it('the last ones are told while the id of the task’s own is not known', async () => {
    const { own, taskId } = openMappings(null);
    expect(await own([16], taskId)).toEqual([16]);
    expect(await own(numbers(1, 50), taskId)).toEqual(numbers(41, 10));
    expect(await own([], taskId)).toEqual([]);
  });

  it('the task’s own is told where it may be behind those that are named, or where none is', async () => {
    const { own, taskId } = openMappings(500);
    expect(await own(numbers(1, 100), taskId)).toEqual([500]);
    expect(await own([], taskId)).toEqual([500]);
    expect(await own([], null)).toEqual([]);
  });
});

/** A scheduler database in which one build serves these requests. */
async function merged(requests: readonly number[], kept: KeptBuilds) {
  const db = connect('sqlite::memory:');
  undo.push(() => db.destroy());
  await db.raw(
    'CREATE TABLE buildrequests (id, buildername, complete, results, complete_at, submitted_at, claimed_at, claimed_by_name)',
  );
  await db.raw('CREATE TABLE builds (id, brid, number, start_time, finish_time)');
  for (const id of requests) {
    await db('buildrequests').insert({ id, buildername: 'b', complete: 1, results: 0, ...SUBMITTED });
    await db('builds').insert({ id: 1000 + id, brid: id, number: 7, start_time: STARTED_S, finish_time: STARTED_S });
  }
  const time: unknown = async () => [[{ now: STARTED_S }]];
  // The one thing that SQLite does not know.
  const ownTime = new Proxy(db, { get: (target, key) => (key === 'raw' ? time : Reflect.get(target, key)) });
  const database: SchedulerDb = { run: (_what, work) => work(ownTime), inputs: undefined, close: () => db.destroy() };
  return createRequestReader({
    ...{ database, schema: async () => ({ kind: 'A', limits: new Map() }), masters: createMasters(undefined) },
    ...{ kept, outcomeWaitMs: 600_000, log: undefined },
  });
}

async function openKept(): Promise<{ readonly db: Knex; readonly kept: KeptBuilds }> {
  const db = connect('sqlite::memory:');
  undo.push(() => db.destroy());
  await migrate(db);
  return { db, kept: createKeptBuilds(db) };
}

it('what was kept for one of them is found for each that the build serves', async () => {
  const { kept } = await openKept();
  const reader = await merged([16, 17, 18, 500], kept);
  const build = { number: 7, master: 'm', startedAt: NOW, isFinal: true, properties: {}, logUrl: null, worker: 'w' };
  await kept.keep([{ ...build, buildRequestId: 17 }], NOW);
  const seen = await reader.readMany([16, 17, 18, 500]);
  for (const id of [16, 17, 18, 500]) {
    expect(seen.get(id)).toMatchObject({ kind: 'present', value: { builds: [{ worker: 'w' }] } });
    const row = { id: 1000 + id, brid: id, number: 7, startTime: STARTED_S, finishTime: null };
    const request = { id, builder: 'b', isComplete: false, results: null, completeAt: null, claimedAt: null };
    const found = await reader.keptOf({ ...request, claimedBy: null, submittedAt: 1 }, row);
    expect(found).toMatchObject({ buildRequestId: 17, worker: 'w' });
  }
});

it('what was kept last counts, also where it was kept for another of them than before', async () => {
  const { kept } = await openKept();
  const reader = await merged([16, 17], kept);
  const build = { number: 7, master: 'm', startedAt: NOW, properties: {}, logUrl: null };
  await kept.keep([{ ...build, isFinal: false, worker: 'first', buildRequestId: 16 }], NOW);
  await kept.keep([{ ...build, isFinal: true, worker: 'last', buildRequestId: 17 }], NOW);
  const seen = await reader.readMany([16, 17]);
  for (const id of [16, 17]) {
    expect(seen.get(id)).toMatchObject({ kind: 'present', value: { builds: [{ worker: 'last' }] } });
  }
});

it('is kept for these, and all that are named are looked up, since one may be of a task that does not know it yet', async () => {
  const { kept } = await openKept();
  const { own } = openMappings(17);
  const hints: number[] = [];
  let subscription: SubscriptionOptions | undefined;
  const events = await startEvents({
    broker: aBroker((options) => {
      subscription = options;
    }),
    ...{ exchange: 'exchange/build/', kept, ownRequests: own, onHint: (id) => hints.push(id), onGap: () => undefined },
    ...{ clock: createManualClock(NOW), retentionMs: 1000, log: undefined },
  });
  undo.push(events.stop);
  const body = Buffer.from(JSON.stringify({ payload: { build: { number: 7 }, request_ids: [16, 17, 18] } }));
  await subscription?.onMessage({
    ...{ exchange: 'exchange/build/', routingKey: 'build.b.7.finished', isRedelivered: false },
    body,
  });
  expect(hints).toEqual([16, 17, 18]);
  expect((await kept.of([16, 17, 18])).map(({ buildRequestId }) => buildRequestId)).toEqual([17]);
});

it('an event of 3 MB is kept in no more than a few times as many bytes', async () => {
  tried('build events');
  const { db, kept } = await openKept();
  const { own } = openMappings(3, 7);
  const properties = numbers(0, 11).map((at) => [`p${at}`, '中'.repeat(90_000), 's']);
  const payload = {
    build: { number: 7, properties: [...properties, ['small', '中', 's']] },
    request_ids: numbers(1, 20),
  };
  const event = parseEvent('build.b.7.finished', Buffer.from(JSON.stringify({ payload })));
  if (event.kind !== 'event' || event.build === undefined) {
    throw new Error('it can be read');
  }
  const { build } = event;
  const ids = await own(event.buildRequestIds);
  await kept.keep(
    ids.map((buildRequestId) => ({ ...build, buildRequestId })),
    NOW,
  );
  const rows: { id: number; size: number }[] = await db('kept_builds')
    .orderBy('build_request_id')
    .select({ id: 'build_request_id', size: db.raw('LENGTH(properties)') });
  expect(rows.map(({ id }) => id)).toEqual([3, 7]);
  expect(rows.every(({ size }) => size < 1_000_000)).toBe(true);
  const [found] = await kept.of([3]);
  expect((await kept.whole(found?.id ?? 0))?.properties).toEqual({ small: ['中', 's'] });
});
