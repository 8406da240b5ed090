/** What went wrong in the first bridge when a build ended, and what is right (W27 to W30, W37 to W43). */
import { afterEach, expect, it, jest } from '@jest/globals';
import { QueueError } from '../../src/errors.ts';
import { MINUTE, POLICY } from '../support/builders.ts';
import { aBuilder, type Bench, EXCHANGE, LEASE_MS, startBench } from '../support/classic-bench.ts';
import { eventually } from '../support/eventually.ts';

jest.setTimeout(30_000);

let bench: Bench;
afterEach(() => bench?.stop());

const LOG = 'public/logs/live_backing.log';
const PROPERTIES = 'public/properties.json';
const away = { takesEffect: false, outcome: { kind: 'status', status: 503 } } as const;

const ended = (taskId: string, as: string) =>
  eventually(() => bench.runs(taskId).at(-1) === as, { what: `${taskId} to be ${as}` });

/** Rounds of the reflector until then, a minute apart. */
async function sweepUntil(check: () => boolean | Promise<boolean>, by = bench.one): Promise<void> {
  for (let round = 0; !(await check()); round += 1) {
    expect(round).toBeLessThan(12);
    await bench.forward(MINUTE);
    await by.sweep();
  }
}

it.each([
  { what: 'does not take effect', takesEffect: false },
  { what: 'takes effect, without an answer', takesEffect: true },
])('W27: the report $what: it is made again, and the mapping ends with it', async ({ takesEffect }) => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  const fault = { method: 'POST', path: /completed$/, outcome: away.outcome, takesEffect, times: 2 };
  bench.faults.http.push(fault);
  await bench.buildbot.finish(brid);
  await bench.look(taskId);
  expect(await bench.mapping(taskId)).toMatchObject({ attempts: 1, lastError: expect.stringContaining('503') });
  await sweepUntil(async () => (await bench.mapping(taskId)) === undefined);
  expect(bench.runs(taskId)).toEqual(['completed']);
});

it('W28: artifacts cannot be uploaded: a bounded number of tries, then the result is reported without them', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  const storageAway = new QueueError('queue-unavailable', 'the storage answered 503', { isTransient: true });
  bench.one.fail('queue.putArtifact', 'before', storageAway, Number.POSITIVE_INFINITY);
  await bench.buildbot.finish(brid, 2);
  // A parked upload is tried when its own wait is over, between rounds.
  for (let tries = 0; bench.runs(taskId)[0] !== 'failed'; tries += 1) {
    expect(tries).toBeLessThan(30 * POLICY.maxUploadAttempts);
    await bench.forward(MINUTE / 6);
    await bench.one.sweep();
  }
  expect(bench.one.count('queue.resolve')).toBe(1);
  expect(bench.logged('artifact given up').length).toBeGreaterThan(0);
});

it('W28: the storage refuses an artifact once: that is noticed, and it is uploaded again', async () => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  bench.faults.http.push({ ...away, method: 'PUT', times: 1 });
  await bench.buildbot.finish(brid);
  await bench.look(taskId);
  expect(bench.faults.http[0]?.times).toBe(0);
  expect(bench.runs(taskId)).toEqual(['completed']);
  expect(bench.artifact(taskId, LOG)).not.toBe('');
});

it('W28: an upload without a URL for the log: no artifact leads nowhere', async () => {
  bench = await startBench({ ci: { outcomeWaitMs: 30 * MINUTE } });
  await bench.one.listen();
  const { taskId, brid } = await bench.building();
  bench.buildbot.events.failUploads = 1;
  await bench.buildbot.finish(brid);
  await ended(taskId, 'completed');
  expect(bench.artifact(taskId, PROPERTIES)).toContain('"log_url": ["null"');
  expect(bench.artifacts(taskId)).not.toContain(`${LOG}.gz`);
  expect(bench.artifact(taskId, LOG)).not.toBe('');
});

