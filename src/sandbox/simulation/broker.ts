/** The simulated broker: one durable queue, competing consumers, at least once, in any order. */
import type { Broker, Message, Subscription, SubscriptionOptions } from '../../ports.ts';
import type { QueueMessage } from '../queue/messages.ts';
import type { History } from './history.ts';
import type { Host } from './host.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';
import { TASK_QUEUE } from './settings.ts';
import type { Weather } from './weather.ts';

export interface SimBroker {
  publish(message: QueueMessage): void;
  portFor(host: Host): Broker;
  /**
   * The connection of the process of this name breaks, or of some process; it is made again a little later.
   * @returns whether there was one
   */
  disconnect(name: string | undefined): boolean;
  /** For so long nobody reaches it. What it has it keeps; what is published meanwhile comes when it is back, or never. */
  leave(ms: number, isHeldBack: boolean): void;
  isAway(): boolean;
  /** Messages that nobody has acknowledged yet. */
  size(): number;
}

export interface BrokerOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly weather: Weather;
  readonly history: History;
  readonly onDelivered: (host: Host, message: Message) => () => void;
}

interface Consumer {
  readonly host: Host;
  readonly options: SubscriptionOptions;
  readonly underWay: Set<Delivery>;
  isStarted: boolean;
  isConnected: boolean;
  /** How often it froze or woke up. */
  changes: number;
  onEmpty?: () => void;
}

interface Queued {
  readonly message: Message;
  /** Who had it and did not acknowledge it. */
  readonly last?: Host;
}

interface Delivery extends Queued {
  isSettled: boolean;
}

/** Of the routing keys that the bridge binds. */
const OWN_QUEUE = `.${TASK_QUEUE.replace('/', '.')}.`;
const REDELIVERY_MS = 1000;
const RECONNECTION_MS = 60_000;
/** A consumer that is silent for so long has lost its connection, and with it what it has not acknowledged. */
const HEARTBEAT_MS = 60_000;

