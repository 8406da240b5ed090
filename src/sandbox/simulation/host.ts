/**
 * A process of the bridge, as the world sees it: it has a clock of its own, can be frozen for a while, and can die
 * between any two things that it waits for. What a dead process waited for never comes.
 */

import { setMaxListeners } from 'node:events';
import { LegacyCiError, QueueError, StoreError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import type { History } from './history.ts';
import type { Scheduler } from './scheduler.ts';
import type { Service, Weather } from './weather.ts';

export interface Call {
  readonly service: Service;
  readonly method: string;
  /** Short names of what it is about. */
  readonly about: string;
  /** The task, where it is about one. */
  readonly taskId?: string;
  readonly isChange: boolean;
}

export interface Host {
  readonly name: string;
  readonly machine: Clock;
  isAlive(): boolean;
  isPaused(): boolean;
  /** A call to the outside: `effect` happens there, at one moment, and its answer comes back unless fate is against it. */
  call<T>(call: Call, effect: () => T): Promise<T>;
  /** Something comes in from outside: now, when the process wakes, or never. */
  deliver(run: () => void): void;
  crash(): void;
  /** @returns whether it was not frozen already */
  pause(ms: number): boolean;
  /** Before its time. */
  wake(): void;
  /** Its machine's, which people and NTP set. */
  setClock(offsetMs: number): void;
  onCrash(run: () => void): void;
  /** Whether it was frozen since then. */
  hasSleptSince(at: number): boolean;
  onFreeze(run: () => void): void;
  onWake(run: () => void): void;
}

export interface HostOptions {
  readonly name: string;
  /** How much faster than true time its machine counts. */
  readonly drift: number;
  readonly scheduler: Scheduler;
  readonly weather: Weather;
  readonly history: History;
  readonly onCall: (host: Host, call: Call) => void;
  readonly onEffect: (host: Host, call: Call) => void;
  /** It will be so long until a call is over that is slow or fails, and its late effect. */
  readonly onFault: (ms: number, isForbidden: boolean, service: Service) => void;
  /** The caller hears of a failure, whatever became of its call. */
  readonly onFailedCall: (host: Host, call: Call, error: unknown) => void;
  /** The caller hears that its call had its effect. */
  readonly onAnswered: (host: Host, call: Call, answer: unknown) => void;
  /** Called right before a call takes effect, and right after, while its caller does not know yet. */
  readonly ambush: (host: Host, call: Call) => void;
}

export function createHost(options: HostOptions): Host {
  const { name, scheduler, weather, history, ambush } = options;
  let isAlive = true;
  let frozen: (() => void)[] | undefined;
  let naps = 0;
  let wokeAt = Number.NEGATIVE_INFINITY;
  const booted = scheduler.now();
  let offset = 0;
  const mourners: (() => void)[] = [];
  const freezers: (() => void)[] = [];
  const wakers: (() => void)[] = [];

  function deliver(run: () => void): void {
    if (!isAlive) {
      return;
    }
    if (frozen) {
      frozen.push(run);
      return;
    }
    run();
    scheduler.stir();
  }

  function call<T>(what: Call, effect: () => T): Promise<T> {
    if (!isAlive) {
      return never();
    }
    options.onCall(host, what);
    const fate = weather.fateOf(what);
    const { service, method, about } = what;
    if (fate.isFault) {
      options.onFault(fate.ms + fate.lateMs, fate.isForbidden, service);
    }
    return new Promise<T>((resolve, reject) => {
      const happen = () => {
        ambush(host, what);
        const result = attempt(effect);
        options.onEffect(host, what);
        ambush(host, what);
        return result;
      };
      const fail = () => {
        if (fate.effect === 'late') {
          scheduler.after(fate.lateMs, () => {
            history.note(name, `${service}.${method} ${about}: takes effect after all`);
            happen();
          });
        }
        const error = failure(service, method, fate.isForbidden);
        options.onFailedCall(host, what, error);
        deliver(() => reject(error));
      };
      scheduler.after(fate.ms, () => {
        const result = fate.effect === 'now' ? happen() : undefined;
        history.note(name, `${service}.${method} ${about} ${told(result)}${fate.isAnswered ? '' : ', no answer'}`);
        if (result === undefined || !fate.isAnswered) {
          fail();
        } else if ('error' in result) {
          options.onFailedCall(host, what, result.error);
          deliver(() => reject(result.error));
        } else {
          options.onAnswered(host, what, result.value);
          deliver(() => resolve(result.value));
        }
      });
    });
  }

  function sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      const wake = () => {
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      if (signal) {
        setMaxListeners(0, signal);
        signal.addEventListener('abort', wake, { once: true });
      }
      scheduler.after(ms, () => deliver(wake));
    });
  }

  function wake(): void {
    if (frozen === undefined) {
      return;
    }
    const held = frozen;
    frozen = undefined;
    wokeAt = scheduler.now();
    if (isAlive) {
      history.note(name, 'wakes up');
    }
    // One after the other: each goes as far as it can before the next comes.
    for (const run of held) {
      scheduler.after(0, () => deliver(run));
    }
    scheduler.after(0, () => {
      for (const onWake of isAlive ? wakers : []) {
        onWake();
      }
    });
  }

  const host: Host = {
    name,
    machine: {
      now: () => scheduler.now() + offset,
      uptime: () => (scheduler.now() - booted) * (1 + options.drift),
      sleep,
    },
    isAlive: () => isAlive,
    isPaused: () => frozen !== undefined,
    call,
    deliver,
    crash() {
      isAlive = false;
      for (const mourn of mourners) {
        mourn();
      }
    },
    pause(ms) {
      if (frozen !== undefined || !isAlive) {
        return false;
      }
      frozen = [];
      naps += 1;
      const nap = naps;
      scheduler.after(ms, () => {
        if (nap === naps) {
          wake();
        }
      });
      for (const onFreeze of freezers) {
        onFreeze();
      }
      return true;
    },
    wake,
    setClock(offsetMs) {
      offset = offsetMs;
    },
    onCrash: (run) => mourners.push(run),
    hasSleptSince: (at) => wokeAt >= at,
    onFreeze: (run) => freezers.push(run),
    onWake: (run) => wakers.push(run),
  };
  return host;
}

function never<T>(): Promise<T> {
  return new Promise(() => undefined);
}

type Result<T> = { readonly value: T } | { readonly error: unknown };

function attempt<T>(effect: () => T): Result<T> {
  try {
    return { value: effect() };
  } catch (error) {
    return { error };
  }
}

function told(result: Result<unknown> | undefined): string {
  if (result === undefined) {
    return 'fails';
  }
  if ('error' in result) {
    return `refused: ${result.error instanceof Error ? (result.error.message.split('\n')[0] ?? '') : ''}`;
  }
  const { value } = result;
  if (typeof value === 'boolean') {
    return `-> ${value}`;
  }
  return typeof value === 'object' && value !== null && 'kind' in value ? `-> ${String(value.kind)}` : 'ok';
}

function failure(service: Service, method: string, isForbidden: boolean): Error {
  const message = `${method}: ${isForbidden ? 'forbidden' : 'no answer'}`;
  switch (service) {
    case 'queue':
      return new QueueError(isForbidden ? 'queue-forbidden' : 'queue-unavailable', message, {
        isTransient: !isForbidden,
      });
    case 'ci':
      return new LegacyCiError(isForbidden ? 'legacy-ci-forbidden' : 'legacy-ci-unavailable', message, {
        isTransient: !isForbidden,
      });
    case 'store':
      return new StoreError('store-unavailable', message, { isTransient: true });
    default:
      return service satisfies never;
  }
}
