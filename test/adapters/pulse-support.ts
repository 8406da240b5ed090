/** What the tests of the AMQP broker share: Taskcluster's side of Pulse, a consumer that takes notes, a bad network. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectSocket, createServer, type Server, type Socket } from 'node:net';
import { type Channel, connect } from 'amqplib';
import { systemClock } from '../../src/clock.ts';
import { createPulseBroker, type PulseBroker, type PulseBrokerOptions } from '../../src/listeners/pulse-broker.ts';
import { createLog } from '../../src/log.ts';
import type { Message, Subscription, SubscriptionOptions } from '../../src/ports.ts';
import { eventually } from '../support/eventually.ts';
import { rabbitmq } from '../support/services/index.ts';

/** Every line that was logged. */
export const logged: string[] = [];

const log = createLog({ level: 'debug', destination: { write: (line: string) => void logged.push(line) } });

/** A broker as the bridge makes it, but for `wishes`. */
export function aBroker(wishes: Partial<PulseBrokerOptions> = {}): PulseBroker {
  return createPulseBroker({ url: rabbitmq().url, namespace: 'bridge', clock: systemClock, log, ...wishes });
}

/** A queue and an exchange that no other test has. */
export function names() {
  const id = randomBytes(4).toString('hex');
  return { name: `test-${id}`, queue: `queue/bridge/test-${id}`, exchange: `exchange/test-${id}/v1/task-pending` };
}
export type Names = ReturnType<typeof names>;

/** Does something on Pulse that only Taskcluster, or Pulse's keepers, may do. */
export async function asTaskcluster<T>(work: (channel: Channel) => Promise<T>, url = rabbitmq().adminUrl): Promise<T> {
  const connection = await connect(url);
  try {
    return await work(await connection.createChannel());
  } finally {
    await connection.close();
  }
}

export async function declareExchange(exchange: string): Promise<void> {
  await asTaskcluster((channel) => channel.assertExchange(exchange, 'topic', { durable: true }));
}

/** Publishes persistent messages with a routing key of `key`; resolves when the broker has them. */
export async function publish(exchange: string, ...texts: readonly string[]): Promise<void> {
  const connection = await connect(rabbitmq().adminUrl);
  const channel = await connection.createConfirmChannel();
  for (const text of texts) {
    channel.publish(exchange, 'key', Buffer.from(text), { persistent: true });
  }
  await channel.waitForConfirms();
  await connection.close();
}

/** How many messages wait in a queue; those under way are not among them. */
export async function waiting(queue: string, url = rabbitmq().adminUrl): Promise<number> {
  return asTaskcluster(async (channel) => (await channel.checkQueue(queue)).messageCount, url);
}

export interface Heard {
  readonly subscription: Subscription;
  readonly texts: string[];
  readonly messages: Message[];
  /** How often messages may have been missed. */
  gaps: number;
}

/** Subscribes to everything of an exchange and starts; `onText` is what happens to each message. */
export async function consume(
  broker: PulseBroker,
  { name, exchange }: Names,
  onText: (text: string, message: Message) => Promise<void> = async () => undefined,
  wishes: Partial<SubscriptionOptions> = {},
): Promise<Heard> {
  const heard: Omit<Heard, 'subscription'> = { texts: [], messages: [], gaps: 0 };
  const subscription = broker.subscribe({
    name,
    bindings: [{ exchange, pattern: '#' }],
    prefetch: 10,
    async onMessage(message) {
      heard.texts.push(message.body.toString());
      heard.messages.push(message);
      await onText(message.body.toString(), message);
    },
    onGap: () => {
      heard.gaps += 1;
    },
    ...wishes,
  });
  await subscription.start();
  return Object.assign(heard, { subscription });
}

/** A promise and the means to fulfil it. */
export function gate() {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Undone after each test, the last first. */
export const undo: (() => Promise<unknown>)[] = [];

export async function cleanUp(): Promise<void> {
  for (const step of undo.splice(0).reverse()) {
    await step();
  }
}

/** An exchange, a network and a broker; what it takes to begin. */
export async function setUp(wishes: Parameters<typeof aBroker>[0] = {}) {
  const own = names();
  await declareExchange(own.exchange);
  undo.push(() =>
    asTaskcluster(async (channel) => {
      await channel.deleteQueue(own.queue);
      await channel.deleteExchange(own.exchange);
    }),
  );
  const proxy = await startProxy();
  undo.push(() => proxy.close());
  const broker = aBroker({ url: proxy.url, ...wishes });
  undo.push(() => broker.close());
  const listen: (
    ...rest: [Parameters<typeof consume>[2]?, Parameters<typeof consume>[3]?]
  ) => ReturnType<typeof consume> = async (...rest) => {
    const heard = await consume(broker, own, ...rest);
    undo.push(() => heard.subscription.stop());
    await eventually(() => broker.status().isConsuming, { what: 'the first consumption' });
    return heard;
  };
  return { ...own, proxy, broker, listen };
}

export interface Proxy {
  /** The bridge's URL, by way of the proxy. */
  readonly url: string;
  readonly port: number;
  /** How many connections were made. */
  count(): number;
  /** Cuts every connection. */
  cut(): void;
  /** Lets nothing through any more, and says nothing of it; new connections are let through again. */
  swallow(): void;
  /** Pretends that the server is not there, or that it is again. */
  listen(isListening: boolean): Promise<void>;
  close(): Promise<void>;
}

/** A network between the bridge and RabbitMQ. */
export async function startProxy(): Promise<Proxy> {
  const direct = new URL(rabbitmq().url);
  const pairs = new Set<readonly [Socket, Socket]>();
  let count = 0;
  let server: Server | undefined;
  let port = 0;

  function accept(near: Socket): void {
    count += 1;
    const far = connectSocket(Number(direct.port), '127.0.0.1');
    const pair = [near, far] as const;
    pairs.add(pair);
    for (const [from, to] of [pair, [far, near] as const]) {
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        to.destroy();
        pairs.delete(pair);
      });
    }
  }

  function cut(): void {
    for (const socket of [...pairs].flat()) {
      socket.destroy();
    }
  }

  async function listen(isListening: boolean): Promise<void> {
    if (isListening) {
      server = createServer(accept).listen(port, '127.0.0.1');
      await once(server, 'listening');
      const address = server.address();
      port = typeof address === 'object' && address !== null ? address.port : 0;
    } else {
      const closed = new Promise((resolve) => server?.close(resolve));
      cut();
      await closed;
    }
  }

  await listen(true);
  return {
    url: Object.assign(new URL(direct), { port: String(port) }).toString(),
    port,
    count: () => count,
    cut,
    swallow() {
      for (const socket of [...pairs].flat()) {
        socket.unpipe();
        socket.pause();
      }
    },
    listen,
    close: async () => {
      if (server?.listening) {
        await listen(false);
      }
      cut();
    },
  };
}
