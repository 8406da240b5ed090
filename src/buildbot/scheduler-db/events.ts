/** Hears of builds from Pulse, and keeps what only its messages tell, before they are acknowledged. */
import type { Logger } from 'pino';
import type { Broker, Clock, KeptBuilds, Message } from '../../ports.ts';
import { EVENTS, parseEvent } from './messages.ts';

export interface EventsOptions {
  readonly broker: Broker;
  readonly exchange: string;
  readonly kept: KeptBuilds;
  /** Whether an open mapping has one of these build requests, or is of this task. @throws StoreError */
  readonly isOurs: (buildRequestIds: readonly number[], taskId: string | null) => Promise<boolean>;
  readonly onHint: (buildRequestId: number) => void;
  readonly onGap: () => void;
  readonly clock: Clock;
  /** How long what was kept stays. */
  readonly retentionMs: number;
  readonly log: Logger | undefined;
}

/** Messages under way at once. */
const PREFETCH = 50;
const PRUNE_EVERY_MS = 3_600_000;
const PRUNE_LIMIT = 1000;

/** Listens until stopped. */
export async function startEvents(options: EventsOptions): Promise<{ stop(): Promise<void> }> {
  const { kept, clock, log } = options;
  let pruned = clock.now();

  async function onMessage(message: Message): Promise<void> {
    const parsed = parseEvent(message.routingKey, message.body);
    if (parsed.kind === 'malformed') {
      const { exchange, routingKey } = message;
      log?.warn({ exchange, routingKey: routingKey.slice(0, 200), reason: parsed.reason }, 'malformed message dropped');
      return;
    }
    // Most builds of a site are no bridge's.
    if (parsed.kind === 'other' || !(await options.isOurs(parsed.buildRequestIds, parsed.taskId))) {
      return;
    }
    const { build, buildRequestIds } = parsed;
    if (build !== undefined) {
      const builds = buildRequestIds.map((buildRequestId) => ({ ...build, buildRequestId }));
      await kept.keep(builds, clock.now());
      await prune();
    }
    for (const id of buildRequestIds) {
      options.onHint(id);
    }
  }

  async function prune(): Promise<void> {
    const now = clock.now();
    if (now - pruned < PRUNE_EVERY_MS) {
      return;
    }
    pruned = now;
    try {
      await kept.prune(now - options.retentionMs, PRUNE_LIMIT);
    } catch (error) {
      log?.warn({ err: error }, 'old messages not pruned');
    }
  }

  const subscription = options.broker.subscribe({
    name: 'builds',
    bindings: EVENTS.map((event) => ({ exchange: options.exchange, pattern: `build.#.${event}` })),
    prefetch: PREFETCH,
    onMessage,
    onGap: options.onGap,
  });
  await subscription.start();
  return { stop: () => subscription.stop() };
}
