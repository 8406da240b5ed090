/** What went wrong in the first bridge whatever it was about, and what is right (W67 to W72); and that none is left out. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, expect, it, jest } from '@jest/globals';
import { LegacyCiError } from '../../src/errors.ts';
import { MINUTE } from '../support/builders.ts';
import { type Bench, BRANCH, LEASE_MS, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';
import { inject } from './sandbox-classic-support.ts';

jest.setTimeout(30_000);

let bench: Bench | undefined;
afterEach(async () => {
  await bench?.stop();
  bench = undefined;
});

/** Rounds of the reflector until then, a minute apart. */
async function sweepUntil(on: Bench, check: () => boolean | Promise<boolean>, by = on.one): Promise<void> {
  for (let round = 0; !(await check()); round += 1) {
    expect(round).toBeLessThan(15);
    await on.forward(MINUTE);
    await by.sweep();
  }
}

it('W67: an error that nobody expected: it costs one look, and the process goes on', async () => {
  // Lost connections and poisonous messages are tested on a real RabbitMQ, with the adapter for Pulse.
  const on = await startBench();
  bench = on;
  await on.one.listen();
  on.one.fail('queue.status', 'before', new TypeError('a bug'), 2);
  on.broker.publish({ exchange: 'exchange/taskcluster-queue/v1/task-pending', routingKey: 'primary.x', payload: 1 });
  const [first, second] = [await on.createTask(), await on.createTask()];
  await eventually(
    async () => {
      await on.forward(2000);
      return (await on.requests(first)).length === 1 && (await on.requests(second)).length === 1;
    },
    { what: 'both requests' },
  );
  expect(on.logged('pass failed; a person should look').length).toBeGreaterThan(0);
});

it('W68: it is stopped while nothing happens, or while something waits for its next try: at once', async () => {
  const on = await startBench();
  bench = on;
  await on.one.listen(['tc-listener', 'legacy-listener', 'reflector']);
  const away = new LegacyCiError('legacy-ci-unavailable', 'away', { isTransient: true });
  on.one.fail('ci.builders', 'before', away, Number.POSITIVE_INFINITY);
  await on.createTask();
  await eventually(() => on.one.count('ci.builders') > 0, { what: 'a failing look' });
  const begun = Date.now();
  await on.one.bridge.stop();
  expect(Date.now() - begun).toBeLessThan(1000);
});

it.each(['newer', 'older'] as const)(
  'W69: somebody rebuilds a build, and the %s copy has all of its ids: the bridge keeps to its own request',
  async (age) => {
    const on = await startBench();
    bench = on;
    const taskId = await on.createTask();
    const copy = () =>
      inject(on.db, 'A', {
        ...{ builder: 'build', task: taskId, branch: BRANCH, reason: 'Self-serve: Rebuilt by somebody' },
        properties: { bbb_external_id: JSON.stringify([`${taskId}/0/1`, 'bbb']) },
      });
    const copied = age === 'older' ? [await copy()] : [];
    const dead = on.one.dieAt('ci.submit', 'after');
    void on.look(taskId);
    await dead;
    copied.push(...(age === 'newer' ? [await copy()] : []));
    const two = on.another();
    await on.forward(LEASE_MS);
    await two.sweep();
    const brid = (await on.mapping(taskId))?.buildRequestId ?? 0;
    expect(copied).not.toContain(brid);
    expect((await on.requests(taskId)).map(({ id }) => id).sort()).toEqual([...copied, brid].sort());
    // What becomes of the copy is nobody's business.
    await on.buildbot.poll();
    for (const id of [...copied, brid]) {
      await on.buildbot.finish(id, id === brid ? 0 : 2);
    }
    await sweepUntil(on, async () => (await on.mapping(taskId)) === undefined, two);
    expect(on.runs(taskId)).toEqual(['completed']);
  },
);

