/** What went wrong in the first bridge when a build started, and what is right (W18 to W26). */
import { afterEach, expect, it, jest } from '@jest/globals';
import { MINUTE } from '../support/builders.ts';
import { aBuilder, type Bench, BRANCH, EXCHANGE, LEASE_MS, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';
import { inject } from './sandbox-classic-support.ts';

jest.setTimeout(60_000);

let bench: Bench;
afterEach(() => bench?.stop());

const isRunning = (taskId: string) => bench.runs(taskId).at(-1) === 'running';
const running = (taskId: string) => eventually(() => isRunning(taskId), { what: `run of ${taskId} to be claimed` });

/** Rounds of the reflector until then, a minute apart. */
async function sweepUntil(check: () => boolean | Promise<boolean>, by = bench.one): Promise<void> {
  for (let round = 0; !(await check()); round += 1) {
    expect(round).toBeLessThan(5);
    await bench.forward(MINUTE);
    await by.sweep();
  }
}

it('W18: the claim fails when the build starts: it is tried again', async () => {
  bench = await startBench();
  await bench.one.listen();
  const { taskId } = await bench.submitted();
  const fault = {
    method: 'POST',
    path: /claim$/,
    takesEffect: false,
    outcome: { kind: 'status', status: 503 },
  } as const;
  bench.faults.http.push({ ...fault, times: 2 });
  await bench.buildbot.poll();
  await eventually(() => bench.one.count('queue.claim') === 1, { what: 'the failed claim' });
  expect(bench.runs(taskId)).toEqual(['pending']);
  await eventually(
    async () => {
      await bench.forward(2000);
      return isRunning(taskId);
    },
    { what: 'the claim' },
  );
});

it('W18: whoever has given up a failed claim is made up for by the reflector', async () => {
  bench = await startBench();
  const { taskId } = await bench.submitted();
  await bench.buildbot.poll();
  await sweepUntil(() => isRunning(taskId));
});

it('W19: it died between the claim and its record: the claim is found, and kept alive', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.submitted();
  await bench.buildbot.poll();
  const dead = bench.one.dieAt('queue.claim', 'after');
  void bench.look(taskId);
  await dead;
  expect(await bench.mapping(taskId)).toMatchObject({ takenUntil: null });
  const two = bench.another();
  await bench.forward(LEASE_MS);
  await two.sweep();
  const found = (await bench.mapping(taskId))?.takenUntil ?? 0;
  expect(found).toBeGreaterThan(bench.clock.now());
  for (let minutes = 0; minutes < 30; minutes += 1) {
    await bench.forward(MINUTE);
    await two.sweep();
  }
  expect((await bench.mapping(taskId))?.takenUntil).toBeGreaterThan(found);
  await bench.buildbot.finish(brid);
  await two.look(taskId);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W20: it died after the first claim of a shared build: the others are claimed, too', async () => {
  bench = await startBench();
  await bench.one.listen();
  const made = [await bench.submitted({ revision: 'r' }), await bench.submitted({ revision: 'r' })];
  const dead = bench.one.dieAt('queue.claim', 'after');
  await bench.buildbot.poll();
  await dead;
  for (const { taskId } of made) {
    expect(await bench.mapping(taskId)).toMatchObject({ takenUntil: null });
  }
  const two = bench.another();
  await bench.forward(LEASE_MS);
  const claims = () => Promise.all(made.map(async ({ taskId }) => (await bench.mapping(taskId))?.takenUntil ?? null));
  await sweepUntil(async () => (await claims()).every((takenUntil) => takenUntil !== null), two);
  expect(made.map(({ taskId }) => bench.runs(taskId))).toEqual([['running'], ['running']]);
});

it('W21: nothing was heard of the start, or not whose it was: the reflector sees it', async () => {
  bench = await startBench();
  await bench.one.listen();
  const lost = await bench.submitted({ builder: 'build' });
  bench.mail.hold = /started/;
  await bench.buildbot.poll();
  bench.mail.hold = null;
  bench.buildbot.events.requestIds = 'empty';
  const unnamed = await bench.submitted({ builder: 'other' });
  await bench.buildbot.poll();
  expect(bench.mail.sent.filter(({ routingKey }) => /started/.test(routingKey))).toHaveLength(2);
  await sweepUntil(() => isRunning(lost.taskId) && isRunning(unnamed.taskId));
});

