/** The emulated fork of 0.8.2, of which there is no recording: what is known of its rows, event by event. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/eventually.ts';
import { createHistory, type History } from './sandbox-classic-history.ts';
import { type Classic, createMovableClock, MASTER, NEVER_MS, startClassic } from './sandbox-classic-support.ts';

const BUILDERS = [
  { name: 'ok', workers: ['w1'], attempts: [{ results: 0, durationMs: 20 }] },
  {
    name: 'retry',
    workers: ['w1'],
    attempts: [
      { results: 5, durationMs: 20 },
      { results: 1, durationMs: 20 },
    ],
  },
  { name: 'slow', workers: ['w1'], attempts: [{ results: 0, durationMs: 'wait' as const }] },
  { name: 'noslave', workers: [], attempts: [{ results: 0, durationMs: 20 }] },
];
const TIME = expect.any(Number);
const UNCLAIMED = { claimed_at: 0, claimed_by_name: null, claimed_by_incarnation: null };
const CLAIMED = {
  claimed_at: TIME,
  claimed_by_name: MASTER,
  claimed_by_incarnation: expect.stringMatching(/^pid\d+-boot\d+$/),
};
const PENDING = { complete: 0, results: null, complete_at: null };

let buildbot: Classic;
let history: History;
const clock = createMovableClock();
beforeEach(async () => {
  buildbot = await startClassic({
    schema: 'A',
    flavour: 'mozilla',
    builders: BUILDERS,
    clock,
    pollIntervalMs: NEVER_MS,
  });
  history = await createHistory(buildbot.db, ['buildrequests', 'builds', 'buildsets']);
});
afterEach(() => buildbot?.stop());

/** Injects a request and lets the master look. */
async function begin(builder: string, more: object = {}): Promise<number> {
  const brid = await buildbot.inject({ builder, task: `T-${builder}`, ...more });
  await buildbot.poll();
  return brid;
}

/** Of what came after the injection, what each change made of its row. */
async function changes(): Promise<readonly object[]> {
  const all = (await history.read()).filter(({ kind, row }) => kind !== 'insert' || row.startsWith('builds '));
  return all.map(({ kind, row, to }) => ({ kind, row, ...to }));
}

const request = (to: object) => expect.objectContaining({ kind: 'update', row: 'buildrequests 1', ...to });
const build = (id: number, to: object) =>
  expect.objectContaining({ row: `builds ${id}`, id, brid: 1, start_time: TIME, ...to });
const buildset = (to: object) =>
  expect.objectContaining({ kind: 'update', row: 'buildsets 1', complete: 1, complete_at: TIME, ...to });

it('is MyISAM without foreign keys, in three-byte utf8', async () => {
  const [tables] = await buildbot.db.raw(
    `SELECT table_name name, engine, table_collation collation FROM information_schema.tables
     WHERE table_schema = DATABASE() AND table_name <> 'history'`,
  );
  expect(tables.map(({ name }: { name: string }) => name).sort()).toEqual([
    'buildrequests',
    'builds',
    'buildset_properties',
    'buildsets',
    'patches',
    'sourcestamps',
    'version',
  ]);
  for (const table of tables) {
    expect(table).toMatchObject({ engine: 'MyISAM', collation: expect.stringMatching(/^utf8(mb3)?_/) });
  }
});

describe('its rows', () => {
  it('of a build that ends well: the claim is kept', async () => {
    await buildbot.completed(await begin('ok'));
    await buildbot.poll();
    expect(await changes()).toEqual([
      request({ ...PENDING, ...CLAIMED }),
      build(1, { kind: 'insert', number: 0, finish_time: null }),
      build(1, { kind: 'update', finish_time: TIME }),
      request({ ...CLAIMED, complete: 1, results: 0, complete_at: TIME }),
      buildset({ results: 0 }),
    ]);
  });

  it('of a RETRY: unclaimed, not complete, and no word of the result', async () => {
    await buildbot.completed(await begin('retry'));
    await buildbot.poll();
    expect(await changes()).toEqual([
      request(CLAIMED),
      build(1, { kind: 'insert', number: 0 }),
      build(1, { kind: 'update', finish_time: TIME }),
      request({ ...PENDING, ...UNCLAIMED }),
      request({ ...PENDING, ...CLAIMED }),
      build(2, { kind: 'insert', number: 1, finish_time: null }),
      build(2, { kind: 'update', finish_time: TIME }),
      request({ complete: 1, results: 1, complete_at: TIME }),
      buildset({ results: 0 }),
    ]);
  });

  it('of a pending request that is cancelled on the web page: it was never claimed', async () => {
    const brid = await begin('noslave');
    expect(await buildbot.cancelRequest(brid)).toBe(true);
    expect(await changes()).toEqual([
      request({ ...UNCLAIMED, complete: 1, results: 2, complete_at: TIME }),
      buildset({ results: 2 }),
    ]);
    expect(await buildbot.cancelRequest(brid)).toBe(false);
  });

  it('of a build that is stopped: CANCELLED, which only this fork knows', async () => {
    const brid = await begin('slow');
    expect(await buildbot.stopBuild('slow', 0)).toBe(true);
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 6 });
    expect(await buildbot.buildset(brid)).toMatchObject({ complete: 1, results: 2 });
    expect(await buildbot.stopBuild('slow', 0)).toBe(false);
  });

  it('of a lost worker, and of a master that is stopped: as of a RETRY', async () => {
    const brid = await begin('slow');
    await buildbot.killWorker('w1');
    expect(await buildbot.request(brid)).toMatchObject({ ...PENDING, ...UNCLAIMED });
    await buildbot.startWorker('w1');
    await buildbot.built(brid, 2);
    await buildbot.stopMaster();
    expect(await buildbot.request(brid)).toMatchObject({ ...PENDING, ...UNCLAIMED });
    expect((await buildbot.builds()).map(({ number, finish_time }) => ({ number, finish_time }))).toEqual([
      { number: 0, finish_time: TIME },
      { number: 1, finish_time: TIME },
    ]);
    await buildbot.startMaster();
    await buildbot.built(brid, 3);
  });

  it.each([
    ['ping', 0],
    ['vanish', 1],
  ] as const)('of a build that could not start (%s): unclaimed, with %i builds that never end', async (how, count) => {
    buildbot.failNextStart('w1', how);
    const brid = await begin('ok');
    expect(await buildbot.request(brid)).toMatchObject({ ...PENDING, ...UNCLAIMED });
    expect((await buildbot.builds()).map(({ finish_time }) => finish_time)).toEqual(Array(count).fill(null));
    expect(buildbot.messages).toEqual([]);
    await buildbot.startWorker('w1');
    await buildbot.completed(brid);
  });
});

