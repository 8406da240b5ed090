/** Cancelling and stopping by all the ways that a site may have: Self-serve, web pages of one or several masters, none. */
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { systemClock } from '../../src/clock.ts';
import type { RequestView } from '../../src/domain/build.ts';
import { ConfigError } from '../../src/errors.ts';
import { createClassicBuildbot } from '../../src/sandbox/classic/emulator.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { Secret } from '../../src/secret.ts';
import { aBuilder, type Bench, MASTER, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';
import { inject } from './sandbox-classic-support.ts';

jest.setTimeout(60_000);

let bench: Bench;
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) {
    await end();
  }
  await bench?.stop();
});

async function viewOf(brid: number): Promise<RequestView> {
  const seen = (await bench.one.ci.readMany([brid])).get(brid);
  if (seen?.kind !== 'present') {
    throw new Error(`build request ${brid} is ${seen?.kind}`);
  }
  return seen.value;
}

it('Self-serve: a request that it does not find may be new, and is asked for again', async () => {
  bench = await startBench();
  const { brid } = await bench.submitted();
  bench.buildbot.selfServe.missNext = 1;
  expect(await bench.one.ci.cancel(await viewOf(brid), 'why')).toEqual({ kind: 'asked' });
  expect((await viewOf(brid)).state).toBe('pending');
  expect(await bench.one.ci.cancel(await viewOf(brid), 'why')).toEqual({ kind: 'asked' });
  await eventually(async () => (await viewOf(brid)).state === 'complete', { what: 'the cancel' });
  // Cancelling what is over is fine.
  expect(await bench.one.ci.cancel(await viewOf(brid), 'why')).toEqual({ kind: 'asked' });
});

it.each(['mozilla', 'stock'] as const)(
  'a build that serves another request by now is not stopped (%s)',
  async (site) => {
    bench = await startBench({ site });
    const first = await bench.submitted({ revision: 'r' });
    const before = await viewOf(first.brid);
    const second = await bench.submitted({ revision: 'r' });
    await bench.buildbot.poll();
    await eventually(async () => (await viewOf(second.brid)).state === 'building', { what: 'the merged build' });
    await expect(bench.one.ci.cancel(before, 'why')).rejects.toMatchObject({ isTransient: true });
    expect(await viewOf(second.brid)).toMatchObject({ state: 'building', sharedWith: [first.brid] });
    // Whoever names it has made up their mind about it.
    expect(await bench.one.ci.cancel(await viewOf(first.brid), 'why')).toEqual({ kind: 'asked' });
  },
);

describe.each(['mozilla', 'stock'] as const)('a build whose rows a master wrote in different seconds (%s)', (site) => {
  async function startMerged() {
    bench = await startBench({ site });
    const [first, second] = [await bench.submitted({ revision: 'r' }), await bench.submitted({ revision: 'r' })];
    await bench.buildbot.poll();
    await bench.db('builds').where({ brid: second.brid }).increment('start_time', 7);
    return { first, second };
  }

  it('serves the requests of all of them', async () => {
    const { first, second } = await startMerged();
    expect(await viewOf(first.brid)).toMatchObject({ state: 'building', sharedWith: [second.brid] });
    expect(await viewOf(second.brid)).toMatchObject({ state: 'building', sharedWith: [first.brid] });
    const { sharedWith: _, ...unaware } = await viewOf(first.brid);
    await expect(bench.one.ci.cancel(unaware, 'why')).rejects.toMatchObject({ isTransient: true });
  });

  it('is told from one of another master that has its number', async () => {
    const { first, second } = await startMerged();
    if (site === 'mozilla') {
      await bench.db('buildrequests').where({ id: second.brid }).update({ claimed_by_name: 'another:/master' });
    } else {
      const [objectid] = await bench.db('objects').insert({ name: 'another:/master', class_name: 'a.Master' });
      await bench.db('buildrequest_claims').where({ brid: second.brid }).update({ objectid });
    }
    expect(await viewOf(first.brid)).not.toHaveProperty('sharedWith');
  });
});

