/** Pulse (RabbitMQ) over amqplib: one connection that recovers by itself, and a channel of its own for each queue. */
import { connect, credentials, type RecoveringChannelModel } from 'amqplib';
import type { Logger } from 'pino';
import { reconnectDelay, STABLE_MS } from '../delays.ts';
import { ConfigError, describeError, levelOf } from '../errors.ts';
import type { Broker, Clock, Subscription, SubscriptionOptions } from '../ports.ts';
import { toConnectionError } from './pulse-errors.ts';
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
  /** How long RabbitMQ may take to set up a queue and its consumer, in milliseconds. */
  readonly setUpTimeoutMs?: number;
}

export interface PulseStatus {
  readonly isConnected: boolean;
  /** Whether every queue that was subscribed to is being consumed. */
  readonly isConsuming: boolean;
  /** How often a connection was lost. */
  readonly reconnects: number;
  /** Why it is not connected or not consuming; null while it is both. */
  readonly lastError: string | null;
}

export interface PulseBroker extends Broker {
  status(): PulseStatus;
}

const CONNECT_TIMEOUT_MS = 10_000;
const SET_UP_TIMEOUT_MS = 30_000;
/** How long the broker may take to say goodbye. */
const CLOSE_TIMEOUT_MS = 2000;

/**
 * Connects with the first subscription and keeps trying; nothing throws when the broker is away.
 * @throws ConfigError when the URL is none
 */
export function createPulseBroker(options: PulseBrokerOptions): PulseBroker {
  const { clock, log } = options;
  const server = parseUrl(options.url, options.heartbeatS ?? 30);
  let status: Omit<PulseStatus, 'isConsuming'> = {
    isConnected: false,
    reconnects: 0,
    lastError: null,
  };
  /** Subscribed to, and whether it is being consumed. */
  const queues = new Map<string, boolean>();
  /** Connections in a row that were lost soon after they were made. */
  let shortLived = 0;
  let connectedAt = clock.uptime();
  let connection: Promise<RecoveringChannelModel> | undefined;

  function note(changes: Partial<PulseStatus>): void {
    status = { ...status, ...changes };
  }

  function noteQueue(name: string, isConsumed: boolean, lastError: string | null): void {
    queues.set(name, isConsumed);
    if (!isConsumed || isConsuming()) {
      note({ lastError });
    }
  }

  const isConsuming = () => status.isConnected && [...queues.values()].every((isConsumed) => isConsumed);

  /** Opened by the first subscription. */
  function connected(): Promise<RecoveringChannelModel> {
    connection ??= open();
    return connection;
  }

  async function open(): Promise<RecoveringChannelModel> {
    const model = await connect(server.url, {
      credentials: server.credentials,
      timeout: CONNECT_TIMEOUT_MS,
      clientProperties: { connection_name: 'buildbot-bridge' },
      recovery: { waitForConnect: false, calculateDelay: (attempt) => reconnectDelay(attempt + shortLived) },
    });
    model.on('connect', () => {
      log.info('connected to Pulse');
      connectedAt = clock.uptime();
      note({ isConnected: true });
    });
    model.on('disconnect', (error) => {
      log.warn({ err: toConnectionError(error) }, 'connection to Pulse lost; reconnecting');
      for (const name of queues.keys()) {
        queues.set(name, false);
      }
      shortLived = clock.uptime() - connectedAt < STABLE_MS ? shortLived + 1 : 0;
      note({
        isConnected: false,
        reconnects: status.reconnects + 1,
        lastError: describeError(error),
      });
    });
    model.on('connect-failed', (thrown) => {
      const error = toConnectionError(thrown);
      log[levelOf(error)]({ err: error }, 'not connected to Pulse; trying again');
      note({ lastError: describeError(error) });
    });
    // Only publishers are held up by it; messages keep coming.
    model.on('blocked', (reason) => log.warn({ reason }, 'Pulse is short of memory or disk'));
    model.on('unblocked', () => log.info('Pulse has memory and disk again'));
    // What it says comes again as a disconnect; without a listener it would end the process.
    model.on('error', (error) => note({ lastError: describeError(error) }));
    return model;
  }

  return {
    status: () => ({ ...status, isConsuming: isConsuming() }),
    subscribe(subscription: SubscriptionOptions): Subscription {
      const queueName = `queue/${options.namespace}/${subscription.name}`;
      queues.set(queueName, false);
      return createPulseSubscription({
        ...subscription,
        queueName,
        clock,
        log,
        setUpTimeoutMs: options.setUpTimeoutMs ?? SET_UP_TIMEOUT_MS,
        openChannel: async () => (await connected()).createChannel(),
        onConsuming: () => noteQueue(queueName, true, null),
        onTrouble: (error) => noteQueue(queueName, false, describeError(error)),
      });
    },
    async close() {
      const model = await connection?.catch(() => undefined);
      // amqplib waits for the answer for ever, and on a dead connection there is none.
      await Promise.race([model?.close(), clock.sleep(CLOSE_TIMEOUT_MS)]);
      note({ isConnected: false });
    },
  };
}

/** The credentials are taken out: amqplib decodes them as Latin-1, and errors may show the URL. */
function parseUrl(text: string, heartbeatS: number) {
  if (!URL.canParse(text) || !/^amqps?:$/.test(new URL(text).protocol)) {
    throw new ConfigError('pulse.url: expected a URL that begins with amqp:// or amqps://');
  }
  const url = new URL(text);
  const plain = credentials.plain(decode(url.username) || 'guest', decode(url.password) || 'guest');
  url.username = '';
  url.password = '';
  // A heartbeat given in the URL wins.
  if (!url.searchParams.has('heartbeat')) {
    url.searchParams.set('heartbeat', String(heartbeatS));
  }
  return { url: url.toString(), credentials: plain };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ConfigError('pulse.url: a % in the user or password must be written %25');
  }
}
