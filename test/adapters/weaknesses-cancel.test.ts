/** What went wrong in the first bridge when a task was canceled, and what is right (W57 to W66). */
import { afterEach, expect, it, jest } from '@jest/globals';
import { MINUTE } from '../support/builders.ts';
import { type Bench, MASTER, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';

jest.setTimeout(40_000);

let bench: Bench;
afterEach(() => bench?.stop());

/** Rounds of the reflector until then, a minute apart. */
async function sweepUntil(check: () => boolean | Promise<boolean>, by = bench.one): Promise<void> {
  for (let round = 0; !(await check()); round += 1) {
    expect(round).toBeLessThan(15);
    await bench.forward(MINUTE);
    await by.sweep();
  }
}
const isClosed = async (taskId: string) => (await bench.mapping(taskId)) === undefined;

async function cancel(taskId: string): Promise<void> {
  await bench.person.cancelTask(taskId);
  await bench.look(taskId);
}

it('W57: Self-serve does not find a request that was made a moment ago: it is asked again until it does', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.submitted();
  bench.buildbot.selfServe.missNext = 2;
  await cancel(taskId);
  expect(await bench.mapping(taskId)).toMatchObject({ buildRequestId: brid, state: 'cancelling', cancels: 1 });
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 0 }]);
  await sweepUntil(() => isClosed(taskId));
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 2 }]);
  await bench.buildbot.poll();
  expect(await bench.buildbot.builds()).toEqual([]);
});

it('W58: Self-serve will never know the branch: that is said, and the build is followed to its end', async () => {
  bench = await startBench({ buildbot: { branches: {} } });
  const { taskId, brid } = await bench.building();
  await cancel(taskId);
  expect(await bench.trace(taskId)).toContain('notCancelled');
  expect(bench.logged('build request not cancelled')).toMatchObject([
    { level: 'warn', because: expect.stringContaining('does not know the branch "main"') },
  ]);
  for (let minutes = 0; minutes < 5; minutes += 1) {
    await bench.forward(MINUTE);
    await bench.one.sweep();
  }
  expect(bench.one.count('ci.cancel')).toBe(1);
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'cancelling', buildRequestId: brid });
  await bench.buildbot.finish(brid);
  await sweepUntil(() => isClosed(taskId));
});

it.each([503, 500, 403])('W58: Self-serve answers %i: nothing dies of it, and it is asked again', async (status) => {
  bench = await startBench();
  const { taskId } = await bench.building();
  const fault = { method: 'DELETE', path: /request/, takesEffect: false, times: 2 };
  bench.buildbotFaults.http.push({ ...fault, outcome: { kind: 'status', status } });
  await cancel(taskId);
  const next = await bench.submitted({ builder: 'other' });
  expect(next.brid).toBeGreaterThan(0);
  await sweepUntil(() => isClosed(taskId));
  expect(await bench.requests(taskId)).toMatchObject([{ results: 6 }]);
});

it('W59: Self-serve takes the job and does not do it: the database is what counts, and it is asked again', async () => {
  bench = await startBench();
  const { taskId } = await bench.building();
  bench.buildbot.selfServe.failNext = 3;
  await cancel(taskId);
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'cancelling', cancels: 1 });
  await sweepUntil(() => isClosed(taskId));
  expect(await bench.requests(taskId)).toMatchObject([{ results: 6 }]);
  expect(bench.one.count('ci.cancel')).toBe(4);
});

it.each(['mozilla', 'stock'] as const)(
  'W60: a master has claimed the request and not begun the build (%s): it is stopped once it has',
  async (site) => {
    bench = await startBench({ site });
    const { taskId, brid } = await bench.submitted();
    const now = Math.floor(Date.now() / 1000);
    if (site === 'mozilla') {
      await bench.db('buildrequests').where({ id: brid }).update({ claimed_at: now, claimed_by_name: MASTER });
    } else {
      const [objectid] = await bench.db('objects').insert({ name: MASTER, class_name: 'buildbot.master.BuildMaster' });
      await bench.db('buildrequest_claims').insert({ brid, objectid, claimed_at: now });
    }
    await cancel(taskId);
    expect(await bench.requests(taskId)).toMatchObject([{ complete: 0 }]);
    expect(await bench.mapping(taskId)).toMatchObject({ buildRequestId: brid });
    // The master goes on to what it was about to do.
    if (site === 'mozilla') {
      await bench.db('buildrequests').where({ id: brid }).update({ claimed_at: 0, claimed_by_name: null });
    } else {
      await bench.db('buildrequest_claims').where({ brid }).delete();
    }
    await bench.buildbot.poll();
    expect(await bench.buildbot.builds()).toHaveLength(1);
    await sweepUntil(() => isClosed(taskId));
    expect(await bench.requests(taskId)).toMatchObject([{ results: site === 'mozilla' ? 6 : 4 }]);
  },
);

it.each(['mozilla', 'stock'] as const)(
  'W60: the build did not start, and left an open row (%s): the waiting request is cancelled',
  async (site) => {
    bench = await startBench({ site });
    const { taskId } = await bench.submitted();
    bench.buildbot.failNextStart('w-build', 'vanish');
    await bench.buildbot.poll();
    await bench.look(taskId);
    expect(await bench.buildbot.builds()).toMatchObject([{ finish_time: null }]);
    expect(bench.runs(taskId)).toEqual(['pending']);
    await cancel(taskId);
    await sweepUntil(() => isClosed(taskId));
    expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 2 }]);
    expect(bench.one.count('ci.cancel')).toBe(1);
  },
);

