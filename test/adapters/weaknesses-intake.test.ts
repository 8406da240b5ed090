/** What went wrong in the first bridge when it took in a task, and what is right (W1 to W17). */
import { afterEach, expect, it, jest } from '@jest/globals';
import { LegacyCiError } from '../../src/errors.ts';
import { MINUTE } from '../support/builders.ts';
import { aBuilder, type Bench, LEASE_MS, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';

jest.setTimeout(30_000);

let bench: Bench;
afterEach(() => bench?.stop());

const unavailable = () => new LegacyCiError('legacy-ci-unavailable', 'away', { isTransient: true });
const LOG = 'public/logs/live_backing.log';

/** Builds what the task has asked for, and looks until the queue knows. */
async function buildToEnd(taskId: string, by = bench.one): Promise<void> {
  await bench.buildbot.poll();
  const brid = (await bench.mapping(taskId))?.buildRequestId ?? 0;
  await bench.buildbot.finish(brid);
  const isOver = async () => {
    await by.look(taskId);
    return (await bench.mapping(taskId)) === undefined;
  };
  // A listener's own pass may be under way, and has the lease then.
  await eventually(isOver, { what: `the end of ${taskId}` });
}

it('W1: it died, or the database failed, between noting a task and making its request: the request is made', async () => {
  bench = await startBench();
  await bench.one.listen();
  const dead = bench.one.dieAt('ci.submit', 'before');
  const taskId = await bench.createTask();
  await dead;
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'intended', buildRequestId: null });
  const two = bench.another();
  two.fail('ci.submit', 'before', unavailable());
  // The broker delivers the message again; it waits for the dead one's lease, and then for the failed submission.
  await two.listen();
  await eventually(() => two.count('store.lease') > 0, { what: 'the message to be delivered again' });
  await bench.forward(LEASE_MS);
  await eventually(() => two.count('ci.submit') === 1, { what: 'the failing submission' });
  await eventually(
    async () => {
      await bench.forward(10_000);
      return (await bench.mapping(taskId))?.state === 'submitted';
    },
    { what: 'the request' },
  );
  expect(await bench.requests(taskId)).toHaveLength(1);
  await buildToEnd(taskId, two);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W2: it died between making a request and noting its id: that request is found, and no other is made', async () => {
  bench = await startBench();
  const taskId = await bench.createTask();
  const dead = bench.one.dieAt('ci.submit', 'after');
  void bench.look(taskId);
  await dead;
  const [made] = await bench.requests(taskId);
  // It may start meanwhile; nobody has missed anything.
  await bench.buildbot.poll();
  const two = bench.another();
  await bench.forward(LEASE_MS);
  await two.sweep();
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'submitted', buildRequestId: made?.id });
  expect(await bench.requests(taskId)).toHaveLength(1);
  expect(bench.runs(taskId)).toEqual(['running']);
});

it.each([
  // Nothing is undone in the old schema's tables: what is left there is no request, and nobody minds it.
  { site: 'mozilla', left: 1 },
  { site: 'stock', left: 0 },
] as const)(
  'W3: the inserts stopped halfway ($site): masters see nothing, and the next try makes one request',
  async ({ site, left }) => {
    bench = await startBench({ site });
    await bench.db.raw(
      "CREATE TRIGGER full BEFORE INSERT ON buildrequests FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'disk full'",
    );
    const taskId = await bench.createTask();
    await bench.look(taskId);
    expect(await bench.db('buildsets').select('id')).toHaveLength(left);
    expect(await bench.db('sourcestamps').select('id')).toHaveLength(left);
    await bench.buildbot.poll();
    expect(await bench.mapping(taskId)).toMatchObject({ state: 'intended', attempts: 1 });
    await bench.db.raw('DROP TRIGGER full');
    await bench.forward(MINUTE);
    await bench.look(taskId);
    await buildToEnd(taskId);
    expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 0 }]);
    expect(bench.runs(taskId)).toEqual(['completed']);
  },
);

it('W4: a payload without sourcestamp: it is built from the default branch', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.submitted({ payload: { buildername: 'build', properties: { product: 'w' } } });
  expect(await bench.db('sourcestamps').select('branch', 'revision', 'repository', 'project')).toEqual([
    { branch: null, revision: null, repository: '', project: '' },
  ]);
  await buildToEnd(taskId);
  expect(await bench.requests(taskId)).toMatchObject([{ id: brid, complete: 1 }]);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W5: a payload without buildername, while some builders are ignored: malformed-payload, and the next task is built', async () => {
  bench = await startBench({ rules: { isIgnored: (builder) => /^x/.test(builder) } });
  await bench.one.listen();
  const wrong = await bench.createTask({ payload: { properties: { product: 'w' } } });
  const right = await bench.createTask();
  await eventually(() => bench.runs(wrong)[0] === 'exception/malformed-payload', { what: 'the refusal' });
  expect(bench.artifact(wrong, LOG)).toContain('payload.buildername');
  await eventually(async () => (await bench.requests(right)).length === 1, { what: 'the next request' });
  expect(await bench.requests(wrong)).toEqual([]);
});

