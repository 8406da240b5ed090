/** Keeps all instances by one clock, the database server's, whatever their machines' clocks say. */
import type { Logger } from 'pino';
import type { SettableClock } from './clock.ts';
import { describeError, isTransient } from './errors.ts';
import type { MappingStore } from './ports.ts';

export interface TimekeeperOptions {
  readonly clock: SettableClock;
  readonly store: Pick<MappingStore, 'now'>;
  readonly log: Logger;
  /**
   * Called whenever the clock was set, once a minute, and again soon where it fails; the start does not wait for it to succeed.
   * @param wasSetBack since it succeeded last: what was to be looked at by the old time would have to wait for as long
   */
  readonly onSet: (wasSetBack: boolean) => Promise<void>;
}

export interface Timekeeper {
  /**
   * Resolves when the clock is set, and keeps it so from then on.
   * A database that is away is waited for.
   * @throws StoreError for what waiting does not mend
   */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const EVERY_MS = 60_000;
const AGAIN_MS = 5000;
/** The time is somewhere between question and answer: leases have room for half of this, twice. */
const MAX_ANSWER_MS = 2000;
/** From a database that always answers more slowly, the quickest of so many answers has to do. */
const MAX_ASKED = 5;
/** What leases and graces do not notice. */
const TOLERABLE_MS = 5000;

/** `now` at this `uptime`, give or take half of `roundTripMs`. */
interface Reading {
  readonly now: number;
  readonly uptime: number;
  readonly roundTripMs: number;
}

export function createTimekeeper({ clock, store, log, onSet }: TimekeeperOptions): Timekeeper {
  const stopping = new AbortController();
  let loop: Promise<void> | undefined;
  let isSet = false;
  let wasSetBack = false;

  async function ask(): Promise<Reading> {
    const asked = clock.uptime();
    const now = await store.now();
    const answered = clock.uptime();
    return { now, uptime: (asked + answered) / 2, roundTripMs: answered - asked };
  }

  /** @returns undefined when stopped; @throws StoreError */
  async function read(): Promise<Reading | undefined> {
    let best: Reading | undefined;
    for (let asked = 1; !stopping.signal.aborted; asked += 1) {
      const reading = await ask();
      if (best === undefined || reading.roundTripMs < best.roundTripMs) {
        best = reading;
      }
      if (best.roundTripMs <= MAX_ANSWER_MS) {
        return best;
      }
      if (asked === MAX_ASKED) {
        log.warn({ roundTripMs: best.roundTripMs }, 'the database is slow; the clock may be off by half of this');
        return best;
      }
      await clock.sleep(AGAIN_MS, stopping.signal);
    }
    return undefined;
  }

  function set({ now, uptime }: Reading): void {
    const forwardMs = Math.round(clock.set(now, uptime));
    if (Math.abs(forwardMs) > TOLERABLE_MS) {
      log.warn(
        { forwardMs },
        "the clock was set by the database server's; see that all machines' clocks are kept right",
      );
    }
    // What was written before the first time was written by others, whose clocks were right.
    wasSetBack ||= isSet && forwardMs < -TOLERABLE_MS;
    isSet = true;
  }

  /** @returns whether it could be set; @throws StoreError for what waiting does not mend */
  async function setOnce(): Promise<boolean> {
    try {
      const reading = await read();
      if (reading !== undefined) {
        set(reading);
      }
      return true;
    } catch (error) {
      if (!isTransient(error)) {
        throw error;
      }
      // That the database is away, others say loudly; until it is back the clock runs on by itself.
      const level = isSet ? 'debug' : 'warn';
      log[level]({ reason: describeError(error) }, 'the clock was not set; asking again');
      return false;
    }
  }

  /** @returns whether there is nothing to be tried again soon */
  async function tell(): Promise<boolean> {
    try {
      await onSet(wasSetBack);
      wasSetBack = false;
      return true;
    } catch (error) {
      log.warn({ err: error, wasSetBack }, 'the clock was set, and what depends on it was not mended; trying again');
      return !isTransient(error);
    }
  }

  async function keep(wasWell: boolean): Promise<void> {
    for (let wait = wasWell ? EVERY_MS : AGAIN_MS; ; ) {
      await clock.sleep(wait, stopping.signal);
      if (stopping.signal.aborted) {
        return;
      }
      const wasSet = await setOnce().catch((error: unknown) => {
        log.warn({ err: error }, 'the clock was not set');
        return undefined;
      });
      // What waiting does not mend is not asked for more often.
      const isWell = wasSet === undefined || stopping.signal.aborted || (wasSet && (await tell()));
      wait = isWell ? EVERY_MS : AGAIN_MS;
    }
  }

  return {
    async start() {
      while (!stopping.signal.aborted && !(await setOnce())) {
        await clock.sleep(AGAIN_MS, stopping.signal);
      }
      const told = stopping.signal.aborted ? Promise.resolve(true) : tell();
      loop = told.then(keep);
      await told;
    },
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}
