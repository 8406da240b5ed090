/** The emulated stock master where nothing was recorded: merging, order, several masters, trouble, and its own polls. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/eventually.ts';
import { type Classic, createMovableClock, NEVER_MS, startClassic } from './sandbox-classic-support.ts';

type Settings = Parameters<typeof startClassic>[0];

const ok = { name: 'ok', workers: ['w1'], attempts: [{ results: 0, durationMs: 20 }] };
const slow = { name: 'slow', workers: ['w1'], attempts: [{ results: 0, durationMs: 'wait' as const }] };

const running: Classic[] = [];
afterEach(async () => {
  for (const buildbot of running.splice(0).reverse()) {
    await buildbot.stop();
  }
});
async function start(more: Partial<Settings> = {}): Promise<Classic> {
  const buildbot = await startClassic({ schema: 'B', flavour: 'stock', builders: [ok, slow], ...more });
  running.push(buildbot);
  return buildbot;
}

it('finds a request by polling, whatever its priority the oldest first, one at a time a worker', async () => {
  const buildbot = await start();
  const first = await buildbot.inject({ builder: 'slow', task: 'T0' });
  await buildbot.built(first);
  const young = await buildbot.inject({ builder: 'ok', task: 'T1', revision: 'r1', submittedAt: 2000, priority: 9 });
  const old = await buildbot.inject({ builder: 'ok', task: 'T2', revision: 'r2', submittedAt: 1000 });
  expect((await buildbot.builds()).map(({ brid }) => brid)).toEqual([first]);
  await buildbot.finish(first);
  await buildbot.completed(young);
  expect((await buildbot.builds()).map(({ brid, number }) => [brid, number])).toEqual([
    [first, 0],
    [old, 0],
    [young, 1],
  ]);
});

describe('merging', () => {
  const tasks = (count: number) => Array.from({ length: count }, (_, index) => `T${index}`);
  /** Requests that wait for one builder when the master looks. */
  async function pending(
    buildbot: Classic,
    builder: string,
    count: number,
    more: (task: string) => object = () => ({}),
  ) {
    const brids: number[] = [];
    for (const task of tasks(count)) {
      brids.push(await buildbot.inject({ builder, task, ...more(task) }));
    }
    await buildbot.poll();
    return brids;
  }
  const numbers = async (buildbot: Classic) => (await buildbot.builds()).map(({ number, brid }) => [number, brid]);

  it.each(['A', 'B'] as const)('%s: one build, a row for each request, all of them with its result', async (schema) => {
    const buildbot = await start({ schema, pollIntervalMs: NEVER_MS });
    const brids = await pending(buildbot, 'ok', 3);
    await buildbot.completed(brids.at(-1) ?? 0);
    expect(await numbers(buildbot)).toEqual(brids.map((brid) => [0, brid]));
    expect(new Set((await buildbot.builds()).map(({ finish_time }) => finish_time)).size).toBe(1);
    for (const brid of brids) {
      expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 0, claimed_at: expect.any(Number) });
      expect(await buildbot.buildset(brid)).toMatchObject({ complete: 1, results: 0 });
    }
  });

  it.each(['branch', 'revision'] as const)('not where the %s differs', async (field) => {
    const buildbot = await start({ pollIntervalMs: NEVER_MS });
    const brids = await pending(buildbot, 'slow', 2, (task) => ({ [field]: task }));
    expect(await numbers(buildbot)).toEqual([[0, brids[0]]]);
  });

  it('gives the build the properties of the last request, and the reasons of all', async () => {
    const buildbot = await start({ schema: 'A', flavour: 'mozilla', pollIntervalMs: NEVER_MS });
    const brids = await pending(buildbot, 'slow', 3);
    await eventually(() => buildbot.messages.length > 0);
    expect(buildbot.messages[0]?.payload).toMatchObject({
      payload: {
        build: {
          reason: 'Created by BBB for task T0, Created by BBB for task T1, Created by BBB for task T2',
          properties: expect.arrayContaining([['taskId', 'T2', 'bbb']]),
        },
        request_ids: brids,
      },
    });
  });

  it('eight at most at Mozilla, and never what a person asked for, a nightly or a release', async () => {
    const builders = [slow, { ...slow, name: 'release', workers: ['w2'], isMergeable: false }];
    const buildbot = await start({ schema: 'A', flavour: 'mozilla', builders, pollIntervalMs: NEVER_MS });
    const brids = await pending(buildbot, 'slow', 12, (task) => {
      const nightly = task === 'T3' ? { properties: { nightly_build: '[true, "x"]' } } : {};
      return task === 'T2' ? { reason: 'Self-serve: Rebuilt by me' } : nightly;
    });
    const merged = brids.filter((_, index) => index !== 2 && index !== 3).slice(0, 8);
    expect(await numbers(buildbot)).toEqual(merged.map((brid) => [0, brid]));
    const [first] = await pending(buildbot, 'release', 2);
    expect((await numbers(buildbot)).at(-1)).toEqual([0, first]);
  });

  it('puts back all of them after a RETRY', async () => {
    const attempts = [
      { results: 5, durationMs: 20 },
      { results: 2, durationMs: 20 },
    ];
    const buildbot = await start({ builders: [{ ...ok, attempts }], pollIntervalMs: NEVER_MS });
    const [first = 0, second = 0] = await pending(buildbot, 'ok', 2);
    await buildbot.completed(second);
    expect(await numbers(buildbot)).toEqual([
      [0, first],
      [0, second],
      [1, first],
      [1, second],
    ]);
  });
});

