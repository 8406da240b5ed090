/**
 * The timer: keeps claims alive, notices what no event tells, finds tasks whose message never came, and cleans up. Alone,
 * without any listener, it brings every task to its end.
 */
import type { Logger } from 'pino';
import { lastRun } from '../domain/task.ts';
import { levelOf, StoreError } from '../errors.ts';
import type { Clock, MappingStore, TaskQueue } from '../ports.ts';
import { createCronTimer, type Timer } from './cron.ts';
import type { SweepReport } from './sweep.ts';
import { tellUnread, unreadOf } from './unread.ts';

export interface ReflectorOptions {
  readonly store: MappingStore;
  readonly queue: TaskQueue;
  readonly clock: Clock;
  readonly log: Logger;
  /** Asks for a look at every listed task, and sees to no mappings itself: leases and pruning are changes. */
  readonly isObserving: boolean;
  /** A cron expression, seconds first. */
  readonly schedule: string;
  /** Each tick starts up to this much later, so that many instances do not sweep at the same moment. */
  readonly jitterMs: number;
  readonly retentionMs: number;
  readonly random: () => number;
  readonly sweep: (signal: AbortSignal) => Promise<SweepReport>;
  /** In place of the sweep where the mapping database is away. */
  readonly keepClaims: (signal: AbortSignal) => Promise<void>;
  /** Asks for a look at a task that has no mapping. */
  readonly hint: (taskId: string) => void;
  /** Whether a pending task was found to be none of ours a moment ago. */
  readonly isKnownForeign: (taskId: string) => boolean;
  readonly heartbeat: () => Promise<void>;
  /** The machine's time unless given, as where time is simulated. */
  readonly timer?: Timer | undefined;
}

export interface RoundReport {
  /** UTC milliseconds. */
  readonly endedAt: number;
  readonly durationMs: number;
  /** Due mappings that it took; 0 where the sweep failed. */
  readonly due: number;
}

export interface Reflector {
  start(): void;
  /** Sweeps now, or once more after the sweep that is under way. */
  poke(): void;
  /** One whole round. */
  runOnce(): Promise<void>;
  /** How long ago the last round ended, well or not, in milliseconds; until then, since the start; 0 before it. */
  idleMs(): number;
  /** Of the last round that ended; undefined until then. */
  report(): RoundReport | undefined;
  /** Begins nothing new; resolves when the round under way is over. */
  stop(): Promise<void>;
}

/** How many closed mappings a round removes at most: pruning must not keep claims waiting. */
const PRUNE_BATCH = 500;
/** How long a round reads a list: claims must not be kept waiting by a long one. The next round goes on with it. */
const LIST_MS = 60_000;

