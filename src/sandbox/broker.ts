/** An in-process broker for the sandbox: topic exchanges, durable queues, at-least-once delivery, and faults. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Broker, Message, Subscription, SubscriptionOptions } from '../ports.ts';
import { createFaults, type Faults } from './faults.ts';

export interface PublishedMessage {
  readonly exchange: string;
  readonly routingKey: string;
  readonly payload: unknown;
}

export interface InProcessBroker extends Broker {
  /** Delivers to every queue with a binding that matches. */
  publish(message: PublishedMessage): void;
}

interface Queue {
  bindings: SubscriptionOptions['bindings'];
  readonly waiting: Message[];
  /** Those who consume, each to be called when there is something; they take turns at being first. */
  consumers: readonly (() => void)[];
}

/** A rejected message comes back after this many milliseconds. */
const REDELIVERY_MS = 200;

/**
 * Queues outlive their subscriptions, as durable queues do, and are shared by subscriptions of the same name.
 * @param faults none, if whoever publishes (the emulated queue) applies its own: they would apply twice
 */
export function createInProcessBroker(faults: Faults = createFaults()): InProcessBroker {
  const queues = new Map<string, Queue>();
  let heldBack: PublishedMessage[] = [];

  function publish(message: PublishedMessage): void {
    const released = heldBack;
    heldBack = [];
    const fault = faults.pickMessage(`${message.exchange} ${message.routingKey}`);
    switch (fault?.kind) {
      case undefined:
        deliver(message);
        break;
      case 'drop':
        break;
      case 'repeat':
        deliver(message);
        deliver(message);
        break;
      case 'delay':
        setTimeout(() => deliver(message), fault.ms).unref();
        break;
      case 'reorder':
        heldBack.push(message);
        break;
      default:
        fault satisfies never;
    }
    released.forEach(deliver);
  }

  function deliver({ exchange, routingKey, payload }: PublishedMessage): void {
    const body = Buffer.from(JSON.stringify(payload));
    for (const queue of queues.values()) {
      const isBound = queue.bindings.some(
        (binding) => binding.exchange === exchange && matchesTopic(binding.pattern, routingKey),
      );
      if (isBound) {
        queue.waiting.push({ exchange, routingKey, body, isRedelivered: false });
        wake(queue);
      }
    }
  }

  return {
    publish,
    subscribe(options) {
      const queue = queues.get(options.name) ?? { bindings: options.bindings, waiting: [], consumers: [] };
      queue.bindings = options.bindings;
      queues.set(options.name, queue);
      return consume(queue, options);
    },
    async close() {
      queues.clear();
    },
  };
}

function wake(queue: Queue): void {
  const [first, ...others] = queue.consumers;
  if (first !== undefined) {
    queue.consumers = [...others, first];
    for (const takeSome of queue.consumers) {
      takeSome();
    }
  }
}

function consume(queue: Queue, options: SubscriptionOptions): Subscription {
  const underWay = new Set<Promise<void>>();
  let isStopped = true;

  function takeSome(): void {
    while (!isStopped && underWay.size < options.prefetch) {
      const message = queue.waiting.shift();
      if (message === undefined) {
        return;
      }
      // Later, as from a real broker: a handler never runs within the publisher's own call.
      const handled = Promise.resolve()
        .then(() => handle(message))
        .finally(() => {
          underWay.delete(handled);
          takeSome();
        });
      underWay.add(handled);
    }
  }

  async function handle(message: Message): Promise<void> {
    try {
      await options.onMessage(message);
    } catch {
      if (!isStopped) {
        await delay(REDELIVERY_MS, undefined, { ref: false });
      }
      queue.waiting.push({ ...message, isRedelivered: true });
      wake(queue);
    }
  }

  return {
    async start() {
      if (isStopped) {
        isStopped = false;
        queue.consumers = [...queue.consumers, takeSome];
        options.onGap();
        takeSome();
      }
    },
    async stop() {
      isStopped = true;
      queue.consumers = queue.consumers.filter((consumer) => consumer !== takeSome);
      await Promise.all(underWay);
    },
  };
}

/** AMQP's topics: `*` is one word, `#` any number of words. */
export function matchesTopic(pattern: string, routingKey: string): boolean {
  return matchesWords(words(pattern), words(routingKey));
}

/** An empty key has no words. */
function words(key: string): readonly string[] {
  return key === '' ? [] : key.split('.');
}

function matchesWords(pattern: readonly string[], key: readonly string[]): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) {
    return key.length === 0;
  }
  if (first === '#') {
    return rest.length === 0 || key.some((_, index) => matchesWords(rest, key.slice(index))) || matchesWords(rest, []);
  }
  return key.length > 0 && (first === '*' || first === key[0]) && matchesWords(rest, key.slice(1));
}
