/** Faults at the emulated queue: calls that go wrong, messages that do not come as they should. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/eventually.ts';
import { newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';

let queue: QueueFixture;
beforeEach(async () => {
  queue = await startQueue();
});
afterEach(() => queue.stop());

const statusUrl = (taskId: string) => `${queue.emulator.rootUrl}/api/queue/v1/task/${taskId}/status`;
const PING = '/api/queue/v1/ping';

async function create(): Promise<string> {
  const taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now()));
  return taskId;
}

describe('calls', () => {
  it('can fail without effect, or with it', async () => {
    const [without, withEffect] = [newTaskId(), newTaskId()];
    const outcome = { kind: 'status', status: 503 } as const;
    queue.faults.http.push({ method: 'PUT', times: 1, takesEffect: false, outcome });
    queue.faults.http.push({ method: 'PUT', times: 1, takesEffect: true, outcome });
    const task = taskAt(queue.clock.now());
    expect(await queue.call('createTask', [without, task])).toMatchObject({ status: 503 });
    expect(await queue.call('createTask', [withEffect, task])).toMatchObject({ status: 503 });
    expect(queue.emulator.tasks.get(without)).toBeUndefined();
    expect(queue.emulator.tasks.get(withEffect)?.status.state).toBe('pending');
    expect(await queue.call('createTask', [without, task])).toMatchObject({ ok: true });
  });

  it.each([false, true])('can be cut off (with effect: %s)', async (takesEffect) => {
    const taskId = await create();
    queue.faults.http.push({ method: 'POST', path: /cancel/, takesEffect, outcome: { kind: 'reset' } });
    await expect(queue.call('cancelTask', [taskId])).rejects.toThrow();
    expect(queue.emulator.tasks.get(taskId)?.status.state).toBe(takesEffect ? 'exception' : 'pending');
  });

  it.each([false, true])('can hang until the caller gives up (with effect: %s)', async (takesEffect) => {
    queue.faults.http.push({ path: /ping/, takesEffect, outcome: { kind: 'hang' } });
    const call = fetch(queue.emulator.rootUrl + PING, { signal: AbortSignal.timeout(200) });
    await expect(call).rejects.toThrow('timeout');
  });

  it('can be slow', async () => {
    queue.faults.http.push({ path: /ping/, takesEffect: true, outcome: { kind: 'slow', ms: 5000 } });
    let isAnswered = false;
    const call = fetch(queue.emulator.rootUrl + PING).then((response) => {
      isAnswered = true;
      return response.status;
    });
    // The status call is made later and answered all the same: the slow one has surely arrived.
    expect((await fetch(statusUrl(newTaskId()))).status).toBe(403);
    expect(isAnswered).toBe(false);
    await eventually(
      () => {
        queue.clock.advance(5000);
        return isAnswered;
      },
      { what: 'the slow answer' },
    );
    expect(await call).toBe(200);
  });

  it('do not keep the queue from stopping', async () => {
    queue.faults.http.push({ path: /ping/, takesEffect: true, outcome: { kind: 'hang' } });
    const call = fetch(queue.emulator.rootUrl + PING);
    const outcome = expect(call).rejects.toThrow();
    await eventually(() => fetch(statusUrl(newTaskId())), { what: 'another answer' });
    await queue.stop();
    await outcome;
  });
});

it('tells of each call and each message that it hits, and of no other', async () => {
  const hits: string[] = [];
  const onHit = (what: string) => void hits.push(what);
  queue.faults.http.push({
    path: /ping/,
    times: 1,
    takesEffect: true,
    outcome: { kind: 'status', status: 503 },
    onHit,
  });
  queue.faults.messages.push({ key: /task-pending/, outcome: { kind: 'drop' }, onHit });
  const taskId = await create();
  await fetch(queue.emulator.rootUrl + PING);
  await fetch(queue.emulator.rootUrl + PING);
  expect(hits).toHaveLength(2);
  expect(hits[0]).toMatch(new RegExp(`^exchange/taskcluster-queue/v1/task-pending primary\\.${taskId}\\.0\\.`));
  expect(hits[1]).toBe(`GET ${PING}`);
});

describe('messages', () => {
  it('can be lost or repeated', async () => {
    queue.faults.messages.push({ key: /task-defined/, outcome: { kind: 'drop' } });
    queue.faults.messages.push({ key: /task-pending/, outcome: { kind: 'repeat' } });
    const taskId = await create();
    expect(queue.brief()).toEqual([`task-pending ${taskId} 0`, `task-pending ${taskId} 0`]);
  });

  it('can be overtaken by the next one', async () => {
    queue.faults.messages.push({ key: /task-defined/, outcome: { kind: 'reorder' } });
    const taskId = await create();
    expect(queue.brief()).toEqual([`task-pending ${taskId} 0`, `task-defined ${taskId} _`]);
  });

  it('can be overtaken by the next one of a kind', async () => {
    const [key, behind] = [/task-pending/, /task-pending/];
    queue.faults.messages.push({ key, times: 1, outcome: { kind: 'reorder', behind } });
    const [first, second] = [await create(), await create()];
    expect(queue.brief().slice(1)).toEqual([
      `task-defined ${second} _`,
      `task-pending ${second} 0`,
      `task-pending ${first} 0`,
    ]);
  });

  it('can be late', async () => {
    queue.faults.messages.push({ key: /task-pending/, outcome: { kind: 'delay', ms: 1000 } });
    const taskId = await create();
    expect(queue.brief()).toEqual([`task-defined ${taskId} _`]);
    queue.clock.advance(1000);
    await eventually(() => queue.brief().includes(`task-pending ${taskId} 0`), { what: 'the late message' });
  });
});
