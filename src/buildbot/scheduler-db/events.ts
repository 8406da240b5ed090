/** Hears of builds from Pulse, and keeps what only its messages tell, before they are acknowledged. */
import type { Logger } from 'pino';
import { excerpt } from '../../log.ts';
import type { Broker, Clock, InputCounter, KeptBuilds, Message } from '../../ports.ts';
import { EVENTS, parseEvent } from './messages.ts';

export interface EventsOptions {
  readonly broker: Broker;
  readonly exchange: string;
  readonly kept: KeptBuilds;
  /**
   * Which build requests an event is about, if one of them has an open mapping or the task has: those that it names, or
   * the task's own where it names none, as masters did that could not look them up. Empty: it is none of ours.
   * @throws StoreError
   */
  readonly ownRequests: (named: readonly number[], taskId: string | null) => Promise<readonly number[]>;
  readonly onHint: (buildRequestId: number) => void;
  readonly onGap: () => void;
  readonly clock: Clock;
  /** How long what was kept stays. */
  readonly retentionMs: number;
  readonly log: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
}

/** Messages under way at once. */
const PREFETCH = 50;
const PRUNE_EVERY_MS = 3_600_000;
const PRUNE_LIMIT = 1000;

/** Listens until stopped. */
export async function startEvents(options: EventsOptions): Promise<{ stop(): Promise<void> }> {
  const { kept, clock, log, inputs } = options;
  let pruned = clock.uptime();

  async function onMessage(message: Message): Promise<void> {
    inputs?.received('build-event');
    const parsed = parseEvent(message.routingKey, message.body);
    if (parsed.kind === 'malformed') {
      inputs?.rejected('build-event');
      const { exchange, routingKey } = message;
      log?.warn(
        { exchange, routingKey: excerpt(routingKey), reason: parsed.reason, excerpt: excerpt(message.body) },
        'malformed message dropped',
      );
      return;
    }
    if (parsed.kind === 'other') {
      return;
    }
    const { build } = parsed;
    // Most builds of a site are no bridge's.
    const buildRequestIds = await options.ownRequests(parsed.buildRequestIds, parsed.taskId);
    if (build !== undefined && buildRequestIds.length > 0) {
      const builds = buildRequestIds.map((buildRequestId) => ({ ...build, buildRequestId }));
      await kept.keep(builds, clock.now());
      await prune();
    }
    for (const id of buildRequestIds) {
      options.onHint(id);
    }
  }

  async function prune(): Promise<void> {
    if (clock.uptime() - pruned < PRUNE_EVERY_MS) {
      return;
    }
    pruned = clock.uptime();
    try {
      await kept.prune(clock.now() - options.retentionMs, PRUNE_LIMIT);
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