export function createReflector(options: ReflectorOptions): Reflector {
  const { store, queue, clock, log, isObserving } = options;
  const stopping = new AbortController();
  let timer: ReturnType<Timer> | undefined;
  let round: Promise<void> | undefined;
  let isWantedAgain = false;
  let idleSince: number | undefined;
  let lastReport: RoundReport | undefined;
  const pending = paged(() => queue.listPending());
  const claimed = paged(() => queue.listClaimed());

  /**
   * One part that fails does not keep the others from being done.
   * @returns what it failed with, if it did
   */
  async function part(name: string, work: () => Promise<unknown>): Promise<unknown> {
    if (stopping.signal.aborted) {
      return undefined;
    }
    try {
      await work();
      return undefined;
    } catch (error) {
      log[levelOf(error)]({ part: name, err: error }, 'part of a round failed; the next round tries again');
      return error;
    }
  }

  /** @returns what the sweep did; undefined where it failed */
  async function oneRound(): Promise<SweepReport | undefined> {
    const started = clock.uptime();
    let report: SweepReport | undefined;
    await part('heartbeat', options.heartbeat);
    if (!isObserving) {
      const failure = await part('sweep', async () => {
        report = await options.sweep(stopping.signal);
      });
      if (failure instanceof StoreError) {
        await part('keepClaims', () => options.keepClaims(stopping.signal));
      }
    }
    if (report?.isCut) {
      log.warn({ ...report }, 'a sweep was cut short; the next one begins at once, with what is left');
    }
    await part('pending', () => findUnmapped(pending, async (taskIds) => taskIds));
    await part('claimed', () => findUnmapped(claimed, stillClaimed));
    if (!isObserving) {
      await part('prune', () => store.prune(clock.now() - options.retentionMs, PRUNE_BATCH));
    }
    const ended = clock.uptime();
    idleSince = ended;
    lastReport = { endedAt: clock.now(), durationMs: ended - started, due: report?.due ?? 0 };
    log.debug({ ...report, durationMs: lastReport.durationMs }, 'round ended');
    return report;
  }

  /** Tasks that the queue lists and that have no mapping: their message was lost, or is still on its way. */
  async function findUnmapped(
    list: Paged,
    confirm: (taskIds: readonly string[]) => Promise<readonly string[]>,
  ): Promise<void> {
    const end = clock.uptime() + LIST_MS;
    const isOver = () => stopping.signal.aborted || clock.uptime() >= end;
    await list.read(isOver, async (page) => {
      const open = isObserving ? new Set<string>() : await store.openAmong(page);
      const unmapped = page.filter((taskId) => !open.has(taskId) && !options.isKnownForeign(taskId));
      for (const taskId of unmapped.length > 0 ? await confirm(unmapped) : []) {
        options.hint(taskId);
      }
    });
  }

  /** The queue's list of claimed tasks also has runs that are over: it is only a hint at what may be claimed. */
  async function stillClaimed(taskIds: readonly string[]): Promise<readonly string[]> {
    const statuses = await queue.statuses(taskIds);
    const unread = taskIds.flatMap((taskId) => unreadOf(statuses.get(taskId), { taskId }));
    tellUnread(log, unread, 'claimed tasks could not be read; the next round tries again');
    return taskIds.filter((taskId) => {
      const seen = statuses.get(taskId);
      return seen?.kind === 'present' && lastRun(seen.value)?.state === 'running';
    });
  }

  function poke(): void {
    if (stopping.signal.aborted) {
      return;
    }
    if (round) {
      isWantedAgain = true;
      return;
    }
    round = oneRound()
      .then((report) => {
        isWantedAgain ||= report?.isCut ?? false;
      })
      .finally(() => {
        round = undefined;
        if (isWantedAgain) {
          isWantedAgain = false;
          poke();
        }
      });
  }

  async function tick(): Promise<void> {
    await clock.sleep(options.random() * options.jitterMs, stopping.signal);
    // A round that is still under way is followed by another one at once: its sweep leaves alone what is due only now.
    if (!round || !isObserving) {
      poke();
    }
  }

  return {
    start() {
      idleSince = clock.uptime();
      timer = (options.timer ?? createCronTimer(clock))(options.schedule, tick);
      poke();
    },
    poke,
    async runOnce() {
      await oneRound();
    },
    idleMs: () => (idleSince === undefined ? 0 : clock.uptime() - idleSince),
    report: () => lastReport,
    async stop() {
      stopping.abort();
      await timer?.destroy();
      await round;
    },
  };
}

/** A list of the queue's that is read over and over, where it is long a part at a time. */
interface Paged {
  /**
   * Goes on where it was over before the list was, and begins anew otherwise, also after an error.
   * @throws what the list or `work` throws
   */
  read(isOver: () => boolean, work: (page: readonly string[]) => Promise<void>): Promise<void>;
}

function paged(list: () => AsyncIterable<readonly string[]>): Paged {
  let rest: AsyncIterator<readonly string[]> | undefined;
  return {
    async read(isOver, work) {
      let mayBeAtEnd = rest !== undefined;
      let pages = rest ?? list()[Symbol.asyncIterator]();
      rest = undefined;
      while (!isOver()) {
        const page = await pages.next();
        if (!page.done) {
          await work(page.value);
        } else if (mayBeAtEnd) {
          pages = list()[Symbol.asyncIterator]();
        } else {
          return;
        }
        mayBeAtEnd = false;
      }
      rest = pages;
    },
  };
}
