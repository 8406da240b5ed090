/** What may keep the bridge from its work, and for how long it is felt. */
import type { Host } from './host.ts';
import type { Scheduler } from './scheduler.ts';
import { LEASE_MS, ROUND_MS } from './settings.ts';

export interface Hindrances {
  /** @param isReflector whether the process sees to all that is due */
  onLaunch(host: Host, isReflector: boolean): void;
  /** A call, or a process, met a fault at this time or will until then. */
  onFault(until: number, isForbidden: boolean): void;
  /** Since when nothing has kept the bridge from seeing to all that is due; undefined if something does. */
  freeSince(): number | undefined;
}

/** A lease that nobody has let go of, or the wait after a failure, whichever is longer; then a round, its delay, and passes. */
const FELT_MS = LEASE_MS + 2 * ROUND_MS;
/** The wait after a call that was forbidden, and a quarter more. */
const FORBIDDEN_MS = 375_000 + FELT_MS;

export function createHindrances({ now }: Pick<Scheduler, 'now'>): Hindrances {
  const reflectors = new Set<Host>();
  let over = now();

  function onFault(until: number, isForbidden: boolean): void {
    over = Math.max(over, until + (isForbidden ? FORBIDDEN_MS : FELT_MS));
  }

  return {
    onLaunch(host, isReflector) {
      if (isReflector) {
        reflectors.add(host);
      }
      const note = () => onFault(now(), false);
      note();
      host.onFreeze(note);
      host.onWake(note);
      host.onCrash(() => {
        reflectors.delete(host);
        note();
      });
    },
    onFault,
    freeSince() {
      const isServed = [...reflectors].some((host) => !host.isPaused());
      return isServed && over <= now() ? over : undefined;
    },
  };
}
