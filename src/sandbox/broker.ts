/** An in-process broker for the sandbox: topic exchanges, durable queues, at-least-once delivery, and faults. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Broker, Message, Subscription, SubscriptionOptions } from '../ports.ts';
import type { Faults } from './faults.ts';

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
  /** Set while somebody consumes. */
  wake: (() => void) | undefined;
}

/** A rejected message comes back after this many milliseconds. */
const REDELIVERY_MS = 200;

/** Queues outlive their subscriptions, as durable queues do, and are shared by subscriptions of the same name. */
export function createInProcessBroker(faults: Faults): InProcessBroker {
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
        queue.wake?.();
      }
    }
  }

  return {
    publish,
    subscribe(options) {
      const queue = queues.get(options.name) ?? { bindings: options.bindings, waiting: [], wake: undefined };
      queue.bindings = options.bindings;
      queues.set(options.name, queue);
      return consume(queue, options);
    },
    async close() {
      queues.clear();
    },
  };
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
      const handled = handle(message).finally(() => {
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
    }
  }

  return {
    async start() {
      isStopped = false;
      queue.wake = takeSome;
      options.onGap();
      takeSome();
    },
    async stop() {
      isStopped = true;
      queue.wake = undefined;
      await Promise.all(underWay);
    },
  };
}

/** AMQP's topics: `*` is one word, `#` any number of words. */
export function matchesTopic(pattern: string, routingKey: string): boolean {
  return matchesWords(pattern.split('.'), routingKey.split('.'));
}

function matchesWords(pattern: readonly string[], words: readonly string[]): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) {
    return words.length === 0;
  }
  if (first === '#') {
    return (
      rest.length === 0 || words.some((_, index) => matchesWords(rest, words.slice(index))) || matchesWords(rest, [])
    );
  }
  return words.length > 0 && (first === '*' || first === words[0]) && matchesWords(rest, words.slice(1));
}
