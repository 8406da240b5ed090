/** When a cron expression has its turn, by the clock that all instances share: a machine's own may be set. */
import { createTask, type ScheduledTask } from 'node-cron';
import type { Clock } from '../ports.ts';

/** Calls `tick` by a cron expression, seconds first, until it is destroyed. */
export type Timer = (expression: string, tick: () => Promise<void>) => { destroy(): void | Promise<void> };

const SECOND_MS = 1000;
/** So far ahead is looked for a turn; then again, by what time it is by then. */
const AHEAD_MS = 60_000;

/**
 * node-cron would wait by the machine's clock: for hours if that is set back, and through every turn that was skipped if
 * it is set forward. Of it only the expressions are used.
 */
export function createCronTimer(clock: Clock): Timer {
  return (expression, tick) => {
    const stopping = new AbortController();
    // Never started: it only says which seconds are meant.
    const task = createTask(expression, () => undefined);

    async function run(): Promise<void> {
      let last: number | undefined;
      while (!stopping.signal.aborted) {
        const now = clock.now();
        const turn = nextTurn(task, now, last);
        await clock.sleep((turn ?? now + AHEAD_MS) - now, stopping.signal);
        if (turn !== undefined && !stopping.signal.aborted) {
          last = turn;
          void tick();
        }
      }
    }

    void run();
    return {
      destroy() {
        stopping.abort();
        return task.destroy();
      },
    };
  };
}

/** The next whole second that is meant; not again the one that was the last. */
function nextTurn(task: ScheduledTask, now: number, last: number | undefined): number | undefined {
  const first = (Math.floor(now / SECOND_MS) + 1) * SECOND_MS;
  for (let second = first; second <= now + AHEAD_MS; second += SECOND_MS) {
    if (second !== last && task.match(new Date(second))) {
      return second;
    }
  }
  return undefined;
}
