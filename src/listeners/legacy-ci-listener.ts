/** Hears from the legacy CI that something happened to a build request, and asks for a look at its task. */
import type { Logger } from 'pino';
import type { Clock, LegacyCi, MappingStore } from '../ports.ts';

export interface LegacyCiListenerOptions {
  readonly ci: LegacyCi;
  readonly store: MappingStore;
  readonly clock: Clock;
  readonly log: Logger;
  /** Asks for a look at a task. */
  readonly onHint: (taskId: string) => void;
  /** Called after all mappings were made due, because hints may have been missed. */
  readonly onGap: () => void;
}

export interface LegacyCiListener {
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Events of one build come in bursts: they are looked up together. */
const GATHER_MS = 50;
/** A build can start before its request's id is recorded: an id that nobody knows is looked up once more. */
const SECOND_LOOK_MS = 2000;
/** More ids than any burst has; beyond that, the reflector's sweep is the cheaper way to see to them. */
const MAX_GATHERED = 10_000;

export function createLegacyCiListener(options: LegacyCiListenerOptions): LegacyCiListener {
  const { ci, store, clock, log } = options;
  const stopping = new AbortController();
  const fresh = new Set<number>();
  let loop: Promise<void> | undefined;
  let watch: { stop(): Promise<void> } | undefined;
  const secondLooks = new Set<Promise<void>>();

  function hear(buildRequestId: number): void {
    if (fresh.size >= MAX_GATHERED) {
      return;
    }
    fresh.add(buildRequestId);
    loop ??= gather();
  }

  async function gather(): Promise<void> {
    while (fresh.size > 0 && !stopping.signal.aborted) {
      await clock.sleep(GATHER_MS, stopping.signal);
      const ids = [...fresh];
      fresh.clear();
      const known = await lookUp(ids);
      if (!known && !stopping.signal.aborted) {
        const again = lookAgain(ids).finally(() => secondLooks.delete(again));
        secondLooks.add(again);
      }
    }
    // In the same step as the look at what is left: what is heard next begins anew.
    loop = undefined;
  }

  async function lookAgain(ids: readonly number[]): Promise<void> {
    await clock.sleep(SECOND_LOOK_MS, stopping.signal);
    if (!stopping.signal.aborted) {
      await lookUp(ids);
    }
  }

  /** @returns whether every id belongs to a task of the bridge */
  async function lookUp(ids: readonly number[]): Promise<boolean> {
    try {
      const taskIds = await store.tasksOfRequests(ids);
      for (const taskId of taskIds) {
        options.onHint(taskId);
      }
      return taskIds.length >= ids.length;
    } catch (error) {
      log.warn({ count: ids.length, err: error }, 'hints not looked up; the reflector will see to their tasks');
      return true;
    }
  }

  async function catchUp(): Promise<void> {
    try {
      const count = await store.makeAllDue(clock.now());
      log.info({ count }, 'connected to the legacy CI; open mappings are looked at again');
      options.onGap();
    } catch (error) {
      log.warn({ err: error }, 'mappings not made due; the reflector looks at them in its usual time');
    }
  }

  return {
    async start() {
      watch = await ci.watch({ onHint: hear, onGap: () => void catchUp() });
    },
    async stop() {
      stopping.abort();
      await watch?.stop();
      await loop;
      await Promise.all(secondLooks);
    },
  };
}
