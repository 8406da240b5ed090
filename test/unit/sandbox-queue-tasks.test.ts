/** What the emulated queue does with tasks beyond what was recorded. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { systemClock } from '../../src/clock.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator } from '../../src/sandbox/queue/emulator.ts';
import { eventually } from '../support/eventually.ts';
import { connect, newTaskId, type QueueFixture, ROOT_CLIENT, startQueue, taskAt } from '../support/queue-emulator.ts';

const MINUTE = 60_000;
const worker = { workerGroup: 'g', workerId: 'w' };

let queue: QueueFixture;
beforeEach(async () => {
  queue = await startQueue();
});
afterEach(() => queue.stop());

async function create(changes: Readonly<Record<string, unknown>> = {}, taskId = newTaskId()): Promise<string> {
  await queue.ok('createTask', taskId, taskAt(queue.clock.now(), changes));
  return taskId;
}

async function tickAfter(ms: number): Promise<void> {
  queue.clock.advance(ms);
  queue.emulator.tick();
  await queue.emulator.published();
}

const statusOf = (taskId: string) => queue.emulator.tasks.get(taskId)?.status;

describe('creating a task', () => {
  it('fills in the defaults', async () => {
    const taskId = newTaskId();
    const { expires: _, ...definition } = taskAt(queue.clock.now());
    await queue.ok('createTask', taskId, definition);
    expect(await queue.ok('task', taskId)).toMatchObject({
      ...{ provisionerId: 'buildbot', workerType: 'bridge', taskQueueId: 'buildbot/bridge', projectId: 'none' },
      ...{ taskGroupId: taskId, priority: 'lowest', retries: 5, requires: 'all-completed', dependencies: [] },
      expires: '2027-11-23T22:00:00.000Z',
    });
  });

  it('takes the same definition again and announces it again', async () => {
    const taskId = await create({ priority: 'low' });
    await create({ priority: 'low' }, taskId);
    expect(queue.brief()).toEqual([
      ...[`task-defined ${taskId} _`, `task-pending ${taskId} 0`],
      ...[`task-defined ${taskId} _`, `task-pending ${taskId} 0`],
    ]);
  });

  it('refuses another definition under the same id', async () => {
    const taskId = await create();
    const other = taskAt(queue.clock.now(), { payload: {} });
    expect(await queue.call('createTask', [taskId, other])).toMatchObject({ status: 409, code: 'RequestConflict' });
  });

  it.each([
    ['no metadata', { metadata: undefined }, "data must have required property 'metadata'"],
    ['no task queue', { taskQueueId: undefined }, 'at least a provisionerId and a workerType or a taskQueueId'],
    ['two task queues', { provisionerId: 'a', workerType: 'b' }, 'taskQueueId must match'],
    ['a deadline in the past', { deadline: '2026-11-23T20:59:59.000Z' }, '`deadline` cannot be later than `created`'],
    ['a deadline too far', { deadline: '2026-11-29T20:59:59.000Z' }, 'cannot be more than 5 days into the future'],
    ['expiry before the deadline', { expires: '2026-11-23T21:30:00.000Z' }, '`expires` cannot be before `deadline`'],
    ['an unknown field', { colour: 'red' }, 'colour'],
    ['an unknown dependency', { dependencies: ['TksU7qkdTL-8b-G8Vj7HUA'] }, ' * TksU7qkdTL-8b-G8Vj7HUA'],
  ])('refuses %s', async (_, changes, message) => {
    const result = await queue.call('createTask', [newTaskId(), taskAt(queue.clock.now(), changes)]);
    expect(result).toMatchObject({ ok: false, status: 400, message: expect.stringContaining(message) });
    expect(queue.messages).toEqual([]);
  });

  it('refuses a malformed task id', async () => {
    const result = await queue.call('status', ['no-slugid']);
    expect(result).toMatchObject({ status: 400, code: 'InvalidRequestArguments' });
  });

  it('sends copies along the routes of the task', async () => {
    await create({ routes: ['index.a.b'] });
    expect(queue.messages.map(({ cc }) => cc)).toEqual([['route.index.a.b'], ['route.index.a.b']]);
  });
});

describe('dependencies', () => {
  async function resolve(taskId: string, method: 'reportCompleted' | 'reportFailed'): Promise<void> {
    await queue.ok('claimTask', taskId, 0, worker);
    await queue.ok(method, taskId, 0);
  }

  it('release a chain of tasks, one after the other, and the group is resolved at the end', async () => {
    const first = await create();
    const second = await create({ taskGroupId: first, dependencies: [first] });
    const third = await create({ taskGroupId: first, dependencies: [first, second] });
    expect([statusOf(second)?.state, statusOf(third)?.state]).toEqual(['unscheduled', 'unscheduled']);
    await resolve(first, 'reportCompleted');
    expect([statusOf(second)?.state, statusOf(third)?.state]).toEqual(['pending', 'unscheduled']);
    await resolve(second, 'reportCompleted');
    expect(statusOf(third)?.state).toBe('pending');
    await resolve(third, 'reportCompleted');
    expect(queue.brief().slice(-2)).toEqual([`task-completed ${third} 0`, `task-group-resolved ${first} test-sched`]);
    expect(queue.brief().filter((line) => line.startsWith('task-group-resolved'))).toHaveLength(1);
  });

  it('need success, unless the task says all-resolved', async () => {
    const first = await create();
    const strict = await create({ dependencies: [first] });
    const lenient = await create({ dependencies: [first], requires: 'all-resolved' });
    await resolve(first, 'reportFailed');
    expect([statusOf(strict)?.state, statusOf(lenient)?.state]).toEqual(['unscheduled', 'pending']);
  });

  it('are not waited for when they are met already, or when the task is scheduled by hand', async () => {
    const first = await create();
    const waiting = await create({ dependencies: [first] });
    await queue.ok('scheduleTask', waiting);
    expect(statusOf(waiting)?.state).toBe('pending');
    await resolve(first, 'reportCompleted');
    const late = await create({ dependencies: [first] });
    expect(statusOf(late)?.state).toBe('pending');
    expect(queue.brief().filter((line) => line === `task-pending ${waiting} 0`)).toHaveLength(1);
  });

  it('stay unmet while a dependency is retried', async () => {
    const first = await create({ retries: 1 });
    const waiting = await create({ dependencies: [first], requires: 'all-resolved' });
    await queue.ok('claimTask', first, 0, worker);
    await queue.ok('reportException', first, 0, { reason: 'worker-shutdown' });
    expect(statusOf(waiting)?.state).toBe('unscheduled');
  });
});

describe('time', () => {
  it('lets a claim run out: exception, then a new run while retries are left', async () => {
    const taskId = await create({ retries: 1, deadline: '2026-11-23T23:00:00.000Z' });
    await queue.ok('claimTask', taskId, 0, worker);
    queue.messages.length = 0;
    await tickAfter(20 * MINUTE - 1);
    expect(queue.messages).toEqual([]);
    await tickAfter(1);
    expect(queue.brief()).toEqual([`task-exception ${taskId} 0`, `task-pending ${taskId} 1`]);
    expect(queue.messages[0]?.routingKey).toContain(`.${taskId}.0.g.w.buildbot.`);
    expect(statusOf(taskId)).toMatchObject({
      ...{ state: 'pending', retriesLeft: 0 },
      runs: [{ reasonResolved: 'claim-expired' }, { reasonCreated: 'retry' }],
    });
    await queue.ok('claimTask', taskId, 1, worker);
    await tickAfter(20 * MINUTE);
    expect(statusOf(taskId)).toMatchObject({ state: 'exception', runs: [{}, { reasonResolved: 'claim-expired' }] });
    expect(queue.brief().at(-1)).toBe(`task-group-resolved ${taskId} test-sched`);
  });

  it('keeps a claim that is renewed', async () => {
    const taskId = await create();
    await queue.ok('claimTask', taskId, 0, worker);
    await tickAfter(15 * MINUTE);
    expect(await queue.ok('reclaimTask', taskId, 0)).toMatchObject({ takenUntil: '2026-11-23T21:35:00.000Z' });
    await tickAfter(15 * MINUTE);
    expect(statusOf(taskId)?.state).toBe('running');
  });

  it('refuses claims at the deadline, but resolves the task a minute later', async () => {
    const taskId = await create({ deadline: '2026-11-23T21:05:00.000Z' });
    const unscheduled = await create({ deadline: '2026-11-23T21:05:00.000Z', dependencies: [taskId] });
    queue.messages.length = 0;
    await tickAfter(5 * MINUTE);
    expect(await queue.call('claimTask', [taskId, 0, worker])).toMatchObject({ status: 409 });
    expect(statusOf(taskId)?.state).toBe('pending');
    await tickAfter(MINUTE);
    for (const id of [taskId, unscheduled]) {
      expect(statusOf(id)).toMatchObject({ state: 'exception', runs: [{ reasonResolved: 'deadline-exceeded' }] });
      expect(queue.brief()).toContain(`task-exception ${id} 0`);
    }
    expect(await queue.call('rerunTask', [taskId])).toMatchObject({ status: 409, code: 'RequestConflict' });
  });

  it('leaves a claim that outlives the deadline to the deadline', async () => {
    const taskId = await create({ deadline: '2026-11-23T21:10:00.000Z' });
    await queue.ok('claimTask', taskId, 0, worker);
    await tickAfter(60 * MINUTE);
    expect(statusOf(taskId)?.runs).toMatchObject([{ reasonResolved: 'deadline-exceeded', workerId: 'w' }]);
  });

  it('forgets tasks that have expired', async () => {
    const taskId = await create();
    await tickAfter(25 * 60 * MINUTE);
    expect(await queue.call('status', [taskId])).toMatchObject({ status: 404 });
  });

  it('passes by itself where the clock is the real one', async () => {
    const messages: string[] = [];
    const real = createQueueEmulator({
      ...{ clock: systemClock, clients: [ROOT_CLIENT], faults: createFaults(), claimTimeoutMs: 10 },
      publish: ({ exchange }) => void messages.push(exchange),
    });
    await real.start();
    const client = await connect(real.rootUrl);
    const taskId = newTaskId();
    await client.createTask?.(taskId, taskAt(Date.now(), { retries: 0 }));
    await client.claimTask?.(taskId, 0, worker);
    await eventually(() => messages.some((exchange) => exchange.endsWith('task-exception')), { what: 'claim expiry' });
    await real.stop();
  });
});

describe('rerunning', () => {
  it('gives the retries back', async () => {
    const taskId = await create({ retries: 1 });
    for (const runId of [0, 1]) {
      await queue.ok('claimTask', taskId, runId, worker);
      await queue.ok('reportException', taskId, runId, { reason: 'worker-shutdown' });
    }
    expect(statusOf(taskId)).toMatchObject({ state: 'exception', retriesLeft: 0 });
    await queue.ok('rerunTask', taskId);
    expect(statusOf(taskId)).toMatchObject({ state: 'pending', retriesLeft: 1, runs: [{}, {}, { runId: 2 }] });
  });

  it('refuses reasons that a worker may not give', async () => {
    const taskId = await create();
    await queue.ok('claimTask', taskId, 0, worker);
    const result = await queue.call('reportException', [taskId, 0, { reason: 'superseded' }]);
    expect(result).toMatchObject({ status: 400, code: 'InputValidationError' });
  });
});

describe('lists', () => {
  const pageSchema = z.object({
    tasks: z.array(z.object({ taskId: z.string(), runId: z.number() })),
    continuationToken: z.string().optional(),
  });

  async function readPages(method: string, limit: number): Promise<string[][]> {
    const pages: string[][] = [];
    let token: string | undefined;
    do {
      const query = { limit, ...(token === undefined ? {} : { continuationToken: token }) };
      const { tasks, continuationToken } = pageSchema.parse(await queue.ok(method, 'buildbot/bridge', query));
      pages.push(tasks.map(({ taskId }) => taskId));
      token = continuationToken;
    } while (token !== undefined);
    return pages;
  }

  it('show what is pending and what is claimed, a page at a time', async () => {
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) {
      ids.push(await create());
      queue.clock.advance(1000);
    }
    await create({ taskQueueId: 'other/queue' });
    expect(await readPages('listPendingTasks', 2)).toEqual([ids.slice(0, 2), ids.slice(2, 4), ids.slice(4)]);
    expect(await queue.ok('pendingTasks', 'buildbot/bridge')).toMatchObject({ pendingTasks: 5 });
    for (const taskId of ids.slice(0, 3)) {
      await queue.ok('claimTask', taskId, 0, worker);
      queue.clock.advance(1000);
    }
    expect(await readPages('listPendingTasks', 5)).toEqual([ids.slice(3)]);
    expect(await readPages('listClaimedTasks', 2)).toEqual([ids.slice(0, 2), ids.slice(2, 3)]);
  });

  it('answer many statuses and tasks at once, without those that do not exist', async () => {
    const [a, b, missing] = [await create(), await create(), newTaskId()];
    // Seen on a real 106: each once, not in the order of the request, and none for none.
    const statuses = await queue.ok('statuses', { taskIds: [b, missing, a, b] });
    expect(statuses).toEqual({ statuses: [a, b].map((taskId) => ({ taskId, status: statusOf(taskId) })) });
    expect(await queue.ok('statuses', { taskIds: [] })).toEqual({ statuses: [] });
    expect(await queue.ok('statuses', {})).toEqual({ statuses: [] });
    const first = await queue.ok('tasks', { taskIds: [a, b] }, { limit: 1 });
    expect(first).toMatchObject({ tasks: [{ taskId: a, task: { taskQueueId: 'buildbot/bridge' } }] });
    expect(first).toHaveProperty('continuationToken');
  });

  it('show a task group', async () => {
    const first = await create();
    const second = await create({ taskGroupId: first });
    expect(await queue.ok('listTaskGroup', first)).toMatchObject({
      ...{ taskGroupId: first, schedulerId: 'test-sched', expires: '2026-11-24T22:00:00.000Z' },
      tasks: [{ status: { taskId: first } }, { status: { taskId: second } }],
    });
    const other = taskAt(queue.clock.now(), { taskGroupId: first, schedulerId: 'other' });
    expect(await queue.call('createTask', [newTaskId(), other])).toMatchObject({ status: 409 });
  });
});

describe('claimWork', () => {
  it('takes the most urgent task first, and nothing for a quarantined worker', async () => {
    const low = await create({ priority: 'low' });
    const high = await create({ priority: 'high' });
    const claimed = await queue.ok('claimWork', 'buildbot/bridge', { ...worker, tasks: 1 });
    expect(claimed).toMatchObject({ tasks: [{ status: { taskId: high }, runId: 0, task: {}, credentials: {} }] });
    const until = { quarantineUntil: '2026-11-23T21:10:00.000Z', quarantineInfo: 'test' };
    await queue.ok('quarantineWorker', 'buildbot', 'bridge', 'g', 'w', until);
    expect(await queue.ok('claimWork', 'buildbot/bridge', { ...worker, tasks: 1 })).toEqual({ tasks: [] });
    expect(await queue.ok('claimWork', 'buildbot/bridge', { workerGroup: 'g', workerId: 'v', tasks: 4 })).toMatchObject(
      { tasks: [{ status: { taskId: low } }] },
    );
  });
});