it('W29: the log is never uploaded: the result is reported all the same, after a while', async () => {
  bench = await startBench({ ci: { outcomeWaitMs: 30 * MINUTE } });
  await bench.one.listen();
  bench.mail.hold = /log_uploaded/;
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid, 1);
  await eventually(async () => (await bench.kept.of([brid])).length === 1, { what: 'the message of the end' });
  await bench.one.look(taskId);
  expect(bench.runs(taskId)).toEqual(['running']);
  await bench.db('buildrequests').where({ id: brid }).decrement('complete_at', 1801);
  await sweepUntil(() => bench.runs(taskId)[0] === 'failed');
  // What `finished` told is not lost.
  expect(bench.artifact(taskId, PROPERTIES)).toContain('"buildername"');
  expect(bench.artifact(taskId, LOG)).toContain('no way to the log');
});

it('W29: the log is uploaded hours late: nothing is resolved twice', async () => {
  bench = await startBench({ ci: { outcomeWaitMs: 30 * MINUTE } });
  await bench.one.listen();
  bench.mail.hold = /log_uploaded/;
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid);
  await eventually(() => bench.mail.held.length === 1, { what: 'the upload' });
  await bench
    .db('buildrequests')
    .where({ id: brid })
    .decrement('complete_at', 3 * 3600);
  await sweepUntil(async () => (await bench.mapping(taskId)) === undefined);
  const looks = bench.one.count('store.openMapping');
  bench.mail.deliver(/log_uploaded/);
  await eventually(() => bench.one.count('store.openMapping') > looks, { what: 'the message to be heard' });
  expect(bench.runs(taskId)).toEqual(['completed']);
  expect(bench.one.count('queue.resolve')).toBe(1);
});

it("W30: a dot in the builder's directory: its messages are heard", async () => {
  const builders = [aBuilder('build', { directory: 'release-1.0.x linux' })];
  bench = await startBench({ buildbot: { builders }, ci: { outcomeWaitMs: 30 * MINUTE } });
  await bench.one.listen();
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid);
  await ended(taskId, 'completed');
  expect(bench.mail.sent.map(({ routingKey }) => routingKey)).toContain('build.release-1.0.x linux.0.log_uploaded');
  expect(bench.artifacts(taskId)).toContain(`${LOG}.gz`);
});

it.each(['mozilla', 'stock'] as const)(
  'W37: one task of a shared build is canceled (%s): the build goes on for the other',
  async (site) => {
    bench = await startBench({ site });
    const kept = await bench.submitted({ revision: 'r' });
    const canceled = await bench.submitted({ revision: 'r' });
    await bench.buildbot.poll();
    await bench.look(kept.taskId);
    await bench.look(canceled.taskId);
    await bench.person.cancelTask(canceled.taskId);
    await bench.look(canceled.taskId);
    await sweepUntil(async () => (await bench.trace(canceled.taskId)).includes('notCancelled'));
    expect(await bench.requests(kept.taskId)).toMatchObject([{ complete: 0 }]);
    await bench.buildbot.finish(kept.brid);
    await bench.look(kept.taskId);
    expect(bench.runs(kept.taskId)).toEqual(['completed']);
    await sweepUntil(async () => (await bench.mapping(canceled.taskId)) === undefined);
    expect(bench.runs(canceled.taskId)).toEqual(['exception/canceled']);
  },
);

it('W37: when all tasks of a shared build are canceled, the last one stops it', async () => {
  bench = await startBench();
  const made = [await bench.submitted({ revision: 'r' }), await bench.submitted({ revision: 'r' })];
  await bench.buildbot.poll();
  for (const { taskId } of made) {
    await bench.look(taskId);
    await bench.person.cancelTask(taskId);
    await bench.look(taskId);
  }
  const isStopped = async ({ taskId }: { taskId: string }) => (await bench.requests(taskId))[0]?.results === 6;
  await eventually(async () => (await isStopped(made[0] ?? { taskId: '' })) && isStopped(made[1] ?? { taskId: '' }));
});

it('W38: somebody stops a build of a stock master, which calls it an exception: the task is canceled', async () => {
  bench = await startBench({ site: 'stock' });
  const { taskId } = await bench.building();
  await bench.buildbot.stopBuild('build', 0);
  await bench.look(taskId);
  expect(await bench.requests(taskId)).toMatchObject([{ results: 4 }]);
  expect(bench.runs(taskId)).toEqual(['exception/canceled']);
});