it('W22: messages of older masters, and malformed ones, are got over: those after them are heard', async () => {
  bench = await startBench();
  await bench.one.listen();
  bench.buildbot.events.requestIds = 'absent';
  const old = await bench.submitted({ builder: 'build' });
  await bench.buildbot.poll();
  const say = (payload: unknown, routingKey = 'build.b.1.started') =>
    bench.broker.publish({ exchange: EXCHANGE, routingKey, payload });
  for (const properties of [null, 'x', [null, [1], ['a', 'b'], ['taskId', {}, 'bbb']], { taskId: 'x' }]) {
    say({ payload: { build: { number: 1, properties, times: [{}, null] }, request_ids: 'none' } });
  }
  say(null);
  say({ payload: null }, 'build.b.1.log_uploaded');
  say('text', 'build.b..finished');
  bench.buildbot.events.requestIds = 'known';
  const heard = await bench.submitted({ builder: 'other' });
  await bench.buildbot.poll();
  await running(heard.taskId);
  await sweepUntil(() => isRunning(old.taskId));
});

it('W23: the task is canceled in the moment of the claim: its build is stopped', async () => {
  bench = await startBench();
  const { taskId } = await bench.submitted();
  await bench.buildbot.poll();
  bench.one.meanwhile('queue.claim', 'before', () => bench.person.cancelTask(taskId));
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/canceled']);
  await sweepUntil(async () => (await bench.mapping(taskId)) === undefined);
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 6 }]);
});

it('W24: a build of more than a hundred requests, of which messages tell no more: all tasks come to their ends', async () => {
  bench = await startBench({
    buildbot: { builders: [aBuilder('build', { maxMerged: 150 })] },
    ci: { outcomeWaitMs: 30 * MINUTE },
  });
  const told = await bench.submitted({ revision: 'r' });
  for (let at = 0; at < 100; at += 1) {
    await inject(bench.db, 'A', { builder: 'build', task: `other-${at}`, branch: BRANCH, revision: 'r' });
  }
  const beyond = [await bench.submitted({ revision: 'r' }), await bench.submitted({ revision: 'r' })];
  const tasks = [told, ...beyond].map(({ taskId }) => taskId);
  await bench.one.listen();
  await bench.buildbot.poll();
  const builds = await bench.buildbot.builds();
  expect(builds.map(({ number }) => number)).toEqual(Array.from({ length: 103 }, () => 0));
  await running(told.taskId);
  await sweepUntil(() => tasks.every(isRunning));
  await bench.buildbot.finish(told.brid);
  await eventually(() => bench.runs(told.taskId)[0] === 'completed', { what: 'what the messages tell of' });
  expect(beyond.every(({ taskId }) => isRunning(taskId))).toBe(true);
  await sweepUntil(() => tasks.every((taskId) => bench.runs(taskId)[0] === 'completed'));
  // All with the properties and the log that the message brought, whosever ids were in it.
  for (const taskId of tasks) {
    expect(bench.artifacts(taskId)).toContain('public/logs/live_backing.log.gz');
    expect(bench.artifact(taskId, 'public/properties.json')).toContain('log_url');
  }
});

it('W25: a message without the taskId property: the ids of the requests say whose it is', async () => {
  bench = await startBench();
  await bench.one.listen();
  bench.mail.hold = /started/;
  const { taskId } = await bench.submitted();
  await bench.buildbot.poll();
  const [message] = bench.mail.held;
  const payload: unknown = JSON.parse(JSON.stringify(message?.payload).replaceAll('"taskId"', '"another"'));
  bench.broker.publish({ exchange: EXCHANGE, routingKey: message?.routingKey ?? '', payload });
  await running(taskId);
});

it('W26: the build starts before its id is noted: the message is looked up once more', async () => {
  bench = await startBench();
  await bench.one.listen();
  let before = 0;
  bench.one.meanwhile('ci.submit', 'after', async () => {
    before = bench.one.count('store.tasksOfRequests');
    await bench.buildbot.poll();
    // The listener finds nobody.
    await eventually(() => bench.one.count('store.tasksOfRequests') === before + 1, { what: 'the first look' });
  });
  const taskId = await bench.createTask();
  await eventually(async () => (await bench.mapping(taskId))?.state === 'submitted', { what: 'the id to be noted' });
  expect(bench.runs(taskId)).toEqual(['pending']);
  await bench.forward(2000);
  await running(taskId);
  expect(bench.one.count('store.tasksOfRequests')).toBe(before + 2);
});