describe('a master that is killed', () => {
  it('leaves its build unfinished, and takes the request over when it is back: with the same number', async () => {
    const brid = await begin('slow');
    const { claimed_by_incarnation: before } = await buildbot.request(brid);
    await buildbot.killMaster();
    expect(await buildbot.request(brid)).toMatchObject({ ...PENDING, claimed_by_incarnation: before });
    await buildbot.startMaster();
    await buildbot.built(brid, 2);
    expect(await buildbot.builds()).toMatchObject([
      { number: 0, brid, finish_time: null },
      { number: 0, brid, finish_time: null },
    ]);
    expect((await buildbot.request(brid)).claimed_by_incarnation).not.toBe(before);
    await buildbot.finish(brid);
    expect((await buildbot.builds()).map(({ finish_time }) => finish_time)).toEqual([null, TIME]);
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 0 });
  });

  it('loses its requests to another master after an hour', async () => {
    const brid = await begin('slow');
    await buildbot.killMaster();
    const { databaseUrl } = buildbot;
    const other = await startClassic({
      schema: 'A',
      flavour: 'mozilla',
      builders: BUILDERS,
      clock,
      databaseUrl,
      masterName: 'bm2:/m',
      pollIntervalMs: NEVER_MS,
    });
    try {
      await other.poll();
      expect(await buildbot.request(brid)).toMatchObject({ claimed_by_name: MASTER });
      clock.forward(3_602_000);
      await other.poll();
      await other.built(brid, 2);
      expect(await buildbot.request(brid)).toMatchObject({ claimed_by_name: 'bm2:/m' });
    } finally {
      await other.stop();
    }
  });
});

it('takes the highest priority first, then the oldest buildset', async () => {
  const first = await begin('slow');
  const young = await buildbot.inject({ builder: 'ok', task: 'T1', revision: 'r1', submittedAt: 2000 });
  const old = await buildbot.inject({ builder: 'ok', task: 'T2', revision: 'r2', submittedAt: 1000 });
  const high = await buildbot.inject({ builder: 'ok', task: 'T3', revision: 'r3', submittedAt: 3000, priority: 1 });
  await buildbot.finish(first);
  await buildbot.completed(young);
  expect((await buildbot.builds()).map(({ brid }) => brid)).toEqual([first, high, old, young]);
});

it('never takes a request whose claimed_at is NULL', async () => {
  const brid = await buildbot.inject({ builder: 'ok', task: 'T' });
  await buildbot.db('buildrequests').update({ claimed_at: null });
  await buildbot.poll();
  expect(await buildbot.builds()).toEqual([]);
  await buildbot.db('buildrequests').update({ claimed_at: 0 });
  await buildbot.poll();
  await buildbot.completed(brid);
});

it('starts nothing on a builder while one of its requests has a property that is not JSON', async () => {
  const good = await buildbot.inject({ builder: 'ok', task: 'T-good', priority: 1 });
  const bad = await buildbot.inject({ builder: 'ok', task: 'T-bad', properties: { cut: '["too long' } });
  const other = await begin('retry');
  await buildbot.completed(other);
  await buildbot.poll();
  expect(await buildbot.request(good)).toMatchObject(UNCLAIMED);
  await buildbot.db('buildset_properties').where('property_name', 'cut').delete();
  await buildbot.poll();
  await buildbot.completed(good);
  await buildbot.completed(bad);
});

it('refreshes its claims', async () => {
  const settings = { schema: 'A', flavour: 'mozilla', builders: BUILDERS, clock, claimRefreshMs: 50 } as const;
  await buildbot.stop();
  buildbot = await startClassic(settings);
  const brid = await begin('slow');
  const before = Number((await buildbot.request(brid)).claimed_at);
  clock.forward(600_000);
  await eventually(async () => Number((await buildbot.request(brid)).claimed_at) >= before + 600);
});
