/** Hears from Pulse that a task is pending or was resolved as an exception, and asks for a look at it. */
import type { Logger } from 'pino';
import { excerpt } from '../log.ts';
import type { Broker, InputCounter, Message } from '../ports.ts';
import { parseTaskMessage } from './messages.ts';

export interface TaskclusterListenerOptions {
  readonly broker: Broker;
  /** `<provisionerId>/<workerType>` */
  readonly taskQueueId: string;
  /** Messages under way at once. */
  readonly prefetch: number;
  /** Resolves when the hint was followed or may be forgotten; only then is its message acknowledged. */
  readonly onHint: (taskId: string) => Promise<void>;
  /** Messages may have been missed. */
  readonly onGap: () => void;
  readonly log: Logger;
  readonly inputs: InputCounter;
}

export interface TaskclusterListener {
  start(): Promise<void>;
  stop(): Promise<void>;
}

const EXCHANGES = ['task-pending', 'task-exception'] as const;

export function createTaskclusterListener(options: TaskclusterListenerOptions): TaskclusterListener {
  const { broker, log, inputs, onHint, onGap } = options;
  const [provisionerId, workerType] = options.taskQueueId.split('/');

  async function onMessage(message: Message): Promise<void> {
    inputs.received('task-message');
    const parsed = parseTaskMessage(message.body);
    if (parsed.kind === 'malformed') {
      inputs.rejected('task-message');
      log.warn(
        { exchange: message.exchange, reason: parsed.reason, excerpt: excerpt(message.body) },
        'malformed message dropped',
      );
      return;
    }
    log.debug({ taskId: parsed.taskId, runId: parsed.runId, exchange: message.exchange }, 'message received');
    await onHint(parsed.taskId);
  }

  const subscription = broker.subscribe({
    name: 'tasks',
    bindings: EXCHANGES.map((name) => ({
      exchange: `exchange/taskcluster-queue/v1/${name}`,
      pattern: `primary.*.*.*.*.${provisionerId}.${workerType}.#`,
    })),
    prefetch: options.prefetch,
    onMessage,
    onGap,
  });

  return {
    start: () => subscription.start(),
    stop: () => subscription.stop(),
  };
}
