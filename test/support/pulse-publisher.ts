/** Publishes to a real RabbitMQ as Taskcluster and Buildbot do: best effort; while the broker is away messages are lost. */
import { type Channel, type ChannelModel, connect } from 'amqplib';

export interface PulsePublisher {
  publish(message: { readonly exchange: string; readonly routingKey: string; readonly payload: unknown }): void;
  /** Deletes a queue, as PulseGuardian does with one that grows too long; nothing happens while the broker is away. */
  deleteQueue(name: string): Promise<void>;
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
        await channel?.deleteQueue(name);
      } catch {
        // Not there, or nobody to ask.
      }
    },
    async close() {
      isClosing = true;
      await connection?.close().catch(() => undefined);
    },
  };
}