it('W61: a master claims the request while it is being cancelled: it is followed until the build is over', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.submitted();
  bench.buildbot.selfServe.raceNext = 1;
  await cancel(taskId);
  await eventually(async () => (await bench.requests(taskId))[0]?.complete === 1, { what: 'the cancel' });
  expect(await bench.buildbot.builds()).toMatchObject([{ finish_time: null }]);
  // Self-serve takes it for complete and stops nothing any more.
  for (let minutes = 0; minutes < 20; minutes += 1) {
    await bench.forward(MINUTE);
    await bench.one.sweep();
  }
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'cancelling', buildRequestId: brid });
  await bench.buildbot.finish(brid);
  await sweepUntil(() => isClosed(taskId));
});

it('W62: an old message of a cancel comes again after a rerun: the build of the next run goes on', async () => {
  bench = await startBench();
  const { taskId } = await bench.building();
  await cancel(taskId);
  await sweepUntil(() => isClosed(taskId));
  await bench.person.rerunTask(taskId);
  await bench.look(taskId);
  await bench.buildbot.poll();
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/canceled', 'running']);
  await bench.one.listen();
  const before = bench.one.count('queue.status');
  bench.mail.deliver(/task-exception/);
  await eventually(() => bench.one.count('queue.status') > before, { what: 'the message to be heard' });
  await eventually(() => bench.one.bridge.workQueue.size() === 0, { what: 'the look to end' });
  const [, second] = await bench.requests(taskId);
  expect(second).toMatchObject({ complete: 0 });
  await bench.buildbot.finish(second?.id ?? 0);
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/canceled', 'completed']);
});

it.each(['mozilla', 'stock'] as const)(
  'W63: a request that was built before is canceled (%s): its newest build is stopped, and no other',
  async (site) => {
    bench = await startBench({ site });
    const { taskId, brid } = await bench.building();
    await bench.buildbot.finish(brid, 5);
    await bench.look(taskId);
    expect(bench.runs(taskId)).toEqual(['exception/worker-shutdown', 'running']);
    // Another builder has a build of the first one's number by now.
    const other = await bench.building({ builder: 'other' });
    await cancel(taskId);
    await sweepUntil(() => isClosed(taskId));
    expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: site === 'mozilla' ? 6 : 4 }]);
    expect(await bench.requests(other.taskId)).toMatchObject([{ complete: 0 }]);
    const builds = await bench.buildbot.builds();
    expect(builds.map(({ number, finish_time }) => [number, finish_time !== null])).toEqual([
      [0, true],
      [1, true],
      [0, false],
    ]);
  },
);

it('W64: a canceled build, of which no message ever comes: the mapping ends with the request', async () => {
  bench = await startBench({ ci: { outcomeWaitMs: 60 * MINUTE } });
  await bench.one.listen();
  bench.mail.hold = /build\./;
  const { taskId } = await bench.building();
  await bench.person.cancelTask(taskId);
  await eventually(async () => (await bench.requests(taskId))[0]?.results === 6, { what: 'the build to be stopped' });
  await sweepUntil(() => isClosed(taskId));
});

it.each([
  ['a claim that expired', 'exception/claim-expired'],
  ['a report of somebody else', 'failed'],
  ['its deadline', 'exception/deadline-exceeded'],
])('W65: the task is resolved by %s: its build is stopped', async (how, end) => {
  bench = await startBench();
  const { taskId } = await bench.building({ retries: 0, deadlineInMs: 40 * MINUTE });
  if (how === 'a report of somebody else') {
    await bench.person.reportFailed(taskId, 0);
  } else if (how === 'its deadline') {
    await bench.forward(11 * MINUTE);
    await bench.one.sweep();
    await bench.forward(14 * MINUTE);
    await bench.one.sweep();
    await bench.forward(16 * MINUTE);
  } else {
    await bench.forward(21 * MINUTE);
  }
  await sweepUntil(() => isClosed(taskId));
  expect(bench.runs(taskId)).toEqual([end]);
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 6 }]);
});

it('W66: Self-serve hangs: others are served meanwhile, and it is asked again in the end', async () => {
  bench = await startBench();
  const { taskId } = await bench.building();
  const hang = { kind: 'hang' } as const;
  bench.buildbotFaults.http.push({ method: 'DELETE', takesEffect: false, times: 1, outcome: hang });
  await bench.person.cancelTask(taskId);
  const begun = Date.now();
  const stuck = bench.look(taskId);
  const next = await bench.building({ builder: 'other' });
  await bench.buildbot.finish(next.brid);
  await bench.look(next.taskId);
  expect(bench.runs(next.taskId)).toEqual(['completed']);
  expect(Date.now() - begun).toBeLessThan(10_000);
  expect(await stuck).toMatchObject({ kind: 'failed' });
  await sweepUntil(() => isClosed(taskId));
  expect(await bench.requests(taskId)).toMatchObject([{ results: 6 }]);
});
