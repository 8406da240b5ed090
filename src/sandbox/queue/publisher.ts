/** Hands messages to whoever carries them. Best effort, as in the real queue: a failed publish is forgotten. */
import type { Clock } from '../../ports.ts';
import type { Faults } from '../faults.ts';
import type { QueueMessage } from './messages.ts';

/** Publishes, through the fault rules for messages. */
export interface Publisher {
  /** Takes the messages out of the outbox; resolves when they are published, in order. Never rejects. */
  flush(outbox: QueueMessage[]): Promise<void>;
  /** Forgets what is held back or delayed. */
  stop(): void;
}

/** Makes a publisher; `clock` times messages that are late by a fault. */
export function createPublisher(options: {
  readonly clock: Clock;
  readonly faults: Faults;
  publish(message: QueueMessage): void | Promise<void>;
}): Publisher {
  const { clock, faults } = options;
  const stopping = new AbortController();
  let heldBack: QueueMessage[] = [];
  let tail: Promise<void> = Promise.resolve();

  async function deliver(message: QueueMessage): Promise<void> {
    if (stopping.signal.aborted) {
      return;
    }
    try {
      await options.publish(message);
    } catch {
      // The queue has committed to its database already and does not try again.
    }
  }

  async function deliverLater(message: QueueMessage, ms: number): Promise<void> {
    await clock.sleep(ms, stopping.signal);
    await deliver(message);
  }

  async function send(message: QueueMessage): Promise<void> {
    const fault = faults.pickMessage(`${message.exchange} ${message.routingKey}`);
    if (fault?.kind === 'drop') {
      return;
    }
    if (fault?.kind === 'delay') {
      void deliverLater(message, fault.ms);
      return;
    }
    if (fault?.kind === 'reorder') {
      heldBack.push(message);
      return;
    }
    await deliver(message);
    if (fault?.kind === 'repeat') {
      await deliver(message);
    }
    const late = heldBack;
    heldBack = [];
    for (const held of late) {
      await deliver(held);
    }
  }

  return {
    flush(outbox) {
      for (const message of outbox.splice(0)) {
        tail = tail.then(() => send(message));
      }
      return tail;
    },
    stop() {
      heldBack = [];
      stopping.abort();
    },
  };
}
