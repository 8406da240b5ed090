/** Pulse (RabbitMQ) over amqplib: one connection that recovers by itself, and a channel of its own for each queue. */
import { connect, type RecoveringChannelModel } from 'amqplib';
import type { Logger } from 'pino';
import { describeError } from '../errors.ts';
import type { Broker, Clock, Subscription, SubscriptionOptions } from '../ports.ts';
import { createPulseSubscription } from './pulse-subscription.ts';

export interface PulseBrokerOptions {
  /** `amqp://` or `amqps://`, with user and password; never logged. */
  readonly url: string;
  /** Queues are `queue/<namespace>/<name>`, as Pulse wants it. */
  readonly namespace: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Seconds; a connection that says nothing for twice as long is dead. */
  readonly heartbeatS?: number;
}

export interface PulseStatus {
  readonly isConnected: boolean;
  /** Since when, UTC milliseconds. */
  readonly since: number;
  readonly reconnects: number;
  readonly lastError: string | null;
}

export interface PulseBroker extends Broker {
  status(): PulseStatus;
}

const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;

/** The wait before the `attempt`th try (from 1), in milliseconds: exponential, with jitter, capped. */
export function reconnectDelay(attempt: number, random: () => number = Math.random): number {
  const base = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(attempt - 1, 20));
  return Math.round(base * (0.5 + random() / 2));
}

/** Connects at once and keeps trying; nothing throws when the broker is away. */
export function createPulseBroker(options: PulseBrokerOptions): PulseBroker {
  const { clock, log } = options;
  let status: PulseStatus = { isConnected: false, since: clock.now(), reconnects: 0, lastError: null };
  let connection: Promise<RecoveringChannelModel> | undefined;

  function note(changes: Partial<PulseStatus>): void {
    status = { ...status, ...changes };
  }

  /** Opened by the first subscription. */
  function connected(): Promise<RecoveringChannelModel> {
    connection ??= open();
    return connection;
  }

  async function open(): Promise<RecoveringChannelModel> {
    const model = await connect(withHeartbeat(options.url, options.heartbeatS ?? 30), {
      timeout: CONNECT_TIMEOUT_MS,
      clientProperties: { connection_name: 'buildbot-bridge' },
      recovery: { waitForConnect: false, calculateDelay: (attempt) => reconnectDelay(attempt) },
    });
    model.on('connect', () => {
      log.info('connected to Pulse');
      note({ isConnected: true, since: clock.now(), lastError: null });
    });
    model.on('disconnect', (error) => {
      log.warn({ err: error }, 'connection to Pulse lost; reconnecting');
      note({
        isConnected: false,
        since: clock.now(),
        reconnects: status.reconnects + 1,
        lastError: describeError(error),
      });
    });
    model.on('connect-failed', (error) => {
      log.warn({ err: error }, 'Pulse cannot be reached; trying again');
      note({ lastError: describeError(error) });
    });
    model.on('blocked', (reason) => log.warn({ reason }, 'Pulse blocks this connection'));
    // What it says comes again as a disconnect; without a listener it would end the process.
    model.on('error', (error) => note({ lastError: describeError(error) }));
    return model;
  }

  return {
    status: () => status,
    subscribe(subscription: SubscriptionOptions): Subscription {
      return createPulseSubscription({
        ...subscription,
        queueName: `queue/${options.namespace}/${subscription.name}`,
        clock,
        log,
        openChannel: async () => (await connected()).createChannel(),
        onError: (error) => note({ lastError: describeError(error) }),
      });
    },
    async close() {
      const model = await connection?.catch(() => undefined);
      await model?.close();
      note({ isConnected: false, since: clock.now() });
    },
  };
}

/** A heartbeat given in the URL wins. */
function withHeartbeat(url: string, seconds: number): string {
  const parsed = new URL(url);
  if (!parsed.searchParams.has('heartbeat')) {
    parsed.searchParams.set('heartbeat', String(seconds));
  }
  return parsed.toString();
}
