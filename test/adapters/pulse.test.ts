import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import { matchesTopic } from '../../src/sandbox/broker.ts';
import { eventually } from '../support/eventually.ts';
import { rabbitmq } from '../support/services/index.ts';
import { describeOutages } from './pulse-outages.cases.ts';
import {
  asTaskcluster,
  cleanUp,
  consume,
  declareExchange,
  gate,
  logged,
  names,
  publish,
  setUp,
  undo,
  waiting,
} from './pulse-support.ts';

jest.setTimeout(60_000);

const complaints: unknown[] = [];
const complain = (error: unknown) => void complaints.push(error);

beforeAll(() => {
  process.on('unhandledRejection', complain).on('uncaughtException', complain);
});

afterEach(cleanUp);

afterAll(() => {
  process.off('unhandledRejection', complain).off('uncaughtException', complain);
  expect(complaints).toEqual([]);
  expect(logged.length).toBeGreaterThan(0);
  expect(logged.filter((line) => line.includes('bridge-pass') || line.includes('hunter2'))).toEqual([]);
});

describe('a subscription on a real broker', () => {
  it('declares a durable quorum queue, delivers, acknowledges', async () => {
    const { queue, exchange, broker, listen } = await setUp();
    const heard = await listen();
    await publish(exchange, 'one', 'two');
    await eventually(() => heard.texts.length === 2);
    expect(heard.messages[0]).toMatchObject({ exchange, routingKey: 'key', isRedelivered: false });
    expect(broker.status()).toMatchObject({ isConnected: true, reconnects: 0, lastError: null });
    // What was not acknowledged would wait again after the stop.
    await heard.subscription.stop();
    expect(await waiting(queue)).toBe(0);
    const queues = await rabbitmq().ctl('list_queues', '--no-table-headers', 'name', 'type', 'durable', 'auto_delete');
    expect(queues).toContain(`${queue}\tquorum\ttrue\tfalse`);
  });

  it('hears again what it gave back, and acknowledges only then', async () => {
    const { queue, exchange, listen } = await setUp();
    const heard = await listen(async (_text, { isRedelivered }) => {
      if (!isRedelivered) {
        throw new Error('not now');
      }
    });
    await publish(exchange, 'one');
    await eventually(() => heard.texts.length === 2);
    expect(heard.messages.map(({ isRedelivered }) => isRedelivered)).toEqual([false, true]);
    await heard.subscription.stop();
    expect(await waiting(queue)).toBe(0);
  });

  it('slows a message that always fails, and not the others', async () => {
    const { exchange, listen } = await setUp();
    const times: number[] = [];
    const heard = await listen(
      async (text) => {
        if (text === 'poison') {
          times.push(Date.now());
          throw new Error('always');
        }
      },
      { prefetch: 2 },
    );
    await publish(exchange, 'poison');
    await eventually(() => times.length === 1);
    await publish(exchange, ...Array.from({ length: 50 }, (_, index) => String(index)));
    await eventually(() => heard.texts.filter((text) => text !== 'poison').length === 50, { timeoutMs: 2000 });
    await eventually(() => times.length === 4, { what: 'the fourth delivery' });
    const waits = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    expect(waits[0]).toBeGreaterThanOrEqual(240);
    expect(waits[1]).toBeGreaterThanOrEqual(480);
    expect(waits[2]).toBeGreaterThanOrEqual(960);
  });

  it('has no more than `prefetch` messages under way', async () => {
    const { exchange, listen } = await setUp();
    const done = gate();
    const heard = await listen(() => done.opened, { prefetch: 3 });
    await publish(exchange, ...'abcdefgh');
    await eventually(() => heard.texts.length === 3);
    await publish(exchange, 'i');
    expect(heard.texts).toHaveLength(3);
    done.open();
    await eventually(() => heard.texts.length === 9);
  });

  it('stops when the message under way is done, and leaves the rest in the queue', async () => {
    const { queue, exchange, listen } = await setUp();
    const done = gate();
    const { subscription, texts } = await listen(() => done.opened, { prefetch: 1 });
    await publish(exchange, 'one', 'two');
    await eventually(() => texts.length === 1);
    let isStopped = false;
    const stopping = subscription.stop().then(() => {
      isStopped = true;
    });
    await publish(exchange, 'three');
    expect(isStopped).toBe(false);
    done.open();
    await stopping;
    expect(await waiting(queue)).toBe(2);
    expect(texts).toEqual(['one']);
  });

  it('gives back what fails while it stops, at once', async () => {
    const { queue, exchange, broker, listen, ...own } = await setUp();
    const { subscription, texts } = await listen(async () => {
      throw new Error('not now');
    });
    await publish(exchange, 'one');
    await eventually(() => texts.length >= 3, { what: 'a long wait before the next delivery' });
    const began = Date.now();
    await subscription.stop();
    expect(Date.now() - began).toBeLessThan(900);
    const next = await consume(broker, { queue, exchange, ...own });
    undo.push(() => next.subscription.stop());
    await eventually(() => next.messages[0]?.isRedelivered);
  });

  it('routes as the in-process broker does', async () => {
    const patterns = ['#', '*', '', 'a', 'a.*', 'a.#', '*.#', '#.b', 'a.#.c', '#.b.#', '*.*'];
    const keys = ['', 'a', 'a.b', 'a.b.c', 'b', 'a.c', 'b.b.b', 'c.a'];
    const { exchange } = names();
    const routed = await asTaskcluster(async (channel) => {
      await channel.assertExchange(exchange, 'topic', { durable: false });
      const queues = await Promise.all(patterns.map(() => channel.assertQueue('', { exclusive: true })));
      await Promise.all(queues.map(({ queue }, index) => channel.bindQueue(queue, exchange, patterns[index] ?? '')));
      keys.forEach((key) => void channel.publish(exchange, key, Buffer.from(key)));
      const found: string[][] = [];
      for (const { queue } of queues) {
        const matched: string[] = [];
        for (
          let got = await channel.get(queue, { noAck: true });
          got;
          got = await channel.get(queue, { noAck: true })
        ) {
          matched.push(got.content.toString());
        }
        found.push(matched);
      }
      await channel.deleteExchange(exchange);
      return found;
    });
    expect(routed).toEqual(patterns.map((pattern) => keys.filter((key) => matchesTopic(pattern, key))));
  });
});

