/** Hands messages to whoever carries them. A failed publish is told, and not tried again, as in the real queue. */
import type { Clock } from '../../ports.ts';
import type { Faults } from '../faults.ts';
import type { QueueMessage } from './messages.ts';

/** Publishes, through the fault rules for messages. */
export interface Publisher {
  /**
   * Takes the messages out of the outbox; resolves when they are published, in order. Never rejects.
   * @returns those that could not be published
   */
  flush(outbox: QueueMessage[]): Promise<readonly QueueMessage[]>;
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
  let heldBack: { readonly message: QueueMessage; readonly behind: RegExp | undefined }[] = [];
  let tail: Promise<void> = Promise.resolve();

  /** @returns whether it was delivered, or never will be; the queue has committed to its database already */
  async function deliver(message: QueueMessage): Promise<boolean> {
    if (stopping.signal.aborted) {
      return true;
    }
    try {
      await options.publish(message);
      return true;
    } catch {
      return false;
    }
  }

  async function deliverLater(message: QueueMessage, ms: number): Promise<void> {
    await clock.sleep(ms, stopping.signal);
    await deliver(message);
  }

  /** @returns false if it could not be published, as far as the queue knows */
  async function send(message: QueueMessage): Promise<boolean> {
    const key = `${message.exchange} ${message.routingKey}`;
    const fault = faults.pickMessage(key);
    if (fault?.kind === 'drop') {
      return true;
    }
    if (fault?.kind === 'delay') {
      void deliverLater(message, fault.ms);
      return true;
    }
    if (fault?.kind === 'reorder') {
      heldBack.push({ message, behind: fault.behind });
      return true;
    }
    const isDelivered = await deliver(message);
    if (fault?.kind === 'repeat') {
      await deliver(message);
    }
    const late = heldBack.filter(({ behind }) => behind?.test(key) ?? true);
    heldBack = heldBack.filter((held) => !late.includes(held));
    for (const held of late) {
      await deliver(held.message);
    }
    return isDelivered;
  }

  return {
    flush(outbox) {
      const failed: QueueMessage[] = [];
      for (const message of outbox.splice(0)) {
        tail = tail.then(async () => {
          if (!(await send(message))) {
            failed.push(message);
          }
        });
      }
      return tail.then(() => failed);
    },
    stop() {
      heldBack = [];
      stopping.abort();
    },
  };
}
