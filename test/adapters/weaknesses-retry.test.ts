/** What went wrong in the first bridge when Buildbot built a request again, and what is right (W31 to W36). */
import { afterEach, expect, it, jest } from '@jest/globals';
import { QueueError } from '../../src/errors.ts';
import { MINUTE } from '../support/builders.ts';
import { type Bench, LEASE_MS, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';

jest.setTimeout(30_000);

let bench: Bench;
afterEach(() => bench?.stop());

const RETRY = 5;
const WAIT = { ci: { outcomeWaitMs: 30 * MINUTE } };
const RETRIED = 'exception/worker-shutdown';

const runs = (taskId: string, ...expected: string[]) =>
  eventually(() => JSON.stringify(bench.runs(taskId)) === JSON.stringify(expected), {
    what: `${taskId} to be ${expected}`,
  });
const sent = (event: string, count = 1) =>
  eventually(() => bench.mail.sent.filter(({ routingKey }) => routingKey.endsWith(event)).length === count, {
    what: `${count} ${event}`,
  });
/** Lets a message go and waits until the adapter has heard it, and the listener has looked whose it is. */
async function hear(pattern: RegExp): Promise<void> {
  const before = bench.one.count('store.tasksOfRequests');
  bench.mail.deliver(pattern);
  await eventually(() => bench.one.count('store.tasksOfRequests') >= before + 1, { what: `${pattern} to be heard` });
}

/** Rounds of the reflector until then, a minute apart. */
async function sweepUntil(check: () => boolean | Promise<boolean>, by = bench.one): Promise<void> {
  for (let round = 0; !(await check()); round += 1) {
    expect(round).toBeLessThan(12);
    await bench.forward(MINUTE);
    await by.sweep();
  }
}

it('W31: the message of a build that ended RETRY comes again: the next run is not touched', async () => {
  bench = await startBench(WAIT);
  await bench.one.listen();
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid, RETRY);
  await runs(taskId, RETRIED, 'running');
  await sent('log_uploaded');
  await hear(/\.0\.log_uploaded/);
  await hear(/\.0\.finished/);
  await hear(/\.0\.started/);
  expect(bench.runs(taskId)).toEqual([RETRIED, 'running']);
  await bench.buildbot.finish(brid);
  await runs(taskId, RETRIED, 'completed');
  expect(await bench.requests(taskId)).toHaveLength(1);
});

it('W32: the next build starts before the end of the first is told: each run is tied to its own build', async () => {
  bench = await startBench(WAIT);
  await bench.one.listen();
  const { taskId, brid } = await bench.building();
  bench.mail.hold = /finished|log_uploaded|task-pending|\.1\.started/;
  await bench.buildbot.finish(brid, RETRY);
  await eventually(() => bench.mail.held.length === 3, { what: 'the messages to be held' });
  await hear(/\.1\.started/);
  await hear(/\.0\.log_uploaded/);
  await eventually(() => bench.mail.held.some(({ exchange }) => exchange.endsWith('task-pending')), { what: 'run 1' });
  bench.mail.deliver(/task-pending/);
  await runs(taskId, RETRIED, 'running');
  bench.mail.hold = null;
  await bench.buildbot.finish(brid);
  await runs(taskId, RETRIED, 'completed');
  expect(bench.one.count('ci.cancel')).toBe(0);
});

it('W33: the end of the first build is told before the next one starts, and the next run last of all: it is claimed', async () => {
  bench = await startBench(WAIT);
  await bench.one.listen();
  const { taskId, brid } = await bench.building();
  bench.mail.hold = /task-pending|finished|\.1\.started/;
  await bench.buildbot.finish(brid, RETRY);
  await sent('log_uploaded');
  await runs(taskId, RETRIED, 'running');
  await hear(/\.1\.started/);
  bench.mail.deliver(/task-pending/);
  await bench.buildbot.finish(brid);
  await runs(taskId, RETRIED, 'completed');
  expect(bench.one.count('ci.cancel')).toBe(0);
});

it('W34: the next build waits for its worker until the old claim would have ended: nothing is reclaimed or killed', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  await bench.buildbot.killWorker('w-build');
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual([RETRIED, 'pending']);
  expect(await bench.mapping(taskId)).toMatchObject({ runId: 1, buildRequestId: brid, takenUntil: null });
  for (let minutes = 0; minutes < 30; minutes += 1) {
    await bench.forward(MINUTE);
    await bench.one.sweep();
  }
  expect(bench.one.count('queue.reclaim')).toBe(0);
  expect(await bench.requests(taskId)).toMatchObject([{ id: brid, complete: 0 }]);
  await bench.buildbot.startWorker('w-build');
  await bench.look(taskId);
  await bench.buildbot.finish(brid);
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual([RETRIED, 'completed']);
});

it.each([
  { what: 'died after the report', crash: true },
  { what: 'had no answer to the report', crash: false },
])('W35: it $what of a RETRY: the next run goes on with the same request', async ({ crash }) => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid, RETRY);
  let by = bench.one;
  if (crash) {
    const dead = bench.one.dieAt('queue.resolve', 'after');
    void bench.look(taskId);
    await dead;
    by = bench.another();
    await bench.forward(LEASE_MS);
  } else {
    bench.one.fail('queue.resolve', 'after', new QueueError('queue-unavailable', 'no answer', { isTransient: true }));
    await bench.look(taskId);
  }
  // The one report makes the queue open the next run by itself: there is no second call to lose.
  expect(bench.runs(taskId)).toEqual([RETRIED, 'pending']);
  await sweepUntil(() => bench.runs(taskId)[1] === 'running', by);
  await bench.buildbot.finish(brid);
  await by.look(taskId);
  expect(bench.runs(taskId)).toEqual([RETRIED, 'completed']);
  expect(await bench.requests(taskId)).toHaveLength(1);
});

it('W35: a RETRY when the queue has no retries left: the task is rerun, and the build that goes on counts', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building({ retries: 0 });
  await bench.buildbot.finish(brid, RETRY);
  const dead = bench.one.dieAt('queue.rerunTask', 'before');
  void bench.look(taskId);
  await dead;
  expect(bench.runs(taskId)).toEqual([RETRIED]);
  const two = bench.another();
  await bench.forward(LEASE_MS);
  await sweepUntil(() => bench.runs(taskId)[1] === 'running', two);
  await bench.buildbot.finish(brid);
  await two.look(taskId);
  expect(bench.runs(taskId)).toEqual([RETRIED, 'completed']);
});

it('W36: a canceled build ends RETRY, because its worker is lost first: its request is not built again', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  bench.buildbot.selfServe.isPaused = true;
  await bench.person.cancelTask(taskId);
  await bench.look(taskId);
  await bench.buildbot.killWorker('w-build');
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 0 }]);
  bench.buildbot.selfServe.isPaused = false;
  await sweepUntil(async () => (await bench.mapping(taskId)) === undefined);
  expect(await bench.requests(taskId)).toMatchObject([{ id: brid, complete: 1, results: 2 }]);
  await bench.buildbot.startWorker('w-build');
  expect(await bench.buildbot.builds()).toHaveLength(1);
});

it('W36: a canceled build ends RETRY and the next one has started: that one is stopped', async () => {
  bench = await startBench({ site: 'stock' });
  const { taskId, brid } = await bench.building();
  await bench.person.cancelTask(taskId);
  await bench.buildbot.finish(brid, RETRY);
  expect(await bench.buildbot.builds()).toHaveLength(2);
  await bench.look(taskId);
  await sweepUntil(async () => (await bench.mapping(taskId)) === undefined);
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 4 }]);
});