describe('a build that its master lost when it was killed', () => {
  async function lose(): Promise<RequestView> {
    bench = await startBench({ site: 'stock' });
    const { brid } = await bench.building();
    await bench.buildbot.killMaster();
    await bench.buildbot.startMaster();
    return viewOf(brid);
  }
  /** As if it had started a while before the kill. */
  async function age({ buildRequestId: brid }: RequestView): Promise<void> {
    await bench.db('builds').where({ brid }).decrement('start_time', 300);
    await bench.db('buildrequest_claims').where({ brid }).decrement('claimed_at', 300);
  }

  it('is not stopped by its number, which is another build’s by now', async () => {
    const lost = await lose();
    await age(lost);
    const other = await bench.building();
    expect((await viewOf(other.brid)).builds).toMatchObject([{ number: lost.builds[0]?.number }]);
    expect(await bench.one.ci.cancel(lost, 'why')).toMatchObject({ kind: 'impossible' });
    await bench.buildbot.settled();
    expect(await viewOf(other.brid)).toMatchObject({ state: 'building', builds: [{ isComplete: false }] });
    // The other one can still be stopped itself.
    expect(await bench.one.ci.cancel(await viewOf(other.brid), 'why')).toEqual({ kind: 'asked' });
    await eventually(async () => (await viewOf(other.brid)).results === 'CANCELLED', { what: 'the stop' });
  });

  it('is said to be lost where nothing has its number', async () => {
    const lost = await lose();
    // A master that has just claimed it may be about to have it.
    await expect(bench.one.ci.cancel(lost, 'why')).rejects.toMatchObject({ isTransient: true });
    await age(lost);
    expect(await bench.one.ci.cancel(lost, 'why')).toEqual({
      ...{ kind: 'impossible', why: expect.stringContaining('lost when its master was killed') },
    });
  });
});

it('web pages: a build that ended EXCEPTION was not stopped because another one with its number was', async () => {
  bench = await startBench({ site: 'stock' });
  const { brid } = await bench.building();
  await bench.buildbot.stopBuild('build', 0);
  // The page that is there is of a build that started later.
  await bench.db('builds').where({ brid }).decrement('start_time', 300);
  expect(await viewOf(brid)).toMatchObject({ state: 'complete', results: 'EXCEPTION' });
});

it('a failed build of which a stock master did not write the end was cancelled by nobody', async () => {
  bench = await startBench({ site: 'stock' });
  const { taskId, brid } = await bench.building();
  bench.buildbot.loseNextFinish();
  await bench.buildbot.finish(brid, 2);
  expect(await bench.buildbot.builds()).toMatchObject([{ finish_time: null }]);
  expect(await viewOf(brid)).toMatchObject({ state: 'complete', results: 'FAILURE' });
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['failed']);
});

it('Self-serve: a branch that it learns of later is found', async () => {
  const branches: Record<string, unknown> = {};
  bench = await startBench({ buildbot: { branches } });
  const { brid } = await bench.submitted();
  expect(await bench.one.ci.cancel(await viewOf(brid), 'why')).toMatchObject({
    ...{ kind: 'impossible', why: 'Self-serve does not know the branch "main"' },
  });
  branches.main = {};
  expect(await bench.one.ci.cancel(await viewOf(brid), 'why')).toEqual({ kind: 'asked' });
});

const AUTH = { username: 'bridge', password: 'right' };
const signedIn = (url: string, password = AUTH.password) => ({
  ...{ url, username: AUTH.username, password: new Secret(password) },
});

it('web pages with a sign-in: a wrong password is told at the start, and stops nothing', async () => {
  bench = await startBench({ site: 'stock', buildbot: { auth: AUTH } });
  const { brid } = await bench.building();
  const wrong = bench.another({ ci: { webStatus: signedIn(bench.buildbot.webStatusUrl, 'wrong') } }).ci;
  await expect(wrong.check()).rejects.toThrow(ConfigError);
  await expect(wrong.check()).rejects.toThrow(/webStatus/);
  await expect(wrong.cancel(await viewOf(brid), 'why')).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
  const nobody = bench.another({ ci: { webStatus: { url: bench.buildbot.webStatusUrl } } }).ci;
  await expect(nobody.cancel(await viewOf(brid), 'why')).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
  expect((await viewOf(brid)).state).toBe('building');
  const right = bench.another({ ci: { webStatus: signedIn(bench.buildbot.webStatusUrl) } }).ci;
  await right.check();
  expect(await right.cancel(await viewOf(brid), 'why')).toEqual({ kind: 'asked' });
  await eventually(async () => (await viewOf(brid)).results === 'CANCELLED', { what: 'the stop' });
});

it('web pages with a sign-in: a session that died with its master is not used again', async () => {
  bench = await startBench({ site: 'stock', buildbot: { auth: AUTH } });
  const ci = bench.another({ ci: { webStatus: signedIn(bench.buildbot.webStatusUrl) } }).ci;
  const [first, second] = [
    await bench.submitted({ builder: 'noworker' }),
    await bench.submitted({ builder: 'noworker' }),
  ];
  await ci.cancel(await viewOf(first.brid), 'why');
  expect((await viewOf(first.brid)).state).toBe('complete');
  await bench.buildbot.stopMaster();
  await expect(ci.cancel(await viewOf(second.brid), 'why')).rejects.toMatchObject({
    ...{ code: 'legacy-ci-unavailable', isTransient: true },
  });
  // A master that is away is no reason not to start.
  await ci.check();
  await bench.buildbot.startMaster();
  await ci.cancel(await viewOf(second.brid), 'why');
  expect((await viewOf(second.brid)).state).toBe('complete');
});

