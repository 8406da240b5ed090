/**
 * Hints become passes: one worker a task, a bounded number of tasks at once, and patience for each task of its own.
 * A hint that comes while its task is being looked at leads to one more look.
 *
 * A task that fails again and again is parked: nobody waits for it any more, so that messages behind its own are heard,
 * and it is tried on with growing waits, in half of the room at most. By then a reason is in its mapping or its trace, as
 * far as those without a mapping can be remembered. A fresh hint brings one look, soon, and is answered after it; the
 * waits go on growing. What is parked is forgotten at a stop; the reflector finds such tasks by itself.
 *
 * While the database is away hints are held on to, and each task is tried with growing waits of their own, of up to a
 * minute; that counts neither as a failure nor as having been busy.
 */
import type { Logger } from 'pino';
import type { Clock } from '../ports.ts';
import type { PassResult } from './reconcile.ts';

export interface WorkQueue {
  /**
   * Asks for a look at a task.
   * @returns resolves when a pass that began after this call has ended well, was given up (the reflector finds the
   *   task again), or failed and the task was parked; rejects when the queue was stopped before that
   */
  add(taskId: string): Promise<void>;
  /** How many tasks wait or are being looked at, but for those that are parked. */
  size(): number;
  /** Milliseconds since the longest waiting one of these was asked for; 0 when none waits. */
  oldestAgeMs(): number;
  /** How many tasks are parked. */
  parked(): number;
  /** Whether the task is parked: it is tried on without a hint. */
  isParked(taskId: string): boolean;
  /** Whether a pass over the task is under way. */
  isUnderWay(taskId: string): boolean;
  /** Whether a pass that was asked for is to begin as soon as there is a place, or the wait after a failure is over. */
  isWaiting(taskId: string): boolean;
  /** Begins no new passes; resolves when those under way are over. */
  stop(): Promise<void>;
}

export interface WorkQueueOptions {
  readonly pass: (taskId: string) => Promise<PassResult>;
  readonly concurrency: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** How often a task may fail, or be busy, before it is left to the reflector. */
  readonly maxTries?: number;
  /** The longest wait between two tries. */
  readonly maxWaitMs?: number;
  /** How many tasks may be parked; further ones that fail again and again are left to the reflector at once. */
  readonly maxParked?: number;
}

interface Entry {
  since: number;
  counts: Counts;
  /** When the last pass ended. */
  triedAt: number;
  /** Those who wait for a pass that has not begun yet. */
  waiting: Waiter[];
  /** Until the next pass. */
  nap?: Nap | undefined;
}

/** Passes by how they ended, since the task was asked for. */
interface Counts {
  failed: number;
  busy: number;
  /** Only those since the database was there last. */
  away: number;
}

interface Nap {
  readonly until: number;
  readonly end: AbortController;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Also while another pass has the task's lease: what that one read may be older than the hint. */
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 60_000;
/** A failure or two may be passing ones. */
const PARK_AFTER = 3;
/** No message waits longer for a try, as where rights are missing; nor is a parked task looked at more often for hints. */
const PARK_WAIT_MS = 5000;
/** They come from messages, of which there can be any number. */
const MAX_PARKED = 1000;

/**
 * Has passes made over the tasks that were asked for, never two at once over the same task. What fails is tried again
 * after waits that grow; a task that goes on failing is parked, so that it holds up no others.
 */
export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
  const { pass, concurrency, clock, log, maxTries = 12, maxWaitMs = MAX_RETRY_MS, maxParked = MAX_PARKED } = options;
  const entries = new Map<string, Entry>();
  const parked = new Set<string>();
  const ready: string[] = [];
  const parkedReady: string[] = [];
  /** Slow failures must not take up all the room. */
  const parkedConcurrency = Math.max(1, Math.floor(concurrency / 2));
  const stopping = new AbortController();
  const running = new Set<string>();
  let parkedRunning = 0;
  let wasOverflowTold = false;
  let onIdle: (() => void) | undefined;