export function createBroker({ scheduler, random, weather, history, onDelivered }: BrokerOptions): SimBroker {
  const waiting: Queued[] = [];
  const consumers = new Set<Consumer>();
  // The queue was there before any of these processes.
  const bound = new Set(['task-pending', 'task-exception'].map((name) => `exchange/taskcluster-queue/v1/${name}`));
  let travelling = 0;
  let absence: { readonly until: number; readonly isHeldBack: boolean } | undefined;

  function arrive(queued: Queued, ms: number): void {
    travelling += 1;
    scheduler.after(ms, () => {
      travelling -= 1;
      waiting.push(queued);
      serve();
    });
  }

  function serve(): void {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      const free = [...consumers].filter((one) => one.isConnected && one.underWay.size < one.options.prefetch);
      if (free.length === 0) {
        return;
      }
      waiting.shift();
      hand(next, random.pick(free));
    }
  }

  function hand({ message, last }: Queued, consumer: Consumer): void {
    const { host, underWay, options } = consumer;
    const delivery: Delivery = { message, isSettled: false };
    underWay.add(delivery);
    if (last !== undefined && last !== host) {
      history.fault('message delivered again to another');
    }
    const settle = (back: boolean) => {
      if (delivery.isSettled) {
        return;
      }
      delivery.isSettled = true;
      underWay.delete(delivery);
      if (back) {
        arrive(again(delivery, host), REDELIVERY_MS);
      }
      if (underWay.size === 0) {
        consumer.onEmpty?.();
      }
      serve();
    };
    host.deliver(() => {
      const acknowledge = onDelivered(host, message);
      options.onMessage(message).then(
        () => {
          if (!delivery.isSettled) {
            acknowledge();
          }
          settle(false);
        },
        () => settle(true),
      );
    });
  }

  const again = ({ message }: Delivery, last: Host): Queued => ({ message: { ...message, isRedelivered: true }, last });

  /**
   * Its connection is gone: what it has not acknowledged goes to others. It may still be busy with it, and what it
   * acknowledges when it is done counts for nothing.
   */
  function lose(consumer: Consumer): void {
    consumer.isConnected = false;
    for (const delivery of consumer.underWay) {
      delivery.isSettled = true;
      arrive(again(delivery, consumer.host), random.int(1, random.chance(0.5) ? 20 : REDELIVERY_MS));
    }
    consumer.underWay.clear();
    consumer.host.deliver(() => consumer.onEmpty?.());
  }

  function connectIn(ms: number, consumer: Consumer): void {
    const { host, options } = consumer;
    scheduler.after(ms, () =>
      host.deliver(() => {
        if (!consumers.has(consumer) || consumer.isConnected) {
          return;
        }
        if (absence) {
          connectIn(random.int(1000, RECONNECTION_MS), consumer);
          return;
        }
        consumer.isConnected = true;
        options.onGap();
        serve();
      }),
    );
  }

  function breakConnection(consumer: Consumer): void {
    history.fault('broker connection lost');
    history.note(consumer.host.name, 'has lost its connection with the broker');
    lose(consumer);
  }

  function consume(host: Host, options: SubscriptionOptions): Subscription {
    const consumer: Consumer = { host, options, underWay: new Set(), isStarted: false, isConnected: false, changes: 0 };
    consumers.add(consumer);
    for (const { exchange } of options.bindings) {
      bound.add(exchange);
    }
    host.onCrash(() => {
      consumers.delete(consumer);
      lose(consumer);
    });
    host.onFreeze(() => {
      consumer.changes += 1;
      const { changes } = consumer;
      scheduler.after(HEARTBEAT_MS, () => {
        if (changes === consumer.changes && consumer.isConnected) {
          breakConnection(consumer);
        }
      });
    });
    host.onWake(() => {
      consumer.changes += 1;
      if (consumer.isStarted && !consumer.isConnected) {
        connectIn(random.int(10, 2000), consumer);
      }
    });
    return {
      async start() {
        consumer.isStarted = true;
        connectIn(random.int(10, 500), consumer);
      },
      async stop() {
        consumers.delete(consumer);
        if (consumer.underWay.size > 0) {
          await new Promise<void>((resolve) => {
            consumer.onEmpty = resolve;
          });
        }
      },
    };
  }

  return {
    publish({ exchange, routingKey, payload }) {
      if (!bound.has(exchange) || !routingKey.includes(OWN_QUEUE)) {
        return;
      }
      const body = Buffer.from(JSON.stringify(payload));
      if (absence) {
        history.fault('message published while the broker was away');
      }
      const held = absence ? absence.until - scheduler.now() : 0;
      for (const ms of absence && !absence.isHeldBack ? [] : weather.copies()) {
        arrive({ message: { exchange, routingKey, body, isRedelivered: false } }, held + ms);
      }
    },
    portFor: (host) => ({ subscribe: (options) => consume(host, options), close: () => Promise.resolve() }),
    disconnect(name) {
      const connected = [...consumers].filter(
        ({ host, isConnected }) => isConnected && (name === undefined || host.name === name),
      );
      if (connected.length > 0) {
        const consumer = random.pick(connected);
        breakConnection(consumer);
        connectIn(random.int(100, RECONNECTION_MS), consumer);
      }
      return connected.length > 0;
    },
    leave(ms, isHeldBack) {
      absence = { until: scheduler.now() + ms, isHeldBack };
      history.note('broker', `is away for ${Math.round(ms / 1000)} s`);
      for (const consumer of [...consumers].filter(({ isConnected }) => isConnected)) {
        breakConnection(consumer);
        connectIn(random.int(100, RECONNECTION_MS), consumer);
      }
      scheduler.after(ms, () => {
        absence = undefined;
        history.note('broker', 'is back');
      });
    },
    isAway: () => absence !== undefined,
    size: () => waiting.length + travelling + [...consumers].reduce((sum, { underWay }) => sum + underWay.size, 0),
  };
}