it('starts nothing on a builder while one of its requests has an empty set of sources', async () => {
  const buildbot = await start({ builders: [ok, { ...ok, name: 'other' }], pollIntervalMs: NEVER_MS });
  const bad = await buildbot.inject({ builder: 'ok', task: 'T0' });
  await buildbot.db('sourcestamps').delete();
  const good = await buildbot.inject({ builder: 'ok', task: 'T1' });
  const other = await buildbot.inject({ builder: 'other', task: 'T2' });
  await buildbot.poll();
  await buildbot.completed(other);
  await buildbot.poll();
  expect((await buildbot.builds()).map(({ brid }) => brid)).toEqual([other]);
  await buildbot.db('buildrequests').where({ id: bad }).delete();
  await buildbot.poll();
  await buildbot.completed(good);
});

it('reads the properties of a request once', async () => {
  const attempts = [
    { results: 5, durationMs: 20 },
    { results: 0, durationMs: 'wait' as const },
  ];
  const buildbot = await start({ flavour: 'mozilla', builders: [{ ...ok, attempts }], pollIntervalMs: NEVER_MS });
  const brid = await buildbot.inject({ builder: 'ok', task: 'T0' });
  await buildbot.poll();
  await buildbot.db('buildset_properties').where('property_name', 'taskId').update({ property_value: '["T9", "bbb"]' });
  await buildbot.built(brid, 2);
  const isRetry = (key: string) => key === 'build.ok.1.started';
  const retry = await eventually(() => buildbot.messages.find(({ routingKey }) => isRetry(routingKey)));
  expect(retry.payload).toMatchObject({
    payload: { build: { properties: expect.arrayContaining([['taskId', 'T0', 'bbb']]) } },
  });
});

describe('two masters on one database', () => {
  async function startTwo(more: Partial<Settings> = {}): Promise<readonly [Classic, Classic]> {
    const one = await start(more);
    const two = await start({ ...more, databaseUrl: one.databaseUrl, masterName: 'bm2:/m' });
    return [one, two];
  }

  it('build each request once, under their own names', async () => {
    const [one, two] = await startTwo({ builders: [ok] });
    const brids: number[] = [];
    for (let index = 0; index < 20; index += 1) {
      brids.push(await one.inject({ builder: 'ok', task: `T${index}`, revision: `r${index}` }));
      await Promise.all([one.poll(), two.poll()]);
    }
    for (const brid of brids) {
      await one.completed(brid);
    }
    expect((await two.builds()).map(({ brid }) => brid).sort((a, b) => a - b)).toEqual(brids);
    const names = (await one.db('objects').orderBy('name')).map(({ name }) => name);
    expect(names).toEqual(['bm1.example.com:/builds/buildbot/master', 'bm2:/m']);
  });

  it('leave alone what the other one had claimed when it was killed, for however long', async () => {
    const clock = createMovableClock();
    const [one, two] = await startTwo({ builders: [slow], clock, pollIntervalMs: NEVER_MS });
    const brid = await one.inject({ builder: 'slow', task: 'T0' });
    await one.poll();
    await one.killMaster();
    clock.forward(24 * 3_600_000);
    await two.poll();
    await one.startMaster();
    expect(await one.builds()).toMatchObject([{ brid, finish_time: null }]);
    await one.db('buildrequest_claims').delete();
    await two.poll();
    await one.built(brid, 2);
  });
});

it('refreshes its claims', async () => {
  const clock = createMovableClock();
  const buildbot = await start({ clock, claimRefreshMs: 50 });
  const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
  await buildbot.built(brid);
  const before = Number((await buildbot.request(brid)).claimed_at);
  clock.forward(600_000);
  await eventually(async () => Number((await buildbot.request(brid)).claimed_at) >= before + 600);
});

it('forgets a build that was cut off, and gives its number to the next one', async () => {
  const buildbot = await start();
  const lost = await buildbot.inject({ builder: 'slow', task: 'T0', revision: 'r0' });
  await buildbot.built(lost);
  await buildbot.killMaster();
  await buildbot.startMaster();
  const next = await buildbot.inject({ builder: 'slow', task: 'T1', revision: 'r1' });
  await buildbot.built(next);
  expect(await buildbot.builds()).toMatchObject([
    { brid: lost, number: 0, finish_time: null },
    { brid: next, number: 0, finish_time: null },
  ]);
});

it('completes a request although the end of its build was not written', async () => {
  const buildbot = await start();
  const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
  await buildbot.built(brid);
  buildbot.loseNextFinish();
  await buildbot.finish(brid, 2);
  expect(await buildbot.builds()).toMatchObject([{ brid, finish_time: null }]);
  expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 2 });
});
