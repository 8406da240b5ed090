/** What went wrong in the first bridge's reflector, and what is right (W44 to W56). */
import { afterEach, expect, it, jest } from '@jest/globals';
import { adopt } from '../../src/adopt/adopt.ts';
import type { FirstBridgeRow } from '../../src/domain/first-bridge.ts';
import { MINUTE } from '../support/builders.ts';
import { aBuilder, type Bench, BRANCH, startBench } from '../support/classic-bench.ts';
import { clientOf } from '../support/queue-client.ts';
import { inject } from './sandbox-classic-support.ts';

jest.setTimeout(30_000);

let bench: Bench;
afterEach(() => bench?.stop());

const EXPIRED = 'exception/claim-expired';

/** Rounds of the reflector until then, a minute apart. */
async function sweepUntil(check: () => boolean | Promise<boolean>, by = bench.one): Promise<void> {
  for (let round = 0; !(await check()); round += 1) {
    expect(round).toBeLessThan(15);
    await bench.forward(MINUTE);
    await by.sweep();
  }
}
const isClosed = async (taskId: string) => (await bench.mapping(taskId)) === undefined;

it('W44: a reclaim is refused because the task was canceled: its build is stopped', async () => {
  bench = await startBench();
  const { taskId } = await bench.building();
  await bench.forward(11 * MINUTE);
  bench.one.meanwhile('queue.reclaim', 'before', () => bench.person.cancelTask(taskId));
  await bench.look(taskId);
  await sweepUntil(() => isClosed(taskId));
  expect(await bench.requests(taskId)).toMatchObject([{ results: 6 }]);
});

it('W44: a reclaim is refused because the claim has just expired: the next run goes on with the same build', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  await bench.forward(11 * MINUTE);
  bench.one.meanwhile('queue.reclaim', 'before', () => bench.forward(10 * MINUTE));
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual([EXPIRED, 'running']);
  await bench.buildbot.finish(brid);
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual([EXPIRED, 'completed']);
  expect(bench.one.count('ci.cancel')).toBe(0);
});

it.each(['reflector', 'listener'] as const)(
  'W45: it was down until the claim expired, and the %s is first: the build serves the next run',
  async (first) => {
    bench = await startBench();
    const { taskId, brid } = await bench.building();
    bench.mail.hold = /./;
    await bench.forward(25 * MINUTE);
    expect(bench.runs(taskId)).toEqual([EXPIRED, 'pending']);
    if (first === 'reflector') {
      await bench.one.sweep();
    } else {
      await bench.one.listen();
      bench.mail.deliver(/task-exception/);
      bench.mail.deliver(/task-pending/);
    }
    await sweepUntil(() => bench.runs(taskId)[1] === 'running');
    await bench.buildbot.finish(brid);
    await bench.look(taskId);
    expect(bench.runs(taskId)).toEqual([EXPIRED, 'completed']);
    expect(await bench.requests(taskId)).toHaveLength(1);
  },
);

it('W45: it was down until the claim expired, and the task has no runs left: the build is stopped', async () => {
  bench = await startBench();
  const { taskId } = await bench.building({ retries: 0 });
  await bench.forward(25 * MINUTE);
  await bench.one.sweep();
  await sweepUntil(() => isClosed(taskId));
  expect(bench.runs(taskId)).toEqual([EXPIRED]);
  expect(await bench.requests(taskId)).toMatchObject([{ results: 6 }]);
});

it('W46: the end of a build is never told: the reflector reports it; after the deadline the mapping ends, too', async () => {
  bench = await startBench();
  const heard = await bench.building({ builder: 'build' });
  const late = await bench.building({ builder: 'other', deadlineInMs: 10 * MINUTE });
  await bench.buildbot.finish(heard.brid, 2);
  await sweepUntil(() => isClosed(heard.taskId));
  await bench.buildbot.finish(late.brid);
  await bench.forward(11 * MINUTE);
  await sweepUntil(() => isClosed(late.taskId));
  expect([...bench.runs(heard.taskId), ...bench.runs(late.taskId)]).toEqual(['failed', 'exception/deadline-exceeded']);
});

it('W47: neither start nor end of a build is told: the run is claimed and resolved', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.submitted();
  await bench.buildbot.poll();
  await bench.buildbot.finish(brid, 1);
  expect(await bench.mapping(taskId)).toMatchObject({ takenUntil: null });
  await sweepUntil(() => isClosed(taskId));
  expect(bench.runs(taskId)).toEqual(['failed']);
});