  function add(taskId: string): Promise<void> {
    return new Promise((resolve, reject) => {
      if (stopping.signal.aborted) {
        reject(new Error('the work queue is stopped'));
        return;
      }
      const waiter = { resolve, reject };
      const entry = entries.get(taskId);
      if (entry) {
        entry.waiting.push(waiter);
        hasten(taskId, entry);
        return;
      }
      entries.set(taskId, { since: clock.uptime(), counts: noCounts(), triedAt: 0, waiting: [waiter] });
      ready.push(taskId);
      startSome();
    });
  }

  /** Somebody waits for a parked task again. */
  function hasten(taskId: string, entry: Entry): void {
    if (!parked.has(taskId)) {
      return;
    }
    unpark(taskId, entry);
    const { nap } = entry;
    const place = parkedReady.indexOf(taskId);
    if (nap) {
      // The clock may have been set back since.
      const soon = Math.min(entry.triedAt, clock.now()) + PARK_WAIT_MS;
      void wakeLater(taskId, entry, Math.min(nap.until, soon));
      nap.end.abort();
    } else if (place !== -1) {
      parkedReady.splice(place, 1);
      ready.push(taskId);
      startSome();
    }
  }

  function startSome(): void {
    while (running.size < concurrency && !stopping.signal.aborted) {
      const isParked = isParkedNext();
      if (isParked && parkedRunning >= parkedConcurrency) {
        return;
      }
      const taskId = (isParked ? parkedReady : ready).shift();
      if (taskId === undefined) {
        return;
      }
      const entry = entries.get(taskId);
      if (entry) {
        void work(taskId, entry, isParked);
      }
    }
  }

  /** Fresh hints go first, but not without end: next to others, parked tasks have a place. */
  function isParkedNext(): boolean {
    return ready.length === 0 || (parkedReady.length > 0 && parkedRunning === 0 && running.size > 0);
  }

  async function work(taskId: string, entry: Entry, isParked: boolean): Promise<void> {
    running.add(taskId);
    parkedRunning += Number(isParked);
    const served = entry.waiting;
    entry.waiting = [];
    // It is over before it may be begun once more, whoever ends in the same moment.
    const result = await pass(taskId).finally(() => {
      running.delete(taskId);
      parkedRunning -= Number(isParked);
    });
    afterPass(taskId, entry, served, result);
    startSome();
    if (running.size === 0) {
      onIdle?.();
    }
  }

  function afterPass(taskId: string, entry: Entry, served: readonly Waiter[], result: PassResult): void {
    entry.triedAt = clock.now();
    count(entry.counts, result.kind);
    switch (result.kind) {
      case 'done':
      case 'not-ours':
        end(taskId, entry, served);
        return;
      case 'busy':
        if (entry.counts.busy < maxTries) {
          tryAgain(taskId, entry, served, clock.now() + FIRST_RETRY_MS);
        } else {
          end(taskId, entry, served);
        }
        return;
      case 'store-away':
        // Without the database the reflector could not find the task either, and the next hint would fare no better.
        unpark(taskId, entry);
        tryAgain(taskId, entry, served, clock.now() + patience(entry.counts.away));
        return;
      case 'failed':
        afterFailure(taskId, entry, served, result.retryAt);
        return;
      default:
        result satisfies never;
    }
  }

  function afterFailure(taskId: string, entry: Entry, served: readonly Waiter[], retryAt: number): void {
    const { failed } = entry.counts;
    // A hint that came meanwhile gets its look, but the waits go on growing.
    if (failed >= maxTries && entry.waiting.length === 0) {
      log.warn({ taskId, tries: failed }, 'hint given up; the reflector will find the task');
      end(taskId, entry, served);
      return;
    }
    const at = Math.max(retryAt, clock.now() + patience(failed));
    const soon = clock.now() + PARK_WAIT_MS;
    if (failed < PARK_AFTER && failed < maxTries && retryAt <= soon) {
      tryAgain(taskId, entry, served, at);
      return;
    }
    answer(served);
    if (entry.waiting.length > 0) {
      renew(taskId, entry);
      void wakeLater(taskId, entry, Math.min(at, soon));
    } else if (parked.has(taskId) || parked.size < maxParked) {
      parked.add(taskId);
      void wakeLater(taskId, entry, at);
    } else {
      leaveToReflector(taskId);
    }
  }

