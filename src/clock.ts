import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from './ports.ts';

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  async sleep(ms, signal) {
    if (signal) {
      // Any number of sleepers may wait for the same stop.
      setMaxListeners(0, signal);
    }
    try {
      await delay(ms, undefined, { ref: false, ...(signal ? { signal } : {}) });
    } catch {
      // Aborted: the caller asked to be woken.
    }
  },
};
