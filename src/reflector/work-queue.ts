/**
 * Hints become passes: one worker a task, a bounded number of tasks at once, and patience for each task of its own.
 * A hint that comes while its task is being looked at leads to one more look.
 *
 * A task that fails again and again is parked: nobody waits for it any more, so that messages behind its own are heard,
 * and it is tried on with growing waits, after all others. By then the reason of its failure is in its mapping or in
 * its trace. What is parked is forgotten at a stop; the reflector finds such tasks by itself.
 */
import type { Logger } from 'pino';
import type { Clock } from '../ports.ts';
import type { PassResult } from './reconcile.ts';

export interface WorkQueue {
  /**
   * Asks for a look at a task.
   * @returns resolves when a pass that began after this call has ended well, was given up (the reflector finds the
   *   task again), or when the task is parked, and will be looked at once more in its turn; rejects when the queue was
   *   stopped before that
   */
  add(taskId: string): Promise<void>;
  /** How many tasks that somebody waits for wait or are being looked at. */
  size(): number;
  /** Milliseconds since the longest waiting one of these was asked for; 0 when none waits. */
  oldestAgeMs(): number;
  /** How many tasks are parked. */
  parked(): number;
  /** Begins no new passes; resolves when those under way are over. */
  stop(): Promise<void>;
}

export interface WorkQueueOptions {
  readonly pass: (taskId: string) => Promise<PassResult>;
  readonly concurrency: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** How often a failing pass is tried before it is left to the reflector. */
  readonly maxTries?: number;
  /** How many tasks may be parked; further ones that fail again and again are left to the reflector at once. */
  readonly maxParked?: number;
}

interface Entry {
  since: number;
  tries: number;
  failures: number;
  /** Those who asked for a pass that has not begun yet; where the task is parked, they were answered. */
  waiting: Waiter[];
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
/** No message waits for a try that is further away, as where rights are missing. */
const PARK_WAIT_MS = 5000;
/** They come from messages, of which there can be any number. */
const MAX_PARKED = 1000;

export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
  const { pass, concurrency, clock, log, maxTries = 12, maxParked = MAX_PARKED } = options;
  const entries = new Map<string, Entry>();
  const parked = new Set<string>();
  const ready: string[] = [];
  const parkedReady: string[] = [];
  /** Slow failures must not take up all the room. */
  const parkedConcurrency = Math.max(1, Math.floor(concurrency / 2));
  const stopping = new AbortController();
  let running = 0;
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
      if (entry && parked.has(taskId)) {
        entry.waiting = [waiter];
        resolve();
        return;
      }
      if (entry) {
        entry.waiting.push(waiter);
        return;
      }
      entries.set(taskId, { since: clock.uptime(), tries: 0, failures: 0, waiting: [waiter] });
      ready.push(taskId);
      startSome();
    });
  }

  function startSome(): void {
    while (running < concurrency && !stopping.signal.aborted) {
      const isParked = ready.length === 0;
      if (isParked && parkedRunning >= parkedConcurrency) {
        return;
      }
      const taskId = (isParked ? parkedReady : ready).shift();
      if (taskId === undefined) {
        return;
      }
      running += 1;
      parkedRunning += Number(isParked);
      void work(taskId).finally(() => {
        running -= 1;
        parkedRunning -= Number(isParked);
        startSome();
        if (running === 0) {
          onIdle?.();
        }
      });
    }
  }

  async function work(taskId: string): Promise<void> {
    const entry = entries.get(taskId);
    if (!entry) {
      return;
    }
    const served = entry.waiting;
    entry.waiting = [];
    entry.tries += 1;
    const result = await pass(taskId);
    switch (result.kind) {
      case 'done':
      case 'not-ours':
        end(taskId, entry, served);
        return;
      case 'busy':
        if (entry.tries < maxTries) {
          tryAgain(taskId, entry, served, clock.now() + FIRST_RETRY_MS);
        } else {
          end(taskId, entry, served);
        }
        return;
      case 'store-away':
        // Without the database the reflector could not find the task either, and the next hint would fare no better.
        unpark(taskId, entry);
        tryAgain(taskId, entry, served, patientTime(entry, result.retryAt));
        return;
      case 'failed':
        afterFailure(taskId, entry, served, patientTime(entry, result.retryAt));
    }
  }

  function patientTime({ tries }: Entry, notBefore: number): number {
    return Math.max(notBefore, clock.now() + Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(tries - 1, 10)));
  }

  function afterFailure(taskId: string, entry: Entry, served: readonly Waiter[], at: number): void {
    entry.failures += 1;
    // A hint that came meanwhile gets its look, but the waits go on growing.
    if (entry.tries >= maxTries && entry.waiting.length === 0) {
      log.warn({ taskId, tries: entry.tries }, 'hint given up; the reflector will find the task');
      end(taskId, entry, served);
      return;
    }
    const isParked = parked.has(taskId);
    const isLasting = entry.failures >= PARK_AFTER || entry.tries >= maxTries || at > clock.now() + PARK_WAIT_MS;
    if (isParked || !isLasting) {
      tryAgain(taskId, entry, served, at);
      return;
    }
    answer([...served, ...entry.waiting]);
    if (parked.size >= maxParked) {
      leaveToReflector(taskId);
      return;
    }
    parked.add(taskId);
    void wakeLater(taskId, at);
  }

  function tryAgain(taskId: string, entry: Entry, served: readonly Waiter[], at: number): void {
    entry.waiting = [...served, ...entry.waiting];
    void wakeLater(taskId, at);
  }

  /** Nothing more to do for those who were served. */
  function end(taskId: string, entry: Entry, served: readonly Waiter[]): void {
    answer(served);
    if (entry.waiting.length > 0) {
      unpark(taskId, entry);
      entry.tries = 0;
      entry.failures = 0;
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

  /** Whoever asks for it waits again, and it counts as asked for now. */
  function unpark(taskId: string, entry: Entry): void {
    if (parked.delete(taskId)) {
      entries.delete(taskId);
      entries.set(taskId, entry);
      entry.since = clock.uptime();
    }
  }

  async function wakeLater(taskId: string, at: number): Promise<void> {
    await clock.sleep(Math.max(0, at - clock.now()), stopping.signal);
    (parked.has(taskId) ? parkedReady : ready).push(taskId);
    startSome();
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
    if (running > 0) {
      await new Promise<void>((resolve) => {
        onIdle = resolve;
      });
    }
    for (const entry of entries.values()) {
      for (const { reject } of entry.waiting) {
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
    stop,
  };
}

function answer(waiters: readonly Waiter[]): void {
  for (const { resolve } of waiters) {
    resolve();
  }
}