it('W6: the queue has no definition of a task, or does not answer: intake goes on, and what is wanted is made up for', async () => {
  bench = await startBench();
  bench.mail.hold = /task-pending/;
  const [gone, slow, fine] = [await bench.createTask(), await bench.createTask(), await bench.createTask()];
  bench.forget(gone);
  bench.faults.http.push({
    ...{ method: 'GET', path: new RegExp(`/task/${slow}$`), takesEffect: false, times: 1 },
    outcome: { kind: 'status', status: 500 },
  });
  await bench.one.listen();
  bench.mail.deliver(/task-pending/);
  await eventually(async () => (await bench.requests(fine)).length === 1, { what: 'the request of the other task' });
  await eventually(
    async () => {
      await bench.forward(2000);
      return (await bench.requests(slow)).length === 1 && bench.one.bridge.workQueue.size() === 0;
    },
    { what: 'the request after the outage' },
  );
  expect(await bench.mapping(gone)).toBeUndefined();
});

it('W7: the builder list was never loaded: tasks wait, unclaimed and not refused, until there is one', async () => {
  bench = await startBench();
  const away = { path: /builders.json/, takesEffect: false, outcome: { kind: 'reset' } } as const;
  bench.buildbotFaults.http.push(away);
  await bench.one.listen();
  const taskId = await bench.createTask();
  await eventually(() => bench.logged('pass failed; it will be tried again').length > 0, { what: 'the failed look' });
  expect(bench.runs(taskId)).toEqual(['pending']);
  expect(bench.one.bridge.workQueue.size()).toBe(1);
  bench.buildbotFaults.http.length = 0;
  await eventually(
    async () => {
      await bench.forward(2000);
      return (await bench.requests(taskId)).length === 1;
    },
    { what: 'the request' },
  );
});

it('W8: a builder was added after the list was last read: the list is read again before anything is refused', async () => {
  const builders = [aBuilder('build')];
  bench = await startBench({ buildbot: { builders } });
  await bench.submitted();
  builders.push(aBuilder('new'));
  await bench.forward(MINUTE);
  const { taskId } = await bench.submitted({ builder: 'new' });
  expect(await bench.requests(taskId)).toHaveLength(1);
  await bench.forward(MINUTE);
  const wrong = await bench.createTask({ builder: 'nwe' });
  await bench.look(wrong);
  expect(bench.runs(wrong)).toEqual(['exception/malformed-payload']);
});

it('W9: the list server is down: tasks are admitted by the last list, without a wait', async () => {
  bench = await startBench();
  await bench.submitted();
  bench.buildbotFaults.http.push({ path: /builders.json/, takesEffect: false, outcome: { kind: 'hang' } });
  await bench.forward(30 * MINUTE);
  const begun = Date.now();
  const made = [await bench.submitted(), await bench.submitted(), await bench.submitted()];
  expect(made.every(({ brid }) => brid > 0)).toBe(true);
  expect(Date.now() - begun).toBeLessThan(5000);
});

it('W10: the cancel is heard of before the task: nothing is built', async () => {
  bench = await startBench();
  await bench.one.listen();
  bench.mail.hold = /./;
  const taskId = await bench.createTask();
  await bench.person.cancelTask(taskId);
  bench.mail.deliver(/task-exception/);
  bench.mail.deliver(/task-pending/);
  await eventually(() => bench.one.count('queue.status') === 2, { what: 'both looks' });
  await eventually(() => bench.one.bridge.workQueue.size() === 0, { what: 'their end' });
  expect(await bench.requests(taskId)).toEqual([]);
  expect(bench.runs(taskId)).toEqual(['exception/canceled']);
});

