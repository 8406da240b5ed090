/** What was seen of a real queue (106) that no recording shows. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';

const worker = { workerGroup: 'g', workerId: 'w' };
const listed = z.object({ tasks: z.array(z.object({ taskId: z.string() })) });
const claimed = z.object({ takenUntil: z.iso.datetime({ offset: true }) });
let queue: QueueFixture;
beforeEach(async () => {
  queue = await startQueue();
});
afterEach(() => queue.stop());

async function create(changes: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now(), changes));
  return taskId;
}

const runs = (taskId: string) => queue.emulator.tasks.get(taskId)?.status.runs.map((run) => run.state);

describe('what follows from a resolution', () => {
  it('comes some time after the call: the release of those that waited, and the end of the group', async () => {
    await queue.stop();
    queue = await startQueue({ resolutionDelayMs: 5000 });
    const first = await create();
    const second = await create({ taskGroupId: first, dependencies: [first] });
    await queue.ok('claimTask', first, 0, worker);
    queue.messages.length = 0;
    await queue.ok('reportCompleted', first, 0);
    queue.clock.advance(4999);
    queue.emulator.tick();
    expect([runs(second), queue.brief()]).toEqual([[], [`task-completed ${first} 0`]]);
    queue.clock.advance(1);
    queue.emulator.tick();
    await queue.emulator.published();
    expect([runs(second), queue.brief().at(-1)]).toEqual([['pending'], `task-pending ${second} 0`]);
    await queue.ok('cancelTask', second);
    expect(queue.brief().at(-1)).toBe(`task-exception ${second} 0`);
    queue.clock.advance(5000);
    queue.emulator.tick();
    await queue.emulator.published();
    expect(queue.brief().at(-1)).toBe(`task-group-resolved ${first} test-sched`);
  });
});

describe('pages of the lists of a task queue', () => {
  const pages = z.object({
    tasks: z.array(z.object({ taskId: z.string() })),
    continuationToken: z.string().optional(),
  });
  const read = async (method: string, query: object) => {
    const { tasks, continuationToken } = pages.parse(await queue.ok(method, 'buildbot/bridge', query));
    return { ids: tasks.map(({ taskId }) => taskId), continuationToken };
  };

  it.each(['listPendingTasks', 'listClaimedTasks'])('%s goes on from a time, and begins anew', async (method) => {
    const ids = [await create(), await create()];
    queue.clock.advance(1000);
    ids.push(await create());
    for (const taskId of method === 'listClaimedTasks' ? ids : []) {
      await queue.ok('claimTask', taskId, 0, worker);
      queue.clock.advance(taskId === ids[1] ? 1000 : 0);
    }
    const first = await read(method, { limit: 2 });
    expect(first.ids).toEqual(ids.slice(0, 2));
    // One of the same millisecond comes again.
    const second = await read(method, { limit: 2, continuationToken: first.continuationToken });
    expect(second).toEqual({ ids: [ids[0], ids[2]] });
    expect((await read(method, { continuationToken: 'nonsense' })).ids).toEqual(ids);
    expect(await queue.call(method, ['buildbot/bridge', { limit: 0 }])).toMatchObject({ status: 500 });
  });

  it('are asked for with known parameters only', async () => {
    const url = `${queue.emulator.rootUrl}/api/queue/v1/task-queues/buildbot%2Fbridge/pending`;
    for (const query of ['limt=1', 'limit=x', 'limit=-1', 'continuationToken=']) {
      const answer = await fetch(`${url}?${query}`);
      expect([answer.status, await answer.json()]).toMatchObject([400, { code: 'InvalidRequestArguments' }]);
    }
  });
});

describe('the list of claims', () => {
  const listing = z.object({
    tasks: z.array(z.object({ taskId: z.string(), runId: z.number(), claimed: z.string() })),
  });
  const list = async () => listing.parse(await queue.ok('listClaimedTasks', 'buildbot/bridge')).tasks;
  const claims = async () => (await list()).map(({ taskId, runId }) => `${taskId} ${runId}`);

  async function claim(changes: Readonly<Record<string, unknown>> = {}): Promise<string> {
    const taskId = await create(changes);
    await queue.ok('claimTask', taskId, 0, worker);
    queue.clock.advance(1000);
    return taskId;
  }

  it.each([
    ['reportCompleted', []],
    ['reportFailed', []],
    ['reportException', [{ reason: 'internal-error' }]],
    ['cancelTask', undefined],
  ] as const)('forgets a run after %s', async (method, args) => {
    const taskId = await claim();
    await queue.ok(method, taskId, ...(args ? [0, ...args] : []));
    expect(await claims()).toEqual([]);
  });

  it.each(['worker-shutdown', 'intermittent-task'])('keeps a run after a retry for %s', async (reason) => {
    const taskId = await claim();
    await queue.ok('reportException', taskId, 0, { reason });
    expect(await claims()).toEqual([`${taskId} 0`]);
    await queue.ok('cancelTask', taskId);
    expect(await claims()).toEqual([`${taskId} 0`]);
    queue.clock.advance(20 * 60_000);
    queue.emulator.tick();
    expect(await claims()).toEqual([]);
  });

  it('has the last claim of each task only, at the end when it was made again or renewed', async () => {
    const [first, second] = [await claim(), await claim()];
    expect(await claims()).toEqual([`${first} 0`, `${second} 0`]);
    await queue.ok('claimTask', first, 0, worker);
    const again = await list();
    expect(again).toMatchObject([{ taskId: second }, { taskId: first, claimed: '2026-11-23T21:00:02.000Z' }]);
    queue.clock.advance(1000);
    await queue.ok('reclaimTask', second, 0);
    expect(await claims()).toEqual([`${first} 0`, `${second} 0`]);
  });
});

describe('the emulated queue, like the real one', () => {
  it('fails when a run is reclaimed that was never claimed', async () => {
    const taskId = await create();
    expect(await queue.call('reclaimTask', [taskId, 0])).toMatchObject({ status: 500 });
    expect(runs(taskId)).toEqual(['pending']);
  });

  it('does not extend a claim that is made again', async () => {
    const taskId = await create();
    const first = claimed.parse(await queue.ok('claimTask', taskId, 0, worker));
    queue.clock.advance(60_000);
    const second = claimed.parse(await queue.ok('claimTask', taskId, 0, worker));
    expect(Date.parse(second.takenUntil)).toBe(Date.parse(first.takenUntil));
  });

  it('takes a repeated exception of the run before, and nothing else of it', async () => {
    const taskId = await create();
    await queue.ok('claimTask', taskId, 0, worker);
    await queue.ok('reportException', taskId, 0, { reason: 'worker-shutdown' });
    await queue.ok('reportException', taskId, 0, { reason: 'worker-shutdown' });
    expect(await queue.call('reportException', [taskId, 0, { reason: 'internal-error' }])).toMatchObject({
      status: 409,
    });
    expect(await queue.call('reportCompleted', [taskId, 0])).toMatchObject({ status: 409 });
    expect(runs(taskId)).toEqual(['exception', 'pending']);
  });

  it('announces the end of a group before that of the task whose deadline it was', async () => {
    const taskId = await create({ deadline: new Date(queue.clock.now() + 10_000).toJSON() });
    queue.messages.length = 0;
    queue.clock.advance(10_000 + 60_000);
    queue.emulator.tick();
    await queue.emulator.published();
    expect(queue.brief()).toEqual([`task-group-resolved ${taskId} test-sched`, `task-exception ${taskId} 0`]);
  });

  it('makes the first run of an unscheduled task by a rerun, and says so', async () => {
    const waiting = await create({ dependencies: [await create()] });
    expect(await queue.ok('rerunTask', waiting)).toMatchObject({ status: { runs: [{ reasonCreated: 'rerun' }] } });
    expect(queue.messages.at(-1)?.payload).toMatchObject({ status: { runs: [{ reasonCreated: 'rerun' }] } });
  });

  it('knows a worker for quarantine once it has reclaimed, not when it has only claimed', async () => {
    const taskId = await create();
    const args = ['buildbot', 'bridge', 'g', 'w', { quarantineUntil: '2026-11-24T00:00:00.000Z' }];
    await queue.ok('claimTask', taskId, 0, worker);
    expect(await queue.call('quarantineWorker', args)).toMatchObject({ status: 404, code: 'ResourceNotFound' });
    await queue.ok('claimTask', await create(), 0, worker);
    await queue.ok('reclaimTask', taskId, 0);
    expect(await queue.call('quarantineWorker', args)).toMatchObject({ ok: true });
    expect(await queue.call('claimTask', [await create(), 0, worker])).toMatchObject({ status: 500 });
  });

  it('takes artifacts of claimed runs only', async () => {
    const taskId = await create();
    const artifact = {
      storageType: 'reference',
      contentType: 'text/plain',
      url: 'http://x/y',
      expires: new Date(queue.clock.now() + 1000).toJSON(),
    };
    expect(await queue.call('createArtifact', [taskId, 0, 'public/a', artifact])).toMatchObject({ status: 400 });
    expect(await queue.call('createArtifact', [taskId, 3, 'public/a', artifact])).toMatchObject({ status: 400 });
  });

  it('still takes reports between the deadline and its resolution, but no claims, cancels or reruns', async () => {
    const deadline = new Date(queue.clock.now() + 10_000).toJSON();
    const [waiting, running] = [await create({ deadline }), await create({ deadline })];
    await queue.ok('claimTask', running, 0, worker);
    queue.clock.advance(10_001);
    const { tasks } = listed.parse(await queue.ok('listPendingTasks', 'buildbot/bridge'));
    expect(tasks).toEqual([]);
    for (const [method, args] of [
      ['claimTask', [waiting, 0, worker]],
      ['reclaimTask', [running, 0]],
      ['cancelTask', [waiting]],
      ['rerunTask', [running]],
    ] as const) {
      expect(await queue.call(method, args)).toMatchObject({ status: 409 });
    }
    await queue.ok('reportCompleted', running, 0);
    expect(runs(running)).toEqual(['completed']);
  });
});