it('W39: a build ends EXCEPTION: internal-error, and nobody blames the task', async () => {
  bench = await startBench({ site: 'stock' });
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid, 4);
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/internal-error']);
});

it.each([
  { name: 'SKIPPED', results: 3 },
  { name: 'unknown', results: 7 },
  { name: 'null', results: null },
])('W40: results are $name: the run ends internal-error, and the log says what there was', async ({ results }) => {
  bench = await startBench();
  const { taskId, brid } = await bench.building();
  await bench.buildbot.finish(brid, results ?? 0);
  await bench.db('buildrequests').where({ id: brid }).update({ results });
  await bench.look(taskId);
  expect(bench.runs(taskId)).toEqual(['exception/internal-error']);
  expect(await bench.mapping(taskId)).toBeUndefined();
  expect(bench.artifact(taskId, 'public/buildbot/status.json')).toContain(
    results === 3 ? '"resultName": "SKIPPED"' : '"resultName": null',
  );
});

it('W41: a build was stopped, and its task cannot be canceled any more: the mapping ends all the same', async () => {
  bench = await startBench({ claimTimeoutMs: 60 * MINUTE });
  const { taskId } = await bench.building({ deadlineInMs: 30 * MINUTE });
  await bench.buildbot.stopBuild('build', 0);
  bench.one.meanwhile('queue.cancelTask', 'before', () => bench.forward(40 * MINUTE));
  await bench.look(taskId);
  await sweepUntil(async () => (await bench.mapping(taskId)) === undefined);
  expect(bench.runs(taskId)).toEqual(['exception/deadline-exceeded']);
});

it('W42: it died after the first task of a shared build: the others get their results, too', async () => {
  bench = await startBench({ ci: { outcomeWaitMs: 30 * MINUTE } });
  const made = [await bench.submitted({ revision: 'r' }), await bench.submitted({ revision: 'r' })];
  await bench.buildbot.poll();
  for (const { taskId } of made) {
    await bench.look(taskId);
  }
  await bench.one.listen();
  // Before anything is resolved: what the message tells is kept, and then its hints die with the process.
  const dead = bench.one.dieAt('queue.resolve', 'after');
  await bench.buildbot.finish(made[0]?.brid ?? 0);
  await dead;
  const two = bench.another();
  await bench.forward(LEASE_MS);
  await sweepUntil(() => made.every(({ taskId }) => bench.runs(taskId)[0] === 'completed'), two);
  for (const { taskId } of made) {
    expect(bench.artifacts(taskId)).toContain(`${LOG}.gz`);
  }
});

it('W43: the message of an upload names no requests: it is got over, and the result is reported', async () => {
  bench = await startBench({ ci: { outcomeWaitMs: 30 * MINUTE } });
  await bench.one.listen();
  const { taskId, brid } = await bench.building();
  bench.buildbot.events.requestIds = 'empty';
  bench.broker.publish({
    exchange: EXCHANGE,
    routingKey: 'build.b.0.log_uploaded',
    payload: { payload: { build: {} } },
  });
  await bench.buildbot.finish(brid);
  await eventually(() => bench.mail.sent.some(({ routingKey }) => /log_uploaded/.test(routingKey)));
  await bench.db('buildrequests').where({ id: brid }).decrement('complete_at', 1801);
  await sweepUntil(() => bench.runs(taskId)[0] === 'completed');
  const next = await bench.building({ builder: 'other' });
  expect(bench.runs(next.taskId)).toEqual(['running']);
});

it('W27: what the queue will never accept does not stop the others', async () => {
  bench = await startBench();
  const refused = await bench.building({ builder: 'build' });
  const fine = await bench.building({ builder: 'other' });
  bench.one.fail('queue.resolve', 'before', new QueueError('queue-forbidden', 'no scope'), 1);
  await bench.buildbot.finish(refused.brid);
  await bench.buildbot.finish(fine.brid);
  await bench.look(refused.taskId);
  await bench.look(fine.taskId);
  expect([bench.runs(refused.taskId), bench.runs(fine.taskId)]).toEqual([['running'], ['completed']]);
  await sweepUntil(() => bench.runs(refused.taskId)[0] === 'completed');
});
