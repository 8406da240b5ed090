import { setMaxListeners } from 'node:events';
import os from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Clock } from './ports.ts';

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  /** Not the process's own monotonic time, which stands still while a machine sleeps; to the hundredth of a second. */
  uptime: () => os.uptime() * 1000,
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

/** A clock that is set by another one, and runs evenly in between. */
export interface SettableClock extends Clock {
  /** What it shows the time by. */
  readonly machine: Clock;
  /** It is `now` at this `uptime`. @returns by how much the clock was put forward, in milliseconds */
  set(now: number, uptime: number): number;
}

/**
 * Shows the machine's time until it is set. Whatever becomes of the machine's own clock (an administrator or NTP sets
 * it, a virtual machine comes back with an old one) it does not follow.
 */
export function createSettableClock(machine: Clock): SettableClock {
  let offset = machine.now() - machine.uptime();
  return {
    machine,
    now: () => Math.round(machine.uptime() + offset),
    uptime: machine.uptime,
    sleep: machine.sleep,
    set(now, uptime) {
      const before = offset;
      offset = now - uptime;
      return offset - before;
    },
  };
}
