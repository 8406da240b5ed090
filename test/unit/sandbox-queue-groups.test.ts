/** Methods of the emulated queue for task groups, dependents and priorities, as they are in a real 106. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { newTaskId, type QueueFixture, ROOT_CLIENT, startQueue, taskAt } from '../support/queue-emulator.ts';

const worker = { workerGroup: 'g', workerId: 'w' };
const limited = { clientId: 'limited', accessToken: 'limited-access-token-for-tests', scopes: [] };

let queue: QueueFixture;
beforeEach(async () => {
  queue = await startQueue({ clients: [ROOT_CLIENT, limited] });
});
afterEach(() => queue.stop());

async function create(changes: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now(), changes));
  return taskId;
}

const statusOf = (taskId: string) => queue.emulator.tasks.get(taskId)?.status;
const last = () => queue.messages.at(-1);

describe('a task group', () => {
  it('is sealed once, and takes no more tasks, or so it says', async () => {
    const first = await create();
    expect(await queue.ok('getTaskGroup', first)).not.toHaveProperty('sealed');
    const sealed = '2026-11-23T21:00:00.000Z';
    expect(await queue.ok('sealTaskGroup', first)).toMatchObject({ taskGroupId: first, sealed });
    expect(last()).toMatchObject({
      exchange: 'exchange/taskcluster-queue/v1/task-group-sealed',
      routingKey: `primary.${first}.test-sched._`,
      payload: { taskGroupId: first, schedulerId: 'test-sched', sealed, version: 1 },
    });
    queue.clock.advance(1000);
    expect(await queue.ok('sealTaskGroup', first)).toMatchObject({ sealed });
    expect(await queue.ok('listTaskGroup', first)).toMatchObject({ sealed });
    const late = newTaskId();
    const task = taskAt(queue.clock.now(), { taskGroupId: first });
    expect(await queue.call('createTask', [late, task])).toMatchObject({ status: 409, code: 'RequestConflict' });
    expect(statusOf(late)?.state).toBe('pending');
  });

  it('is cancelled when it is sealed: whatever is not resolved', async () => {
    const done = await create();
    await queue.ok('claimTask', done, 0, worker);
    await queue.ok('reportCompleted', done, 0);
    const running = await create({ taskGroupId: done });
    await queue.ok('claimTask', running, 0, worker);
    const waiting = await create({ taskGroupId: done, dependencies: [running] });
    expect(await queue.call('cancelTaskGroup', [done])).toMatchObject({ status: 409, code: 'RequestConflict' });
    await queue.ok('sealTaskGroup', done);
    const counts = { taskGroupId: done, taskGroupSize: 3, cancelledCount: 2 };
    expect(await queue.ok('cancelTaskGroup', done)).toEqual({ ...counts, taskIds: [running, waiting] });
    expect([done, running, waiting].map((id) => statusOf(id)?.runs.at(-1)?.reasonResolved)).toEqual([
      ...['completed', 'canceled', 'canceled'],
    ]);
    expect(queue.brief().filter((line) => line.startsWith('task-exception'))).toHaveLength(2);
    expect(last()?.payload).toHaveProperty('sealed');
    expect(await queue.ok('cancelTaskGroup', done)).toMatchObject({ cancelledCount: 0, taskIds: [] });
  });

  it('needs scopes to be sealed, cancelled or given a priority, and has to exist', async () => {
    const taskId = await create();
    for (const [method, ...more] of [
      ['sealTaskGroup'],
      ['cancelTaskGroup'],
      ['changeTaskGroupPriority', { newPriority: 'high' }],
    ] as const) {
      expect(await queue.call(method, [taskId, ...more], limited)).toMatchObject({ status: 403 });
      expect(await queue.call(method, [newTaskId(), ...more])).toMatchObject({ status: 404 });
    }
  });
});

it('tasks that depend on another one are listed', async () => {
  const first = await create();
  const dependents = [await create({ dependencies: [first] }), await create({ dependencies: [first] })].sort();
  expect(await queue.ok('listDependentTasks', first)).toMatchObject({
    taskId: first,
    tasks: dependents.map((taskId) => ({ status: { taskId, state: 'unscheduled' }, task: { dependencies: [first] } })),
  });
  expect(await queue.call('listDependentTasks', [newTaskId()])).toMatchObject({ status: 404 });
});

describe('a priority', () => {
  it('is changed for a task that was never resolved', async () => {
    const taskId = await create({ priority: 'low' });
    const change = (newPriority: string) => queue.call('changeTaskPriority', [taskId, { newPriority }]);
    expect(await change('high')).toMatchObject({ answer: { status: { taskId, priority: 'high' } } });
    expect(last()).toMatchObject({
      exchange: 'exchange/taskcluster-queue/v1/task-priority-changed',
      payload: { oldPriority: 'low', newPriority: 'high', status: { priority: 'high' }, version: 1 },
    });
    expect(await queue.ok('task', taskId)).toMatchObject({ priority: 'high' });
    // The real one has the same words for a priority that is no other.
    expect(await change('high')).toMatchObject({ status: 409, message: expect.stringContaining('already resolved') });
    expect(await change('normal')).toMatchObject({ status: 400, code: 'InputValidationError' });
    await queue.ok('cancelTask', taskId);
    expect(await change('low')).toMatchObject({ status: 409 });
    await queue.ok('rerunTask', taskId);
    expect(await change('low')).toMatchObject({ status: 409 });
  });

  it('is changed for a whole group', async () => {
    const first = await create({ priority: 'low' });
    const second = await create({ taskGroupId: first, priority: 'high' });
    const third = await create({ taskGroupId: first });
    const event = { taskGroupId: first, schedulerId: 'test-sched', newPriority: 'high', tasksAffected: 2 };
    const answer = await queue.ok('changeTaskGroupPriority', first, { newPriority: 'high' });
    expect(answer).toEqual({ ...event, taskIds: [first, third] });
    expect(last()).toMatchObject({ payload: { ...event, version: 1 } });
    expect([first, second, third].map((id) => statusOf(id)?.priority)).toEqual(['high', 'high', 'high']);
    expect(await queue.ok('claimWork', 'buildbot/bridge', { ...worker, tasks: 3 })).toMatchObject({
      tasks: [{ task: { priority: 'high' } }, {}, {}],
    });
  });
});

describe('a task queue', () => {
  it('counts its pending and claimed tasks', async () => {
    await create();
    const claimed = await create();
    await queue.ok('claimTask', claimed, 0, worker);
    queue.clock.advance(1);
    await queue.ok('reclaimTask', claimed, 0);
    const counts = { taskQueueId: 'buildbot/bridge', pendingTasks: 1, claimedTasks: 1 };
    expect(await queue.ok('taskQueueCounts', 'buildbot/bridge')).toMatchObject(counts);
    queue.clock.advance(20 * 60_000);
    expect(await queue.ok('taskQueueCounts', 'buildbot/bridge')).toMatchObject({ claimedTasks: 0 });
  });

  it('may be named in a URL with its slash as it is', async () => {
    for (const name of ['buildbot/bridge', 'buildbot%2Fbridge']) {
      for (const list of ['pending', 'claimed', 'counts']) {
        // Without credentials: what is refused was found.
        const answer = await fetch(`${queue.emulator.rootUrl}/api/queue/v1/task-queues/${name}/${list}`);
        expect(answer.status).toBe(403);
      }
    }
  });
});
