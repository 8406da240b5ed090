/** The queue client on the emulated queue. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { TaskQueue } from '../../src/ports.ts';
import { clientOf, WORKER } from '../support/queue-client.ts';
import { newTaskId, type QueueFixture, ROOT_CLIENT, startQueue, taskAt } from '../support/queue-emulator.ts';

const LIMITED = { clientId: 'limited', accessToken: 'limited-access-token-for-tests', scopes: ['queue:status:*'] };
const NOBODY = { clientId: 'nobody', accessToken: 'nobody-access-token-for-tests' };

let fixture: QueueFixture;
let queue: TaskQueue;
beforeEach(async () => {
  fixture = await startQueue({ clients: [ROOT_CLIENT, LIMITED], roles: { 'role-a': ['a:*', 'b'] } });
  queue = clientOf(fixture.emulator.rootUrl, { clock: fixture.clock });
});
afterEach(() => fixture.stop());

async function createTask(changes: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const taskId = newTaskId();
  await fixture.ok('createTask', taskId, taskAt(fixture.clock.now(), changes));
  return taskId;
}

async function collect(pages: AsyncIterable<readonly string[]>): Promise<string[]> {
  const all: string[] = [];
  for await (const page of pages) {
    all.push(...page);
  }
  return all;
}

const isAnError = (code: string, message: RegExp, isTransient = false) =>
  expect.objectContaining({ name: 'QueueError', code, isTransient, message: expect.stringMatching(message) });

describe('a task', () => {
  it('is read with its times as UTC milliseconds', async () => {
    const taskId = await createTask({ priority: 'high', scopes: ['assume:role-a'] });
    const now = fixture.clock.now();
    const common = {
      taskQueueId: 'buildbot/bridge',
      schedulerId: 'test-sched',
      taskGroupId: taskId,
      priority: 'high',
      deadline: now + 3_600_000,
      expires: now + 86_400_000,
    };
    expect(await queue.status(taskId)).toEqual({
      kind: 'present',
      value: {
        ...common,
        taskId,
        retriesLeft: 5,
        runs: [{ runId: 0, state: 'pending', reasonCreated: 'scheduled', scheduled: now }],
      },
    });
    expect(await queue.task(taskId)).toEqual({
      kind: 'present',
      value: { ...common, scopes: ['assume:role-a'], payload: { buildername: 'runtests' } },
    });
  });

  it('that the queue does not have is absent', async () => {
    const taskId = newTaskId();
    expect(await queue.status(taskId)).toEqual({ kind: 'absent' });
    expect(await queue.task(taskId)).toEqual({ kind: 'absent' });
  });

  it('that may not be read is unreadable', async () => {
    const taskId = await createTask();
    fixture.emulator.setScopes(LIMITED.clientId, []);
    const limited = clientOf(fixture.emulator.rootUrl, { credentials: LIMITED });
    expect(await limited.status(taskId)).toEqual({
      kind: 'unreadable',
      error: isAnError('queue-forbidden', new RegExp(`queue:status:${taskId}`)),
    });
  });
});

describe('a run', () => {
  it('is claimed, kept and resolved, each as often as one likes', async () => {
    const taskId = await createTask();
    const claimed = await queue.claim(taskId, 0);
    const takenUntil = fixture.clock.now() + 20 * 60_000;
    const scheduled = fixture.clock.now();
    expect(claimed.runs).toEqual([
      { runId: 0, state: 'running', reasonCreated: 'scheduled', scheduled, ...WORKER, takenUntil },
    ]);
    await queue.claim(taskId, 0);
    fixture.clock.advance(60_000);
    expect(await queue.reclaim(taskId, 0)).toEqual({ takenUntil: fixture.clock.now() + 20 * 60_000 });
    const resolved = await queue.resolve(taskId, 0, { state: 'completed' });
    expect(resolved.runs).toMatchObject([{ state: 'completed', reasonResolved: 'completed' }]);
    expect(await queue.resolve(taskId, 0, { state: 'completed' })).toEqual(resolved);
  });

  it('is resolved as failed, or with the reason of an exception', async () => {
    const [failed, broken] = [await createTask(), await createTask({ retries: 0 })];
    await queue.claim(failed, 0);
    await queue.claim(broken, 0);
    expect((await queue.resolve(failed, 0, { state: 'failed' })).runs).toMatchObject([{ state: 'failed' }]);
    const { runs } = await queue.resolve(broken, 0, { state: 'exception', reason: 'malformed-payload' });
    expect(runs).toMatchObject([{ state: 'exception', reasonResolved: 'malformed-payload' }]);
  });

  it('of another worker, or resolved otherwise, is a conflict', async () => {
    const taskId = await createTask();
    await fixture.ok('claimTask', taskId, 0, { workerGroup: 'other', workerId: 'other' });
    await expect(queue.claim(taskId, 0)).rejects.toEqual(isAnError('queue-conflict', /^claimTask: /));
    await queue.resolve(taskId, 0, { state: 'failed' });
    await expect(queue.resolve(taskId, 0, { state: 'completed' })).rejects.toEqual(isAnError('queue-conflict', /./));
    await expect(queue.reclaim(taskId, 0)).rejects.toEqual(isAnError('queue-conflict', /^reclaimTask: /));
  });

  it('that does not exist is not found', async () => {
    await expect(queue.claim(newTaskId(), 0)).rejects.toEqual(isAnError('queue-not-found', /^claimTask: /));
    const taskId = await createTask();
    await expect(queue.claim(taskId, 1)).rejects.toMatchObject({ context: { taskId, runId: 1, statusCode: 404 } });
  });

  it('cannot be claimed without the scope, which the error names', async () => {
    const taskId = await createTask();
    const limited = clientOf(fixture.emulator.rootUrl, { credentials: LIMITED });
    const error = isAnError('queue-forbidden', /queue:claim-task:buildbot\/bridge/);
    await expect(limited.claim(taskId, 0)).rejects.toEqual(error);
  });

  it('cannot be claimed with credentials that are unknown, which the error does not show', async () => {
    const taskId = await createTask();
    const failure: unknown = await clientOf(fixture.emulator.rootUrl, { credentials: NOBODY })
      .claim(taskId, 0)
      .catch((error: unknown) => error);
    expect(failure).toEqual(isAnError('queue-forbidden', /^claimTask: /));
    expect(JSON.stringify(failure, Object.getOwnPropertyNames(failure))).not.toContain(NOBODY.accessToken);
  });

  it('is claimed by the time that the bridge goes by, whatever the machine shows', async () => {
    const taskId = await createTask();
    const signed = (ms: number) => clientOf(fixture.emulator.rootUrl, { signedAt: () => Date.now() + ms });
    await expect(signed(3_600_000).claim(taskId, 0)).rejects.toEqual(isAnError('queue-forbidden', /timestamp/));
    expect(await signed(14 * 60_000).claim(taskId, 0)).toMatchObject({ runs: [{ state: 'running' }] });
  });

  it('follows another one when the task is rerun, and ends when it is cancelled', async () => {
    const taskId = await createTask();
    await queue.claim(taskId, 0);
    await queue.resolve(taskId, 0, { state: 'completed' });
    expect((await queue.rerunTask(taskId)).runs).toMatchObject([{}, { runId: 1, reasonCreated: 'rerun' }]);
    const { runs } = await queue.cancelTask(taskId);
    expect(runs).toMatchObject([{}, { state: 'exception', reasonResolved: 'canceled' }]);
    await expect(queue.cancelTask(newTaskId())).rejects.toEqual(isAnError('queue-not-found', /^cancelTask: /));
  });

  it('that a request names wrongly is invalid', async () => {
    await expect(queue.claim('not a task id', 0)).rejects.toEqual(isAnError('queue-invalid', /taskId/));
  });
});

describe('many statuses', () => {
  it('are read in batches, absent where the queue has nothing', async () => {
    const present = [await createTask(), await createTask()];
    const absent = Array.from({ length: 1100 }, newTaskId);
    const all = await queue.statuses([...absent.slice(0, 600), ...present, ...absent.slice(600)]);
    expect(all.size).toBe(1102);
    expect(present.map((taskId) => all.get(taskId))).toMatchObject(
      present.map((taskId) => ({ kind: 'present', value: { taskId } })),
    );
    expect(absent.every((taskId) => all.get(taskId)?.kind === 'absent')).toBe(true);
  });

  it('are none for no task', async () => {
    expect((await queue.statuses([])).size).toBe(0);
  });

  it('are all unreadable when the queue cannot be asked', async () => {
    fixture.faults.http.push({ path: /tasks\/status/, takesEffect: false, outcome: { kind: 'status', status: 503 } });
    const taskIds = [newTaskId(), newTaskId()];
    const all = await queue.statuses(taskIds);
    const unreadable = { kind: 'unreadable', error: isAnError('queue-unavailable', /^statuses: /, true) };
    expect([...all]).toEqual(taskIds.map((taskId) => [taskId, unreadable]));
  });
});

describe('the lists', () => {
  it('go over all pages of pending tasks of the task queue', async () => {
    const taskIds: string[] = [];
    for (let batch = 0; batch < 5; batch += 1) {
      taskIds.push(...(await Promise.all(Array.from({ length: 41 }, () => createTask()))));
      fixture.clock.advance(1);
    }
    await createTask({ taskQueueId: 'buildbot/other' });
    let pages = 0;
    const found = new Set<string>();
    for await (const page of queue.listPending()) {
      pages += 1;
      for (const taskId of page) {
        found.add(taskId);
      }
    }
    expect(pages).toBe(2);
    expect(found).toEqual(new Set(taskIds));
  });

  it('come to an end, even where more tasks became pending in one millisecond than fit a page', async () => {
    await Promise.all(Array.from({ length: 205 }, () => createTask()));
    expect(new Set(await collect(queue.listPending())).size).toBeGreaterThan(200);
  });

  it('hold claimed tasks of this worker only', async () => {
    const [own, foreign] = [await createTask(), await createTask()];
    await queue.claim(own, 0);
    await fixture.ok('claimTask', foreign, 0, { workerGroup: WORKER.workerGroup, workerId: 'other' });
    expect(await collect(queue.listClaimed())).toEqual([own]);
    expect(await collect(queue.listPending())).toEqual([]);
  });

  it('say which scope is missing', async () => {
    const limited = clientOf(fixture.emulator.rootUrl, { credentials: LIMITED });
    const error = isAnError('queue-forbidden', /queue:pending-list:buildbot\/bridge/);
    await expect(collect(limited.listPending())).rejects.toEqual(error);
  });
});

describe('scopes', () => {
  it('are expanded by auth, and believed for five minutes', async () => {
    const expected = expect.arrayContaining(['a:*', 'b', 'c']);
    expect(await queue.expandScopes(['assume:role-a', 'c'])).toEqual(expected);
    fixture.faults.http.push({ path: /auth/, takesEffect: false, outcome: { kind: 'status', status: 500 } });
    fixture.clock.advance(5 * 60_000 - 1);
    expect(await queue.expandScopes(['c', 'assume:role-a'])).toEqual(expected);
    fixture.clock.advance(1);
    await expect(queue.expandScopes(['assume:role-a', 'c'])).rejects.toEqual(isAnError('queue-unavailable', /./, true));
  });
});
