/** What may keep the bridge from its work, and for how long it is felt. */
import type { Host } from './host.ts';
import type { Scheduler } from './scheduler.ts';
import { LEASE_MS, ROUND_MS } from './settings.ts';
import type { Service } from './weather.ts';

export interface Hindrances {
  /** @param isReflector whether the process sees to all that is due */
  onLaunch(host: Host, isReflector: boolean): void;
  /** A process has begun its work: it does not wait for its first answer of the mapping database any more. */
  onBegun(host: Host): void;
  /** A call to a service, or a process, met a fault at this time or will until then. */
  onFault(until: number, isForbidden: boolean, service?: Service): void;
  /** Since when nothing has kept the bridge from seeing to all that is due; undefined if something does. */
  freeSince(): number | undefined;
  /** The same, where the mapping database's absence does not count. */
  freeButForStoreSince(): number | undefined;
}

/** A lease that nobody has let go of, or the wait after a failure, whichever is longer; then a round, its delay, and passes. */
const FELT_MS = LEASE_MS + 2 * ROUND_MS;
/** The wait after a call that was forbidden, and a quarter more. */
const FORBIDDEN_MS = 375_000 + FELT_MS;

export function createHindrances({ now }: Pick<Scheduler, 'now'>): Hindrances {
  const reflectors = new Set<Host>();
  const begun = new WeakSet<Host>();
  let over = now();
  let overButForStore = now();

  function onFault(until: number, isForbidden: boolean, service?: Service): void {
    const felt = until + (isForbidden ? FORBIDDEN_MS : FELT_MS);
    over = Math.max(over, felt);
    if (service !== 'store') {
      overButForStore = Math.max(overButForStore, felt);
    }
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
    onBegun: (host) => begun.add(host),
    onFault,
    freeSince() {
      const isServed = [...reflectors].some((host) => !host.isPaused());
      return isServed && over <= now() ? over : undefined;
    },
    freeButForStoreSince() {
      const isServed = [...reflectors].some((host) => !host.isPaused() && begun.has(host));
      return isServed && overButForStore <= now() ? overButForStore : undefined;
    },
  };
}