it.each(['mozilla', 'stock'] as const)(
  'W48: somebody cancels a request that waits after a RETRY (%s): the task is canceled',
  async (site) => {
    bench = await startBench({ site });
    const { taskId, brid } = await bench.building();
    await bench.buildbot.killWorker('w-build');
    await bench.look(taskId);
    expect(bench.runs(taskId)).toEqual(['exception/worker-shutdown', 'pending']);
    if (site === 'stock') {
      // A stock master's cancel leaves a claim, which has to be younger than the build.
      await bench.db('builds').where({ brid }).decrement('finish_time', 60).decrement('start_time', 60);
    }
    expect(await bench.buildbot.cancelRequest(brid)).toBe(true);
    await sweepUntil(() => isClosed(taskId));
    expect(bench.runs(taskId)).toEqual(['exception/worker-shutdown', 'exception/canceled']);
  },
);

it('W49: a request was cancelled before its start, and the queue does not take the cancel: it is asked again', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.submitted();
  await bench.buildbot.cancelRequest(brid);
  bench.faults.http.push({
    ...{ method: 'POST', path: /cancel$/, takesEffect: false, times: 2 },
    outcome: { kind: 'status', status: 503 },
  });
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['pending']);
  expect(await bench.mapping(taskId)).toMatchObject({ state: 'submitted', attempts: 1 });
  await sweepUntil(() => isClosed(taskId));
  expect(bench.runs(taskId)).toEqual(['exception/canceled']);
});

it.each([401, 403])(
  'W50: the queue answers %i for a while: nothing is dropped or stopped, and it is said aloud',
  async (status) => {
    bench = await startBench();
    const made = [await bench.building({ builder: 'build' }), await bench.building({ builder: 'other' })];
    await bench.forward(11 * MINUTE);
    bench.faults.http.push({ takesEffect: false, outcome: { kind: 'status', status } });
    for (let round = 0; round < 3; round += 1) {
      await bench.one.sweep();
      await bench.forward(MINUTE);
    }
    expect(bench.logged('pass failed; a person should look').length).toBeGreaterThan(0);
    bench.faults.http.length = 0;
    await bench.forward(4 * MINUTE);
    await bench.one.sweep();
    await bench.forward(4 * MINUTE);
    for (const { taskId, brid } of made) {
      expect(bench.runs(taskId)).toEqual(['running']);
      await bench.buildbot.finish(brid);
    }
    await sweepUntil(async () => (await isClosed(made[0]?.taskId ?? '')) && isClosed(made[1]?.taskId ?? ''));
    expect(made.map(({ taskId }) => bench.runs(taskId))).toEqual([['completed'], ['completed']]);
    expect(bench.one.count('ci.cancel')).toBe(0);
  },
);

it('W51: the queue no longer has the task: its build is stopped before the mapping ends', async () => {
  bench = await startBench();
  const { taskId } = await bench.building();
  bench.forget(taskId);
  await bench.forward(MINUTE);
  await bench.one.sweep();
  // Not at once: a queue may be wrong for a moment.
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 0 }]);
  await sweepUntil(() => isClosed(taskId));
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 6 }]);
});

it('W52: one task has no branch, one meets a bug: all others are kept alive in the same round', async () => {
  bench = await startBench({ buildbot: { builders: ['a', 'b', 'c', 'd'].map((name) => aBuilder(name)) } });
  const payload = { buildername: 'a', properties: { product: 'w' } };
  const branchless = await bench.building({ payload });
  const unlucky = await bench.building({ builder: 'b' });
  const fine = [await bench.building({ builder: 'c' }), await bench.building({ builder: 'd' })];
  await bench.person.cancelTask(branchless.taskId);
  await bench.person.cancelTask(unlucky.taskId);
  bench.one.fail('store.unwantedAmong', 'before', new TypeError('a bug'));
  bench.one.meanwhile('ci.cancel', 'before', async () => {
    throw new TypeError('a bug');
  });
  await bench.forward(11 * MINUTE);
  await bench.one.sweep();
  for (const { taskId } of fine) {
    expect((await bench.mapping(taskId))?.takenUntil).toBeGreaterThan(bench.clock.now() + 15 * MINUTE);
  }
  await sweepUntil(() => isClosed(unlucky.taskId));
  // Self-serve knows requests by their branches only: the build goes on, and the trace says why.
  await sweepUntil(async () => (await bench.trace(branchless.taskId)).includes('notCancelled'));
  expect(await bench.mapping(branchless.taskId)).toMatchObject({ state: 'cancelling' });
  await bench.buildbot.finish(branchless.brid);
  await sweepUntil(() => isClosed(branchless.taskId));
});