it('W70: a master dies and builds the request again: the newest build counts', async () => {
  const on = await startBench();
  bench = on;
  const { taskId, brid } = await on.building();
  await on.buildbot.killMaster();
  await on.buildbot.startMaster();
  expect(await on.buildbot.builds()).toMatchObject([{ finish_time: null }, { finish_time: null }]);
  await sweepUntil(on, () => on.runs(taskId).at(-1) === 'running' && on.runs(taskId).length === 2);
  await on.buildbot.finish(brid);
  await sweepUntil(on, async () => (await on.mapping(taskId)) === undefined);
  // The lost build ended its run, as a RETRY does, and the same request went on with the next run.
  expect(on.runs(taskId)).toEqual(['exception/worker-shutdown', 'completed']);
  expect(await on.requests(taskId)).toHaveLength(1);
});

it('W70: a stock master dies, and its claim stays for ever: after an hour that is said aloud', async () => {
  const on = await startBench({ site: 'stock' });
  bench = on;
  const { taskId, brid } = await on.building();
  await on.buildbot.killMaster();
  await on.buildbot.startMaster();
  await sweepUntil(on, () => true);
  const warnings = () => on.logged(/claim was not refreshed for over an hour/);
  await on.one.look(taskId);
  expect(warnings()).toEqual([]);
  await on.db('buildrequest_claims').where({ brid }).decrement('claimed_at', 3700);
  await on.one.look(taskId);
  await on.one.look(taskId);
  expect(warnings()).toMatchObject([{ level: 'warn', buildRequestId: brid, builder: 'build' }]);
  expect(on.runs(taskId)).toEqual(['running']);
  // As the documentation tells its operator.
  await on.db('buildrequest_claims').where({ brid }).delete();
  await on.buildbot.poll();
  await sweepUntil(on, () => on.runs(taskId).length === 2 && on.runs(taskId)[1] === 'running');
});

it('W71: several reflectors at once: everything is done once', async () => {
  const on = await startBench();
  bench = on;
  const instances = [on.one, on.another(), on.another()];
  const kept = await on.building({ builder: 'build' });
  const canceled = await on.building({ builder: 'other' });
  on.buildbot.selfServe.isPaused = true;
  await on.forward(11 * MINUTE);
  await on.person.cancelTask(canceled.taskId);
  await Promise.all(instances.map((instance) => instance.sweep()));
  const total = (call: 'queue.reclaim' | 'ci.cancel') => instances.reduce((sum, { count }) => sum + count(call), 0);
  expect([total('queue.reclaim'), total('ci.cancel')]).toEqual([1, 1]);
  expect(on.runs(kept.taskId)).toEqual(['running']);
  on.buildbot.selfServe.isPaused = false;
});

it('W72: one of several tasks without a request gets a new run: only its own mapping follows', async () => {
  const on = await startBench();
  bench = on;
  const away = new LegacyCiError('legacy-ci-unavailable', 'away', { isTransient: true });
  on.one.fail('ci.submit', 'before', away, 2);
  const [moved, other] = [await on.createTask(), await on.createTask()];
  await on.look(moved);
  await on.look(other);
  await on.person.claimTask(moved, 0, { workerGroup: 'another', workerId: 'worker' });
  await on.person.reportException(moved, 0, { reason: 'worker-shutdown' });
  on.one.fail('ci.submit', 'before', away, 1);
  await on.forward(31_000);
  await on.look(moved);
  expect(await on.mapping(moved)).toMatchObject({ runId: 1, buildRequestId: null });
  expect(await on.mapping(other)).toMatchObject({ runId: 0, buildRequestId: null });
});

it('every weakness from W1 to W72 has a test of its name', () => {
  const files = readdirSync(import.meta.dirname).filter((name) => /^weaknesses-.*\.test\.ts$/.test(name));
  const sources = files.map((name) => readFileSync(path.join(import.meta.dirname, name), 'utf8')).join('\n');
  const named = [...sources.matchAll(/\bit(?:\.each\([\s\S]*?\]\s*(?:as const)?\))?\(\s*['"`]W(\d+): /g)];
  const numbers = [...new Set(named.map(([, number]) => Number(number)))].sort((a, b) => a - b);
  expect(numbers).toEqual(Array.from({ length: 72 }, (_, at) => at + 1));
});
