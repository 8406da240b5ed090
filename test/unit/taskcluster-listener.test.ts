import { describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import {
  createTaskclusterListener,
  type TaskclusterListenerOptions,
} from '../../src/listeners/taskcluster-listener.ts';
import type { Broker, SubscriptionOptions } from '../../src/ports.ts';
import { createInProcessBroker, matchesTopic } from '../../src/sandbox/broker.ts';
import { countInputs } from '../support/count-inputs.ts';
import { eventually } from '../support/eventually.ts';

const TASK_ID = 'RwycG7IhT6CSdg6WvVhkGw';
/** 22 characters of a slugid's, but no UUID of version 4. */
const NOT_VERSION_4 = 'RwycG7IhJ6CSdg6WvVhkGw';
const PENDING = 'exchange/taskcluster-queue/v1/task-pending';
const EXCEPTION = 'exchange/taskcluster-queue/v1/task-exception';
const KEY = `primary.${TASK_ID}.0._._.buildbot.bridge.sched.BaB2_cO5SCyarhnpEAkKaw._`;

/** A listener on an in-process broker; `hints` are the tasks it asked to look at, `lines` what it logged. */
async function startListener(wishes: Partial<TaskclusterListenerOptions> = {}) {
  const hints: string[] = [];
  const inputs = countInputs();
  const lines: string[] = [];
  const broker = createInProcessBroker();
  const listener = createTaskclusterListener({
    broker,
    taskQueueId: 'buildbot/bridge',
    prefetch: 10,
    onHint: async (taskId) => {
      hints.push(taskId);
    },
    onGap: () => undefined,
    log: pino({ level: 'info' }, { write: (line) => lines.push(line) }),
    inputs,
    ...wishes,
  });
  await listener.start();
  const publish = (exchange: string, routingKey: string, payload: unknown) =>
    broker.publish({ exchange, routingKey, payload });
  return { broker, listener, hints, lines, publish, inputs };
}

/** One that delivers nothing, and knows what it was asked for. */
function aBroker(): { readonly broker: Broker; readonly asked: SubscriptionOptions[] } {
  const asked: SubscriptionOptions[] = [];
  const broker: Broker = {
    subscribe(options) {
      asked.push(options);
      return { start: async () => undefined, stop: async () => undefined };
    },
    close: async () => undefined,
  };
  return { broker, asked };
}

describe('the TC listener', () => {
  it('listens for pending tasks and exceptions of its own task queue', () => {
    const { broker, asked } = aBroker();
    createTaskclusterListener({
      ...{ broker, taskQueueId: 'buildbot/bridge', prefetch: 7, log: pino({ level: 'silent' }), inputs: countInputs() },
      onHint: async () => undefined,
      onGap: () => undefined,
    });
    const pattern = 'primary.*.*.*.*.buildbot.bridge.#';
    expect(asked[0]).toMatchObject({
      name: 'tasks',
      prefetch: 7,
      bindings: [
        { exchange: PENDING, pattern },
        { exchange: EXCEPTION, pattern },
      ],
    });
    expect(matchesTopic(pattern, KEY)).toBe(true);
    expect(matchesTopic(pattern, KEY.replace('bridge', 'other'))).toBe(false);
  });

  it('asks for a look at the task of each message', async () => {
    const { publish, hints, listener, inputs } = await startListener();
    publish(PENDING, KEY, { status: { taskId: TASK_ID }, runId: 0 });
    publish(EXCEPTION, KEY, { status: { taskId: TASK_ID }, runId: 0 });
    await eventually(() => hints.length === 2);
    expect(hints).toEqual([TASK_ID, TASK_ID]);
    expect(inputs.counts).toEqual({ 'received task-message': 2 });
    await listener.stop();
  });

  it('hears nothing of other task queues and exchanges', async () => {
    const { publish, listener, inputs, hints } = await startListener();
    publish(PENDING, KEY.replace('.bridge.', '.other.'), { status: { taskId: TASK_ID }, runId: 0 });
    publish('exchange/taskcluster-queue/v1/task-running', KEY, { status: { taskId: TASK_ID }, runId: 0 });
    publish(PENDING, KEY, { status: { taskId: TASK_ID }, runId: 0 });
    await eventually(() => hints.length > 0);
    await listener.stop();
    expect(inputs.counts).toEqual({ 'received task-message': 1 });
  });

  it('counts, logs and drops what it cannot read, and goes on', async () => {
    const { publish, hints, lines, listener, inputs } = await startListener();
    publish(PENDING, KEY, { status: { taskId: 'nonsense' }, text: `\u001b[2J${'long'.repeat(1000)}` });
    publish(PENDING, KEY, { status: { taskId: TASK_ID } });
    await eventually(() => hints.length === 1);
    await listener.stop();
    expect(inputs.counts).toEqual({ 'received task-message': 2, 'rejected task-message': 1 });
    expect(lines).toHaveLength(1);
    const line: unknown = JSON.parse(lines[0] ?? '');
    expect(line).toMatchObject({ msg: 'malformed message dropped', reason: 'status.taskId: not a taskId' });
    expect(lines[0]?.length).toBeLessThan(600);
    expect(lines[0]).not.toMatch(/\p{Cc}[^\n]/u);
  });

  it('asks for no look at an id that the queue would refuse with all others of a batch', async () => {
    const { publish, hints, lines, listener, inputs } = await startListener();
    publish(PENDING, KEY, { status: { taskId: NOT_VERSION_4 } });
    publish(PENDING, KEY, { status: { taskId: TASK_ID } });
    await eventually(() => hints.length === 1);
    await listener.stop();
    expect(hints).toEqual([TASK_ID]);
    expect(inputs.counts).toEqual({ 'received task-message': 2, 'rejected task-message': 1 });
    expect(lines.map((line): unknown => JSON.parse(line))).toMatchObject([
      { msg: 'malformed message dropped', reason: 'status.taskId: not a taskId' },
    ]);
  });

  it('acknowledges what it cannot read, which would come again for ever', async () => {
    const { broker, asked } = aBroker();
    await startListener({ broker });
    const message = { exchange: PENDING, routingKey: KEY, body: Buffer.from('{'), isRedelivered: false };
    await expect(asked[0]?.onMessage(message)).resolves.toBeUndefined();
  });

  it('hears a message again whose hint was not followed', async () => {
    let tries = 0;
    const { publish, listener } = await startListener({
      onHint: async () => {
        tries += 1;
        if (tries === 1) {
          throw new Error('the database is away');
        }
      },
    });
    publish(PENDING, KEY, { status: { taskId: TASK_ID }, runId: 0 });
    await eventually(() => tries === 2);
    await listener.stop();
  });

  it('says when messages may have been missed', async () => {
    let gaps = 0;
    const { listener } = await startListener({ onGap: () => (gaps += 1) });
    expect(gaps).toBe(1);
    await listener.stop();
  });
});
