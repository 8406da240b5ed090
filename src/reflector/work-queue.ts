/**
 * Hints become passes: one worker a task, a bounded number of tasks at once, and patience for each task of its own.
 * A hint that comes while its task is being looked at leads to one more look.
 */
import type { Logger } from 'pino';
import type { Clock } from '../ports.ts';
import type { PassResult } from './reconcile.ts';

export interface WorkQueue {
  /**
   * Asks for a look at a task.
   * @returns resolves when a pass that began after this call has ended well, or was given up (the reflector finds the
   *   task again); rejects when the queue was stopped before that
   */
  add(taskId: string): Promise<void>;
  /** How many tasks wait or are being looked at. */
  size(): number;
  /** Milliseconds since the longest waiting task was asked for; 0 when none waits. */
  oldestAgeMs(): number;
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
}

interface Entry {
  readonly since: number;
  tries: number;
  /** Those who wait for a pass that has not begun yet. */
  waiting: Waiter[];
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Also while another pass has the task's lease: what that one read may be older than the hint. */
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 60_000;

export function createWorkQueue({ pass, concurrency, clock, log, maxTries = 12 }: WorkQueueOptions): WorkQueue {
  const entries = new Map<string, Entry>();
  const ready: string[] = [];
  const stopping = new AbortController();
  let running = 0;
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
        return;
      }
      entries.set(taskId, { since: clock.uptime(), tries: 0, waiting: [waiter] });
      ready.push(taskId);
      startSome();
    });
  }

  function startSome(): void {
    while (running < concurrency && !stopping.signal.aborted) {
      const taskId = ready.shift();
      if (taskId === undefined) {
        return;
      }
      running += 1;
      void work(taskId).finally(() => {
        running -= 1;
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
    if (result.kind === 'failed' || result.kind === 'busy' || result.kind === 'store-away') {
      // Without the database the reflector could not find the task either, and the next hint would fare no better.
      if (entry.tries < maxTries || result.kind === 'store-away') {
        entry.waiting = [...served, ...entry.waiting];
        const now = clock.now();
        const patience = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(entry.tries - 1, 10));
        const at = result.kind === 'busy' ? now + FIRST_RETRY_MS : Math.max(result.retryAt, now + patience);
        void wakeLater(taskId, at);
        return;
      }
      if (result.kind === 'failed') {
        log.warn({ taskId, tries: entry.tries }, 'hint given up; the reflector will find the task');
      }
    }
    for (const waiter of served) {
      waiter.resolve();
    }
    if (entry.waiting.length > 0) {
      entry.tries = 0;
      ready.push(taskId);
    } else {
      entries.delete(taskId);
    }
  }

  async function wakeLater(taskId: string, at: number): Promise<void> {
    await clock.sleep(Math.max(0, at - clock.now()), stopping.signal);
    ready.push(taskId);
    startSome();
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
    ready.length = 0;
  }

  return {
    add,
    size: () => entries.size,
    oldestAgeMs() {
      const [first] = entries.values();
      return first ? clock.uptime() - first.since : 0;
    },
    stop,
  };
}