  function tryAgain(taskId: string, entry: Entry, served: readonly Waiter[], at: number): void {
    entry.waiting = [...served, ...entry.waiting];
    void wakeLater(taskId, entry, at);
  }

  /** Nothing more to do for those who were served. */
  function end(taskId: string, entry: Entry, served: readonly Waiter[]): void {
    answer(served);
    if (entry.waiting.length > 0) {
      entry.counts = noCounts();
      renew(taskId, entry);
      ready.push(taskId);
    } else {
      forget(taskId);
    }
  }

  function leaveToReflector(taskId: string): void {
    forget(taskId);
    if (!wasOverflowTold) {
      wasOverflowTold = true;
      log.warn({ parked: parked.size }, 'too many tasks fail again and again; further ones are left to the reflector');
    }
  }

  function forget(taskId: string): void {
    entries.delete(taskId);
    parked.delete(taskId);
    wasOverflowTold &&= parked.size > 0;
  }

  function unpark(taskId: string, entry: Entry): void {
    if (parked.delete(taskId)) {
      renew(taskId, entry);
    }
  }

  /** It counts as asked for now: who waited for it before was answered. */
  function renew(taskId: string, entry: Entry): void {
    entries.delete(taskId);
    entries.set(taskId, entry);
    entry.since = clock.uptime();
  }

  async function wakeLater(taskId: string, entry: Entry, at: number): Promise<void> {
    const nap = { until: at, end: new AbortController() };
    entry.nap = nap;
    if (stopping.signal.aborted) {
      return;
    }
    await clock.sleep(Math.max(0, at - clock.now()), nap.end.signal);
    if (entry.nap === nap) {
      entry.nap = undefined;
      (parked.has(taskId) ? parkedReady : ready).push(taskId);
      startSome();
    }
  }

  /** How long to wait after so many tries. */
  function patience(tries: number): number {
    return Math.min(maxWaitMs, FIRST_RETRY_MS * 2 ** Math.min(tries - 1, 10));
  }

  function oldest(): Entry | undefined {
    for (const [taskId, entry] of entries) {
      if (!parked.has(taskId)) {
        return entry;
      }
    }
    return undefined;
  }

  async function stop(): Promise<void> {
    stopping.abort();
    if (running.size > 0) {
      await new Promise<void>((resolve) => {
        onIdle = resolve;
      });
    }
    for (const { waiting, nap } of entries.values()) {
      nap?.end.abort();
      for (const { reject } of waiting) {
        reject(new Error('the work queue was stopped'));
      }
    }
    entries.clear();
    parked.clear();
    ready.length = 0;
    parkedReady.length = 0;
  }

  return {
    add,
    size: () => entries.size - parked.size,
    oldestAgeMs() {
      const first = oldest();
      return first ? clock.uptime() - first.since : 0;
    },
    parked: () => parked.size,
    isParked: (taskId) => parked.has(taskId),
    isUnderWay: (taskId) => running.has(taskId),
    isWaiting(taskId) {
      const entry = entries.get(taskId);
      return entry !== undefined && (entry.waiting.length > 0 || !running.has(taskId));
    },
    stop,
  };
}

function answer(waiters: readonly Waiter[]): void {
  for (const { resolve } of waiters) {
    resolve();
  }
}

function noCounts(): Counts {
  return { failed: 0, busy: 0, away: 0 };
}

function count(counts: Counts, result: PassResult['kind']): void {
  counts.failed += Number(result === 'failed');
  counts.busy += Number(result === 'busy');
  counts.away = result === 'store-away' ? counts.away + 1 : 0;
}
