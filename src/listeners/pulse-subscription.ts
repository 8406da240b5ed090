/** One durable queue and its consumer, set up anew whenever its channel, its connection or the queue itself is gone. */
import type { Channel, ConsumeMessage } from 'amqplib';
import type { Logger } from 'pino';
import { reconnectDelay, redeliveryDelay, STABLE_MS } from '../delays.ts';
import { levelOf, type PulseError, toError } from '../errors.ts';
import type { Clock, Subscription, SubscriptionOptions } from '../ports.ts';
import { toConsumerError } from './pulse-errors.ts';

export interface PulseSubscriptionOptions extends SubscriptionOptions {
  readonly queueName: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Waits until there is a connection; rejects when the broker was closed. */
  readonly openChannel: () => Promise<Channel>;
  /** How long the set-up may take, in milliseconds. */
  readonly setUpTimeoutMs: number;
  /** The queue is being consumed now. */
  readonly onConsuming: () => void;
  /** The queue is not being consumed, and this is why; it is tried again. */
  readonly onTrouble: (error: PulseError) => void;
}

/** How long a stop waits, after the messages under way, for a broker that does not answer. */
const FAREWELL_MS = 2000;

/** Sets up and consumes one queue until it is stopped; what fails is reported and tried again. */
export function createPulseSubscription(options: PulseSubscriptionOptions): Subscription {
  const { queueName, clock, log } = options;
  const stopping = new AbortController();
  const underWay = new Set<Promise<void>>();
  let loop: Promise<void> | undefined;
  let leave: (() => void) | undefined;

  async function run(): Promise<void> {
    for (let failures = 0; !stopping.signal.aborted; ) {
      let consumingSince: number | undefined;
      try {
        await consumeUntilGone(() => {
          consumingSince = clock.uptime();
          options.onConsuming();
          options.onGap();
        });
      } catch (thrown) {
        if (stopping.signal.aborted) {
          return;
        }
        const error = toConsumerError(queueName, thrown);
        options.onTrouble(error);
        log[levelOf(error)]({ queue: queueName, err: error }, 'not consuming; trying again');
      }
      const wasStable = consumingSince !== undefined && clock.uptime() - consumingSince >= STABLE_MS;
      failures = wasStable ? 1 : failures + 1;
      await clock.sleep(reconnectDelay(failures), stopping.signal);
    }
  }

  /** Resolves when the consumer is gone without an error, such as with its queue; throws what took it otherwise. */
  async function consumeUntilGone(onConsuming: () => void): Promise<void> {
    const channel = await options.openChannel();
    let failure: Error | undefined;
    channel.on('error', (error) => {
      failure = toError(error);
    });
    const closed = new Promise<void>((resolve) => channel.on('close', () => resolve()));
    const left = new Promise<void>((resolve) => {
      leave = resolve;
    });
    try {
      if (stopping.signal.aborted) {
        return;
      }
      const consumerTag = await inTime(setUp(channel, () => leave?.()));
      onConsuming();
      await Promise.race([left, closed]);
      if (stopping.signal.aborted) {
        await drain(channel, consumerTag);
      }
    } finally {
      // amqplib forgets a close() when the connection is lost before its answer, but never the event.
      await Promise.race([channel.close().catch(() => undefined), closed, clock.sleep(FAREWELL_MS)]);
    }
    if (failure !== undefined) {
      throw failure;
    }
  }

  /** RabbitMQ does not answer while a quorum queue has no leader, and would not for as long as it has none. */
  async function inTime<T>(work: Promise<T>): Promise<T> {
    const isOver = new AbortController();
    const late = clock.sleep(options.setUpTimeoutMs, isOver.signal).then(() => {
      throw new Error(`no answer for ${options.setUpTimeoutMs} ms`);
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      isOver.abort();
    }
  }

  async function setUp(channel: Channel, onCancelled: () => void): Promise<string> {
    for (const exchange of new Set(options.bindings.map((binding) => binding.exchange))) {
      // Taskcluster declares its exchanges; a consumer may not, and only checks that they are there.
      await channel.checkExchange(exchange);
    }
    await channel.assertQueue(queueName, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
    for (const { exchange, pattern } of options.bindings) {
      await channel.bindQueue(queueName, exchange, pattern);
    }
    await channel.prefetch(options.prefetch);
    const { consumerTag } = await channel.consume(queueName, (message) => {
      if (message === null) {
        // The broker took the consumer away: PulseGuardian deletes queues that grow too long.
        log.warn({ queue: queueName }, 'the queue was deleted; declaring it again');
        options.onTrouble(toConsumerError(queueName, new Error('the queue was deleted')));
        onCancelled();
        return;
      }
      const handled = handle(channel, message).finally(() => underWay.delete(handled));
      underWay.add(handled);
    });
    return consumerTag;
  }

  async function handle(channel: Channel, message: ConsumeMessage): Promise<void> {
    try {
      await options.onMessage({
        exchange: message.fields.exchange,
        routingKey: message.fields.routingKey,
        body: message.content,
        isRedelivered: message.fields.redelivered,
      });
      settle(() => channel.ack(message));
    } catch (error) {
      log.debug({ queue: queueName, err: error }, 'message given back');
      const count: unknown = message.properties.headers?.['x-delivery-count'];
      await clock.sleep(redeliveryDelay(count), stopping.signal);
      settle(() => channel.nack(message, false, true));
    }
  }

  async function drain(channel: Channel, consumerTag: string): Promise<void> {
    await channel.cancel(consumerTag).catch(() => undefined);
    await Promise.all(underWay);
  }

  return {
    async start() {
      loop ??= run();
    },
    async stop() {
      stopping.abort();
      leave?.();
      // Without a connection there is nothing to wait for: what was under way is redelivered.
      await Promise.race([loop, Promise.all(underWay).then(() => clock.sleep(FAREWELL_MS))]);
    },
  };
}

/** On a channel that is gone there is nothing to settle: the broker delivers the message again. */
function settle(work: () => void): void {
  try {
    work();
  } catch {
    // IllegalOperationError: the channel is closed.
  }
}
