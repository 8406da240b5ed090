/** The emulated queue while Pulse is down, as it was seen of a real one (106): effect first, then waits, then errors. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/eventually.ts';
import { newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';

const worker = { workerGroup: 'g', workerId: 'w' };
const DELAY = 30_000;

let queue: QueueFixture;
let expires: string;
beforeEach(async () => {
  queue = await startQueue();
  expires = new Date(queue.clock.now() + 3_600_000).toJSON();
});
afterEach(() => queue.stop());

async function aTask(retries = 1): Promise<string> {
  const taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now(), { retries }));
  return taskId;
}

async function aRunningTask(retries = 1): Promise<string> {
  const taskId = await aTask(retries);
  await queue.ok('claimTask', taskId, 0, worker);
  return taskId;
}

/** Calls while Pulse is down: what is answered, and after how many waits for a message. */
async function callWithoutPulse(method: string, args: readonly unknown[]) {
  queue.pulse.isDown = true;
  const start = queue.clock.now();
  let isAnswered = false;
  const pending = queue.call(method, args).finally(() => {
    isAnswered = true;
  });
  await eventually(
    () => {
      if (!isAnswered && queue.clock.sleepers() > 0) {
        queue.clock.advance(DELAY);
      }
      return isAnswered;
    },
    { what: 'an answer', intervalMs: 5 },
  );
  queue.pulse.isDown = false;
  const result = await pending;
  return { status: result.ok ? 200 : result.status, waits: (queue.clock.now() - start) / DELAY };
}

const state = (taskId: string) => queue.emulator.tasks.get(taskId)?.status.runs.map((run) => run.state);

describe('while Pulse is down', () => {
  it.each([
    ['claimTask', (id: string) => [id, 0, worker], ['running'], aTask],
    ['reportCompleted', (id: string) => [id, 0], ['completed'], aRunningTask],
    ['reportFailed', (id: string) => [id, 0], ['failed'], aRunningTask],
    ['cancelTask', (id: string) => [id], ['exception'], aTask],
    ['cancelTask', (id: string) => [id], ['exception'], aRunningTask],
  ] as const)('%s takes effect, waits and fails', async (method, args, expected, make) => {
    const taskId = await make();
    expect(await callWithoutPulse(method, args(taskId))).toEqual({ status: 500, waits: 1 });
    expect(state(taskId)).toEqual(expected);
    expect(await queue.call(method, args(taskId))).toMatchObject({ ok: true });
    expect(state(taskId)).toEqual(expected);
  });

  it.each([
    ['reference', { contentType: 'text/plain', url: 'http://host/x' }],
    ['link', { artifact: 'public/x' }],
    ['error', { reason: 'file-missing-on-worker', message: 'gone' }],
  ])('an artifact of type %s is made, and the call fails', async (storageType, more) => {
    const taskId = await aRunningTask();
    const args = [taskId, 0, 'public/a', { storageType, expires, ...more }];
    expect(await callWithoutPulse('createArtifact', args)).toEqual({ status: 500, waits: 1 });
    expect(queue.emulator.tasks.get(taskId)?.artifacts).toMatchObject([{ name: 'public/a' }]);
    expect(await queue.call('createArtifact', args)).toMatchObject({ ok: true });
  });

  it('calls that can do without their messages only wait', async () => {
    const created = newTaskId();
    const args = [created, taskAt(queue.clock.now())];
    expect(await callWithoutPulse('createTask', args)).toEqual({ status: 200, waits: 2 });
    const shutdown = { reason: 'worker-shutdown' };
    const retried = await aRunningTask();
    expect(await callWithoutPulse('reportException', [retried, 0, shutdown])).toEqual({ status: 200, waits: 2 });
    expect(state(retried)).toEqual(['exception', 'pending']);
    const ended = await aRunningTask(0);
    expect(await callWithoutPulse('reportException', [ended, 0, shutdown])).toEqual({ status: 200, waits: 1 });
    expect(await callWithoutPulse('rerunTask', [ended])).toEqual({ status: 200, waits: 1 });
  });

  it('calls without messages are as always', async () => {
    const taskId = await aRunningTask();
    const s3 = { storageType: 's3', contentType: 'text/plain', expires };
    for (const [method, args] of [
      ['reclaimTask', [taskId, 0]],
      ['createArtifact', [taskId, 0, 'public/a', s3]],
      ['status', [taskId]],
    ] as const) {
      expect(await callWithoutPulse(method, args)).toEqual({ status: 200, waits: 0 });
    }
  });
});