it('several masters on one database: each is asked about its own builds', async () => {
  const SECOND = 'bm2.example.com:/builds/buildbot/master';
  bench = await startBench({ site: 'stock', buildbot: { builders: [aBuilder('build')] } });
  const other = createClassicBuildbot({
    ...{ clock: systemClock, faults: createFaults(), databaseUrl: bench.databaseUrl, schema: 'B', flavour: 'stock' },
    ...{ masterName: SECOND, pollIntervalMs: 3_600_000, builders: [aBuilder('theirs'), aBuilder('idle')] },
  });
  await other.start();
  ends.push(() => other.stop());
  const [one, two] = [{ url: bench.buildbot.webStatusUrl }, { url: other.webStatusUrl }];
  const both = bench.another({ ci: { webStatus: { [MASTER]: one, [SECOND]: two } } }).ci;
  const firstOnly = bench.another({ ci: { webStatus: { [MASTER]: one } } }).ci;
  expect([...(await both.builders('build'))].sort()).toEqual(['build', 'idle', 'theirs']);

  const submit = (builder: string, taskId: string) =>
    both.submit({
      ...{ taskId, runId: 0, externalId: `${taskId}/0/1`, scheduled: Date.now(), priority: 'low', builder },
      ...{ branch: null, revision: taskId, repository: null, project: null, properties: { product: 'w' } },
    });
  const [ours, theirs, waiting] = [
    await submit('build', 'RwycG7IhT6CSdg6WvVhkGw'),
    await submit('theirs', 'BaB2_cO5SCyarhnpEAkKaw'),
    await submit('theirs', 'dSlITZ4yQgmvxxAi4A8fHQ'),
  ];
  await bench.buildbot.poll();
  await other.poll();
  const read = async (brid: number) => {
    const seen = (await both.readMany([brid])).get(brid);
    return seen?.kind === 'present' ? seen.value : undefined;
  };
  expect((await read(ours))?.builds[0]?.url).toBe(`${one.url}/builders/build/builds/0`);
  expect((await read(theirs))?.builds[0]?.url).toBe(`${two.url}/builders/theirs/builds/0`);

  expect(await firstOnly.cancel(await viewOf(theirs), 'why')).toEqual({
    ...{ kind: 'impossible', why: expect.stringContaining(`no master "${SECOND}"`) },
  });
  // A request that waits is no master's: the one that has its builder cancels it.
  await both.cancel(await viewOf(waiting), 'why');
  await eventually(async () => (await read(waiting))?.state === 'complete', { what: 'the cancel' });
  await both.cancel(await viewOf(theirs), 'why');
  await eventually(async () => (await read(theirs))?.results === 'CANCELLED', { what: 'the stop' });
  expect((await read(ours))?.state).toBe('building');
});

it.each(['mozilla', 'stock'] as const)(
  'nothing that can stop (%s): what waits is cancelled in the database, what builds is not',
  async (site) => {
    bench = await startBench({ site, ci: { selfServeUrl: undefined, webStatus: undefined } });
    for (const builder of ['build', 'noworker']) {
      // Builders are those that were ever asked for.
      const id = await inject(bench.db, site === 'mozilla' ? 'A' : 'B', { builder, task: 'earlier' });
      await bench.db('buildrequests').where({ id }).update({ complete: 1 });
    }
    await bench.one.ci.check();
    expect(bench.logged(/nothing can stop a running build/)).toHaveLength(1);
    const { brid } = await bench.building();
    const waiting = await bench.submitted({ builder: 'noworker' });
    expect(await bench.one.ci.cancel(await viewOf(brid), 'why')).toMatchObject({
      ...{ kind: 'impossible', why: expect.stringContaining('neither selfServeUrl nor webStatus') },
    });
    expect(await bench.one.ci.cancel(await viewOf(waiting.brid), 'why')).toEqual({ kind: 'asked' });
    expect(await viewOf(waiting.brid)).toMatchObject({ state: 'complete', results: 'CANCELLED', builds: [] });
    expect(await bench.db('buildsets').where({ complete: 1, results: 2 })).toHaveLength(1);
    // No master builds it any more, and the one that builds goes on.
    await bench.buildbot.poll();
    expect(await bench.buildbot.builds()).toHaveLength(1);
    expect((await viewOf(brid)).state).toBe('building');
  },
);
