/** Keeps all instances by one clock, the database server's, whatever their machines' clocks say. */
import type { Logger } from 'pino';
import type { SettableClock } from './clock.ts';
import { describeError } from './errors.ts';
import type { MappingStore } from './ports.ts';

export interface TimekeeperOptions {
  readonly clock: SettableClock;
  readonly store: Pick<MappingStore, 'now'>;
  readonly log: Logger;
  /** The time was set back: what was to be looked at by the old one would have to wait for as long. */
  readonly onSetBack: () => void;
}

export interface Timekeeper {
  /**
   * Resolves when the clock is set, and keeps it so from then on.
   * @throws StoreError when the database cannot be asked the first time
   */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const EVERY_MS = 60_000;
const AGAIN_MS = 5000;
/** The time is somewhere between question and answer: leases have room for half of this, twice. */
const MAX_ANSWER_MS = 2000;
/** What leases and graces do not notice. */
const TOLERABLE_MS = 5000;

export function createTimekeeper({ clock, store, log, onSetBack }: TimekeeperOptions): Timekeeper {
  const { machine } = clock;
  const stopping = new AbortController();
  let loop: Promise<void> | undefined;
  let isSet = false;

  /** @returns whether the answer came soon enough to be of use; @throws StoreError */
  async function setClock(): Promise<boolean> {
    const asked = machine.uptime();
    const now = await store.now();
    const answered = machine.uptime();
    if (answered - asked > MAX_ANSWER_MS) {
      return false;
    }
    const forwardMs = Math.round(clock.set(now, (asked + answered) / 2));
    if (Math.abs(forwardMs) > TOLERABLE_MS) {
      log.warn(
        { forwardMs },
        "the clock was set by the database server's; see that all machines' clocks are kept right",
      );
    }
    // What was written before the first time was written by others, whose clocks were right.
    if (isSet && forwardMs < -TOLERABLE_MS) {
      onSetBack();
    }
    isSet = true;
    return true;
  }

  async function keep(): Promise<void> {
    let wait = EVERY_MS;
    for (;;) {
      await clock.sleep(wait, stopping.signal);
      if (stopping.signal.aborted) {
        return;
      }
      try {
        wait = (await setClock()) ? EVERY_MS : AGAIN_MS;
      } catch (error) {
        // That the database is away, others say loudly; until it is back the clock runs on by itself.
        log.debug({ reason: describeError(error) }, 'the clock was not set');
        wait = AGAIN_MS;
      }
    }
  }

  return {
    async start() {
      while (!(await setClock()) && !stopping.signal.aborted) {
        log.warn({ maxAnswerMs: MAX_ANSWER_MS }, 'the database answers too slowly to set the clock by; asking again');
        await clock.sleep(AGAIN_MS, stopping.signal);
      }
      loop = keep();
    },
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}
