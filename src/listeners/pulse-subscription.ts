/** One durable queue and its consumer, set up anew whenever its channel, its connection or the queue itself is gone. */
import type { Channel, ConsumeMessage } from 'amqplib';
import type { Logger } from 'pino';
import { PulseError, toError } from '../errors.ts';
import type { Clock, Subscription, SubscriptionOptions } from '../ports.ts';
import { reconnectDelay } from './pulse-broker.ts';

export interface PulseSubscriptionOptions extends SubscriptionOptions {
  readonly queueName: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Waits until there is a connection; rejects when the broker was closed. */
  readonly openChannel: () => Promise<Channel>;
  readonly onError: (error: Error) => void;
}

/** A message that fails comes back no sooner than this, doubled each time. */
const FIRST_REDELIVERY_MS = 500;
const MAX_REDELIVERY_MS = 30_000;

export function createPulseSubscription(options: PulseSubscriptionOptions): Subscription {
  const { queueName, clock, log } = options;
  const stopping = new AbortController();
  const underWay = new Set<Promise<void>>();
  let loop: Promise<void> | undefined;
  let leave: (() => void) | undefined;

  async function run(): Promise<void> {
    for (let failures = 0; !stopping.signal.aborted; ) {
      try {
        await consumeUntilGone(() => {
          failures = 0;
        });
      } catch (thrown) {
        if (stopping.signal.aborted) {
          return;
        }
        const error = toPulseError(queueName, thrown);
        options.onError(error);
        log.warn({ queue: queueName, err: error }, 'not consuming; trying again');
      }
      failures += 1;
      await clock.sleep(reconnectDelay(failures), stopping.signal);
    }
  }

  /** Resolves when the consumer is gone without an error, such as with its queue; throws what took it otherwise. */
  async function consumeUntilGone(onConsuming: () => void): Promise<void> {
    const channel = await options.openChannel();
    let failure: Error | undefined;
    const gone = new Promise<void>((resolve) => {
      leave = resolve;
      channel.on('error', (error) => {
        failure = toError(error);
      });
      channel.on('close', () => resolve());
    });
    try {
      const consumerTag = await setUp(channel, () => leave?.());
      onConsuming();
      options.onGap();
      await gone;
      if (stopping.signal.aborted) {
        await drain(channel, consumerTag);
      }
    } finally {
      await channel.close().catch(() => undefined);
    }
    if (failure !== undefined) {
      throw failure;
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
      await clock.sleep(redeliveryDelay(message), stopping.signal);
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
      await Promise.race([loop, Promise.all(underWay).then(() => clock.sleep(2000))]);
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

/** Quorum queues count deliveries. */
function redeliveryDelay(message: ConsumeMessage): number {
  const count = Number(message.properties.headers?.['x-delivery-count'] ?? 0);
  const delay = Math.min(
    MAX_REDELIVERY_MS,
    FIRST_REDELIVERY_MS * 2 ** Math.min(Number.isFinite(count) ? count : 0, 10),
  );
  return delay * (0.75 + Math.random() / 2);
}

function toPulseError(queueName: string, thrown: unknown): PulseError {
  const cause = toError(thrown);
  const { message } = cause;
  if (/ACCESS[_-]REFUSED/.test(message)) {
    return new PulseError(
      'pulse-forbidden',
      `the Pulse user may not use ${queueName} or read the exchanges: check its rights`,
      { cause },
    );
  }
  if (/NOT[_-]FOUND/.test(message)) {
    return new PulseError(
      'pulse-topology',
      'an exchange is not there: is this the right Pulse, and has Taskcluster run on it?',
      { cause },
    );
  }
  if (/PRECONDITION[_-]FAILED/.test(message)) {
    return new PulseError(
      'pulse-topology',
      `${queueName} exists with other properties: delete it, or use another namespace`,
      { cause },
    );
  }
  return new PulseError('pulse-unavailable', `${queueName} is not being consumed`, { cause, isTransient: true });
}
