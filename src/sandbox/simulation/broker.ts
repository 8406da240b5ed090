/** The simulated broker: one durable queue, competing consumers, at least once, in any order. */
import type { Broker, Message, Subscription, SubscriptionOptions } from '../../ports.ts';
import type { QueueMessage } from '../queue/messages.ts';
import type { History } from './history.ts';
import type { Host } from './host.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';
import type { Weather } from './weather.ts';

export interface SimBroker {
  publish(message: QueueMessage): void;
  portFor(host: Host): Broker;
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
  onEmpty?: () => void;
}

interface Delivery {
  readonly message: Message;
  isSettled: boolean;
}

const REDELIVERY_MS = 1000;
/** A consumer that is silent for so long has lost its connection, and with it what it has not acknowledged. */
const HEARTBEAT_MS = 60_000;

export function createBroker({ scheduler, random, weather, history, onDelivered }: BrokerOptions): SimBroker {
  const waiting: Message[] = [];
  const consumers = new Set<Consumer>();
  let travelling = 0;

  function arrive(message: Message, ms: number): void {
    travelling += 1;
    scheduler.after(ms, () => {
      travelling -= 1;
      waiting.push(message);
      serve();
    });
  }

  function serve(): void {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      const free = [...consumers].filter((one) => one.isStarted && one.underWay.size < one.options.prefetch);
      if (free.length === 0) {
        return;
      }
      waiting.shift();
      hand(next, random.pick(free));
    }
  }

  function hand(message: Message, consumer: Consumer): void {
    const { host, underWay, options } = consumer;
    const delivery: Delivery = { message, isSettled: false };
    underWay.add(delivery);
    const settle = (back: boolean) => {
      if (delivery.isSettled) {
        return;
      }
      delivery.isSettled = true;
      underWay.delete(delivery);
      if (back) {
        arrive({ ...message, isRedelivered: true }, REDELIVERY_MS);
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

  /** Its connection is gone: what it has not acknowledged goes to others. */
  function lose(consumer: Consumer): void {
    for (const delivery of consumer.underWay) {
      delivery.isSettled = true;
      arrive({ ...delivery.message, isRedelivered: true }, random.int(10, REDELIVERY_MS));
    }
    consumer.underWay.clear();
  }

  function consume(host: Host, options: SubscriptionOptions): Subscription {
    const consumer: Consumer = { host, options, underWay: new Set(), isStarted: false };
    consumers.add(consumer);
    host.onCrash(() => {
      consumers.delete(consumer);
      lose(consumer);
    });
    host.onWake((ms) => {
      if (ms > HEARTBEAT_MS && consumer.isStarted) {
        history.fault('broker connection lost');
        lose(consumer);
        options.onGap();
        scheduler.stir();
        serve();
      }
    });
    return {
      async start() {
        scheduler.after(random.int(10, 500), () =>
          host.deliver(() => {
            consumer.isStarted = true;
            options.onGap();
            serve();
          }),
        );
      },
      async stop() {
        consumer.isStarted = false;
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
      if (!exchange.endsWith('/task-pending') && !exchange.endsWith('/task-exception')) {
        return;
      }
      const body = Buffer.from(JSON.stringify(payload));
      for (const ms of weather.copies()) {
        arrive({ exchange, routingKey, body, isRedelivered: false }, ms);
      }
    },
    portFor: (host) => ({ subscribe: (options) => consume(host, options), close: () => Promise.resolve() }),
    size: () => waiting.length + travelling + [...consumers].reduce((sum, { underWay }) => sum + underWay.size, 0),
  };
}