describe('a topology that is not as it should be', () => {
  it('consumes on when the queue was deleted under it, with the same bindings', async () => {
    const { queue, exchange, broker, listen } = await setUp();
    const heard = await listen();
    await asTaskcluster((channel) => channel.deleteQueue(queue));
    await eventually(() => heard.gaps === 2, { what: 'consumption of a new queue' });
    await publish(exchange, 'one');
    await eventually(() => heard.texts.length === 1);
    expect(broker.status()).toMatchObject({ isConsuming: true, reconnects: 0, lastError: null });
  });

  it('finishes a message whose queue was deleted meanwhile', async () => {
    const { queue, exchange, listen } = await setUp();
    const done = gate();
    const heard = await listen(() => done.opened);
    await publish(exchange, 'one');
    await eventually(() => heard.texts.length === 1);
    await asTaskcluster((channel) => channel.deleteQueue(queue));
    await eventually(() => heard.gaps === 2);
    done.open();
    await publish(exchange, 'two');
    await eventually(() => heard.texts.includes('two'));
  });

  it('waits for an exchange that is not there yet, and does not declare it', async () => {
    const { queue, exchange, broker, ...own } = await setUp();
    await asTaskcluster((channel) => channel.deleteExchange(exchange));
    const heard = await consume(broker, { queue, exchange, ...own });
    undo.push(() => heard.subscription.stop());
    await eventually(() => broker.status().lastError !== null);
    expect(broker.status()).toMatchObject({
      isConnected: true,
      isConsuming: false,
      lastError: expect.stringContaining('an exchange is not there'),
    });
    expect(broker.status().lastError).toContain(exchange);
    await declareExchange(exchange);
    await eventually(() => heard.gaps === 1);
    expect(broker.status()).toMatchObject({ isConsuming: true, lastError: null });
    await publish(exchange, 'one');
    await eventually(() => heard.texts.length === 1);
  });

  it('says what to do about a queue of another type, and goes on once it is done', async () => {
    const { queue, exchange, broker, ...own } = await setUp();
    await asTaskcluster((channel) => channel.assertQueue(queue, { durable: true }));
    const heard = await consume(broker, { queue, exchange, ...own });
    undo.push(() => heard.subscription.stop());
    await eventually(() => broker.status().lastError !== null);
    expect(broker.status().lastError).toContain('exists with other properties');
    await asTaskcluster((channel) => channel.deleteQueue(queue));
    await eventually(() => broker.status().isConsuming);
  });

  it("may not use another user's queues, and says so", async () => {
    const { broker, ...own } = await setUp({ namespace: 'somebody' });
    const heard = await consume(broker, own);
    undo.push(() => heard.subscription.stop());
    await eventually(() => broker.status().lastError !== null);
    expect(broker.status().lastError).toContain('the Pulse user may not use queue/somebody/');
    expect(broker.status()).toMatchObject({ isConnected: true, isConsuming: false });
  });
});

// In this file, and so never beside the tests above: they kill the broker.
describeOutages();
