/** Hears of builds from Pulse, and keeps what only its messages tell, before they are acknowledged. */
import type { Logger } from 'pino';
import { redeliveryDelay } from '../../delays.ts';
import { excerpt } from '../../log.ts';
import type { Broker, Clock, InputCounter, KeptBuilds, Message } from '../../ports.ts';
import { shownNames } from '../properties.ts';
import { EVENTS, parseEvent } from './messages.ts';

export interface EventsOptions {
  readonly broker: Broker;
  readonly exchange: string;
  readonly kept: KeptBuilds;
  /**
   * Which of the build requests that an event names are the bridge's, or the task's own where it names none, as masters
   * did that could not look them up. Empty: it is none of ours.
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
/** An event that fails so often although another one was kept since it had failed before does so by its own fault. */
const MAX_BLAMED = 10;
/** Brokers close channels on which a message is under way for half an hour. */
const LONGEST_MS = 20 * 60_000;

type ParsedEvent = Extract<ReturnType<typeof parseEvent>, { kind: 'event' }>;

/** Listens until stopped. */
export async function startEvents(options: EventsOptions): Promise<{ stop(): Promise<void> }> {
  const { kept, clock, log, inputs } = options;
  const stopping = new AbortController();
  let pruned = clock.uptime();
  let lastKept = Number.NEGATIVE_INFINITY;

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
    for (const id of await heardOf(parsed, message)) {
      options.onHint(id);
    }
  }

  /**
   * While the mapping database is away an event waits for it here, rather than be delivered again and again: brokers
   * drop what comes back too often.
   * @returns the build requests that it is about, where one of them is the bridge's
   */
  async function heardOf(event: ParsedEvent, message: Message): Promise<readonly number[]> {
    const since = clock.uptime();
    let blamed = 0;
    for (let tries = 1, triedAt = since; ; tries += 1) {
      try {
        return await keep(event);
      } catch (error) {
        blamed += lastKept > triedAt ? 1 : 0;
        triedAt = clock.uptime();
        if (blamed >= MAX_BLAMED) {
          giveUp(event, message, error);
          return event.buildRequestIds;
        }
        log?.debug({ buildRequestIds: event.buildRequestIds, tries, err: error }, 'build event not kept; trying again');
        await clock.sleep(redeliveryDelay(tries - 1), stopping.signal);
        if (stopping.signal.aborted || clock.uptime() - since > LONGEST_MS) {
          throw error;
        }
      }
    }
  }

  function giveUp({ buildRequestIds }: ParsedEvent, { exchange, routingKey }: Message, error: unknown): void {
    inputs?.rejected('build-event');
    log?.error(
      { exchange, routingKey: excerpt(routingKey), buildRequestIds: buildRequestIds.slice(0, 10), err: error },
      'build event given up: it cannot be kept, and others can; what it tells of properties and log is lost',
    );
  }

  async function keep(parsed: ParsedEvent): Promise<readonly number[]> {
    const { build } = parsed;
    // Most builds of a site are no bridge's.
    const buildRequestIds = await options.ownRequests(parsed.buildRequestIds, parsed.taskId);
    if (build !== undefined && buildRequestIds.length > 0) {
      const builds = buildRequestIds.map((buildRequestId) => ({ ...build, buildRequestId }));
      await kept.keep(builds, clock.now());
      tellLeftOut(parsed, buildRequestIds);
      lastKept = clock.uptime();
      await prune();
    }
    // One of the others may be of a task that does not know it yet.
    return buildRequestIds.length === 0 ? [] : [...new Set([...parsed.buildRequestIds, ...buildRequestIds])];
  }

  /** Of builds that are a bridge's: what is wrong with those of others is no news. */
  function tellLeftOut({ leftOut, taskId }: ParsedEvent, buildRequestIds: readonly number[]): void {
    if (leftOut.length > 0) {
      inputs?.rejected('build-event');
      const [buildRequestId] = buildRequestIds;
      log?.warn(
        { taskId, buildRequestId, what: shownNames(leftOut) },
        'parts of a build event left out: they cannot be read, or are too large',
      );
    }
  }

  async function prune(): Promise<void> {
    if (clock.uptime() - pruned < PRUNE_EVERY_MS) {
      return;
    }
    pruned = clock.uptime();
    const before = clock.now() - options.retentionMs;
    try {
      for (let count = PRUNE_LIMIT; count >= PRUNE_LIMIT && !stopping.signal.aborted; ) {
        count = await kept.prune(before, PRUNE_LIMIT);
      }
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
  return {
    async stop() {
      stopping.abort();
      await subscription.stop();
    },
  };
}
