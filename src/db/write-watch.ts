/** Notices that a database takes no writes: it may well answer questions, as one whose disk is full does. */
import type { Logger } from 'pino';
import { BridgeError, isTransient } from '../errors.ts';
import type { Clock, MappingStore } from '../ports.ts';

export interface WriteWatch {
  /** The same store, watched. */
  readonly store: MappingStore;
  /** Whether a write failed, and nothing shows yet that it would succeed now. */
  isFailing(): boolean;
}

const WRITES: ReadonlySet<string | symbol> = new Set<keyof MappingStore>([
  ...(['insert', 'adopt', 'lease', 'leaseDue', 'update', 'release', 'renewLease', 'releaseMany'] as const),
  ...(['keepLeased', 'giveBack', 'makeAllDue', 'mendTimes', 'addEvents', 'heartbeat', 'prune'] as const),
]);

/** These need room, where a heartbeat on a server mostly writes over what there is. */
const NEED_ROOM: ReadonlySet<string | symbol> = new Set<keyof MappingStore>(['insert', 'adopt', 'addEvents']);
/** What fails is tried again within this time, if it is still wanted. */
const AGAIN_MS = 120_000;

/**
 * Says so once when writes begin to fail, and once when they succeed again.
 * @param database its name, for people
 */
export function watchWrites(
  store: MappingStore,
  database: string,
  { log, clock }: { readonly log: Logger; readonly clock: Pick<Clock, 'uptime'> },
): WriteWatch {
  /** By method: when it failed last. */
  const failing = new Map<string | symbol, number>();

  function onFailure(method: string | symbol, error: unknown): void {
    // Others are about one row, or about the schema, which is said when it is read.
    if (!isTransient(error)) {
      return;
    }
    const isNew = failing.size === 0;
    failing.set(method, clock.uptime());
    if (isNew) {
      const isFull = error instanceof BridgeError && error.code === 'store-full';
      log[isFull ? 'error' : 'warn']({ database, err: error }, 'the mapping database cannot be written');
    }
  }

  /** Of the others, a heartbeat alone always has something to write. */
  function onSuccess(method: string | symbol): void {
    const before = failing.size;
    if (NEED_ROOM.has(method)) {
      failing.delete(method);
    }
    for (const [other, failedAt] of method === 'heartbeat' ? failing : []) {
      if (!NEED_ROOM.has(other) || clock.uptime() - failedAt > AGAIN_MS) {
        failing.delete(other);
      }
    }
    if (before > 0 && failing.size === 0) {
      log.info({ database }, 'the mapping database is written again');
    }
  }

  return {
    isFailing: () => failing.size > 0,
    store: new Proxy(store, {
      get(target, key, receiver) {
        const method: unknown = Reflect.get(target, key, receiver);
        if (typeof method !== 'function' || !WRITES.has(key)) {
          return method;
        }
        return async (...parameters: unknown[]) => {
          try {
            const answer: unknown = await method.apply(target, parameters);
            onSuccess(key);
            return answer;
          } catch (error) {
            onFailure(key, error);
            throw error;
          }
        };
      },
    }),
  };
}