it('W11: the message of a finished task comes again: nothing is built twice', async () => {
  bench = await startBench();
  const { taskId } = await bench.submitted();
  await buildToEnd(taskId);
  expect(await bench.mapping(taskId)).toBeUndefined();
  await bench.one.listen();
  const before = bench.one.count('queue.status');
  bench.mail.deliver(/task-pending/);
  await eventually(() => bench.one.count('queue.status') > before, { what: 'the look' });
  await eventually(() => bench.one.bridge.workQueue.size() === 0, { what: 'its end' });
  expect(await bench.requests(taskId)).toHaveLength(1);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W12: it died right after its report, and somebody reruns the task: the new run gets a build of its own', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid, 2);
  const dead = bench.one.dieAt('queue.resolve', 'after');
  void bench.look(taskId);
  await dead;
  await bench.person.rerunTask(taskId);
  const two = bench.another();
  await bench.forward(LEASE_MS);
  await two.look(taskId);
  const [, second] = await bench.requests(taskId);
  expect(second).toMatchObject({ complete: 0 });
  await bench.buildbot.poll();
  await two.look(taskId);
  await bench.buildbot.finish(second?.id ?? 0);
  await two.look(taskId);
  expect(bench.runs(taskId)).toEqual(['failed', 'completed']);
});

it('W13: a rerun is refused while the build of the run before is alive: that build is stopped, too', async () => {
  let isStrict = false;
  bench = await startBench({ rules: { isRestricted: () => isStrict } });
  const { taskId, brid } = await bench.building();
  await bench.person.cancelTask(taskId);
  isStrict = true;
  bench.buildbot.selfServe.isPaused = true;
  await bench.person.rerunTask(taskId);
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/canceled', 'pending']);
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'cancelling', buildRequestId: brid });
  bench.buildbot.selfServe.isPaused = false;
  await eventually(async () => (await bench.requests(taskId))[0]?.complete === 1, { what: 'the build to be stopped' });
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/canceled', 'exception/malformed-payload']);
  expect(await bench.requests(taskId)).toMatchObject([{ results: 6 }]);
});

it('W14: a property longer than its column: malformed-payload before anything is written, and the builder goes on', async () => {
  bench = await startBench();
  const wrong = await bench.createTask({ properties: { long: 'x'.repeat(1024) } });
  await bench.look(wrong);
  expect(bench.runs(wrong)).toEqual(['exception/malformed-payload']);
  expect(bench.artifact(wrong, LOG)).toContain('payload.properties.long');
  expect(await bench.db('buildsets').select('id')).toEqual([]);
  // As long as it can be: the value's JSON has eleven more characters.
  const { taskId } = await bench.submitted({ properties: { long: 'x'.repeat(1024 - '["", "bbb"]'.length + 1) } });
  await buildToEnd(taskId);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W15: the message of a running run comes again, and its builder is forbidden by now: the run goes on', async () => {
  let isStrict = false;
  bench = await startBench({ rules: { isRestricted: () => isStrict } });
  const { taskId, brid } = await bench.building();
  isStrict = true;
  await bench.one.listen();
  const before = bench.one.count('queue.status');
  bench.mail.deliver(/task-pending/);
  await eventually(() => bench.one.count('queue.status') > before, { what: 'the look' });
  await eventually(() => bench.one.bridge.workQueue.size() === 0, { what: 'its end' });
  expect(bench.runs(taskId)).toEqual(['running']);
  await bench.buildbot.finish(brid);
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W16: two listeners hear of two runs of a task at once: one mapping, one request', async () => {
  bench = await startBench();
  const two = bench.another();
  const taskId = await bench.createTask();
  await bench.person.claimTask(taskId, 0, { workerGroup: 'another', workerId: 'worker' });
  await bench.person.reportException(taskId, 0, { reason: 'worker-shutdown' });
  expect(bench.runs(taskId)).toEqual(['exception/worker-shutdown', 'pending']);
  // Both have found no mapping, and the second is faster.
  bench.one.meanwhile('store.insert', 'before', () => two.look(taskId));
  await bench.look(taskId);
  expect(await bench.store.mappingsOf(taskId)).toMatchObject([{ runId: 1, state: 'submitted' }]);
  expect(await bench.requests(taskId)).toHaveLength(1);
});

it('W17: two tasks of equal builder and source share a build: each is resolved with it', async () => {
  bench = await startBench();
  // With the properties of the last request, as is documented; what a build does cannot be told apart.
  const [first, second] = [await bench.submitted({ revision: 'r' }), await bench.submitted({ revision: 'r' })];
  const tasks = [first.taskId, second.taskId];
  await bench.buildbot.poll();
  expect(await bench.buildbot.builds()).toMatchObject([{ number: 0 }, { number: 0 }]);
  await bench.one.listen();
  for (const taskId of tasks) {
    await bench.look(taskId);
    expect(bench.runs(taskId)).toEqual(['running']);
  }
  await bench.buildbot.finish(first.brid, 1);
  for (const taskId of tasks) {
    await bench.look(taskId);
    await eventually(() => bench.runs(taskId)[0] === 'failed', { what: 'its end' });
  }
  expect(await bench.requests(first.taskId)).toMatchObject([{ id: first.brid, results: 1 }]);
});
