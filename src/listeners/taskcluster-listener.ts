/** Hears from Pulse that a task is pending or was resolved as an exception, and asks for a look at it. */
import type { Logger } from 'pino';
import type { Broker, Message } from '../ports.ts';
import { excerpt, parseTaskMessage } from './messages.ts';

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
}

export interface TaskclusterListener {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Messages heard and dropped so far. */
  counts(): { readonly received: number; readonly malformed: number };
}

const EXCHANGES = ['task-pending', 'task-exception'] as const;

export function createTaskclusterListener(options: TaskclusterListenerOptions): TaskclusterListener {
  const { broker, log, onHint, onGap } = options;
  const [provisionerId, workerType] = options.taskQueueId.split('/');
  let received = 0;
  let malformed = 0;

  async function onMessage(message: Message): Promise<void> {
    received += 1;
    const parsed = parseTaskMessage(message.body);
    if (parsed.kind === 'malformed') {
      malformed += 1;
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
    counts: () => ({ received, malformed }),
  };
}
