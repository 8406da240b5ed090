/** Publishes to a real RabbitMQ as Taskcluster and Buildbot do: best effort; while the broker is away messages are lost. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Channel, type ChannelModel, connect } from 'amqplib';

export interface PulsePublisher {
  publish(message: { readonly exchange: string; readonly routingKey: string; readonly payload: unknown }): void;
  /**
   * Deletes a queue, as PulseGuardian does with one that grows too long.
   * @returns whether it was there; false also while the broker is away, or does not answer
   */
  deleteQueue(name: string): Promise<boolean>;
  close(): Promise<void>;
}

/** @param exchanges declared at every connection, durable, as topics */
export async function startPulsePublisher(url: string, exchanges: readonly string[]): Promise<PulsePublisher> {
  let connection: ChannelModel | undefined;
  let channel: Channel | undefined;
  let isClosing = false;

  async function open(): Promise<void> {
    const opened = await connect(url);
    opened.on('error', () => undefined);
    opened.on('close', () => {
      channel = undefined;
      if (!isClosing) {
        setTimeout(() => void reopen(), 200).unref();
      }
    });
    const made = await opened.createChannel();
    made.on('error', () => undefined);
    for (const exchange of exchanges) {
      await made.assertExchange(exchange, 'topic', { durable: true });
    }
    [connection, channel] = [opened, made];
  }

  async function reopen(): Promise<void> {
    try {
      await open();
    } catch {
      if (!isClosing) {
        setTimeout(() => void reopen(), 200).unref();
      }
    }
  }

  await open();
  return {
    publish({ exchange, routingKey, payload }) {
      try {
        const content = Buffer.from(JSON.stringify(payload));
        channel?.publish(exchange, routingKey, content, { persistent: true, contentType: 'application/json' });
      } catch {
        // The channel is closing: the message is lost, as it would be there.
      }
    },
    async deleteQueue(name) {
      try {
        // On a channel of its own: the broker closes the one on which a queue is asked for that is not there.
        const own = await connection?.createChannel();
        if (own === undefined) {
          return false;
        }
        own.on('error', () => undefined);
        const deleted = own.checkQueue(name).then(() => own.deleteQueue(name));
        // A quorum queue that has no leader is never answered for.
        const late = delay(5000, undefined, { ref: false }).then(() => false);
        const wasThere = await Promise.race([deleted.then(() => true), late]);
        // Not waited for: amqplib forgets it when the connection is lost before its answer.
        void own.close().catch(() => undefined);
        return wasThere;
      } catch {
        // Not there, or nobody to ask.
        return false;
      }
    },
    async close() {
      isClosing = true;
      await connection?.close().catch(() => undefined);
    },
  };
}