it('W53: rows of the first bridge without a request, or of one that was purged: each task comes to its end', async () => {
  bench = await startBench();
  const [never, unnoted, purged] = [await bench.createTask(), await bench.createTask(), await bench.createTask()];
  const builder = { builder: 'other', branch: BRANCH };
  const brid = await inject(bench.db, 'A', { ...builder, task: unnoted });
  const row = (taskId: string, buildRequestId: number | null): FirstBridgeRow => ({
    ...{ taskId, runId: 0, buildRequestId, created: bench.clock.now(), takenUntil: null },
  });
  const said: string[] = [];
  await adopt(
    [row(never, null), row(unnoted, null), row(purged, 4711)].map((each) => ({ kind: 'row', row: each }) as const),
    {
      ...{ queue: clientOf(bench.queue.rootUrl), store: bench.store, isIgnored: () => false },
      now: bench.clock.now,
      report: (outcome) => void said.push(outcome),
    },
  );
  expect(said).toEqual(['adopted', 'adopted', 'adopted']);
  await sweepUntil(async () => (await bench.requests(never)).length === 1);
  expect(await bench.mapping(unnoted)).toMatchObject({ state: 'submitted', buildRequestId: brid });
  expect(await bench.requests(unnoted)).toHaveLength(1);
  await sweepUntil(() => isClosed(purged));
  expect(bench.runs(purged)).toEqual(['exception/internal-error']);
  expect(bench.artifact(purged, 'public/logs/live_backing.log')).toContain('4711');
  await bench.buildbot.poll();
  await bench.buildbot.finish(brid);
  await sweepUntil(() => isClosed(unnoted));
  expect(bench.runs(unnoted)).toEqual(['completed']);
});

it('W54: many claims near their ends: the most urgent are renewed first, some at a time, and none expires', async () => {
  const names = Array.from({ length: 12 }, (_, at) => `b${at}`);
  bench = await startBench({ buildbot: { builders: names.map((name) => aBuilder(name)) } });
  const tasks: string[] = [];
  for (const builder of names) {
    tasks.push((await bench.building({ builder })).taskId);
    await bench.forward(20_000);
  }
  await bench.forward(12 * MINUTE);
  const careful = bench.another({ batchSize: 4, concurrency: 1 });
  await careful.sweep();
  expect(careful.asked('queue.reclaim')).toEqual(tasks);
  for (let minutes = 0; minutes < 25; minutes += 1) {
    await bench.forward(MINUTE);
    await careful.sweep();
  }
  expect(tasks.map((taskId) => bench.runs(taskId))).toEqual(tasks.map(() => ['running']));
});

it('W55: the task ends while its request waits after a RETRY: the request is cancelled, not only its builds', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building({ deadlineInMs: 30 * MINUTE });
  await bench.buildbot.killWorker('w-build');
  await bench.look(taskId);
  await bench.forward(31 * MINUTE);
  await sweepUntil(() => isClosed(taskId));
  expect(bench.runs(taskId)).toEqual(['exception/worker-shutdown', 'exception/deadline-exceeded']);
  expect(await bench.requests(taskId)).toMatchObject([{ id: brid, complete: 1, results: 2 }]);
  await bench.buildbot.startWorker('w-build');
  expect(await bench.buildbot.builds()).toHaveLength(1);
});

it('W56: on the newer schema, with claims in a table: a task is claimed, kept alive, retried and resolved', async () => {
  bench = await startBench({ site: 'stock' });
  const { taskId, brid } = await bench.submitted();
  await bench.buildbot.poll();
  await sweepUntil(() => bench.runs(taskId)[0] === 'running');
  await bench.forward(11 * MINUTE);
  await bench.one.sweep();
  expect(bench.one.count('queue.reclaim')).toBe(1);
  await bench.buildbot.finish(brid, 5);
  await sweepUntil(() => bench.runs(taskId)[1] === 'running');
  await bench.buildbot.finish(brid, 1);
  await sweepUntil(() => isClosed(taskId));
  expect(bench.runs(taskId)).toEqual(['exception/worker-shutdown', 'failed']);
  expect(await bench.requests(taskId)).toMatchObject([{ complete: 1, results: 1 }]);
});
