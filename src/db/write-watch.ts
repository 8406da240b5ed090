/** Notices that a database takes no writes: it may well answer questions, as one whose disk is full does. */
import type { Logger } from 'pino';
import { BridgeError, isTransient } from '../errors.ts';
import type { MappingStore } from '../ports.ts';

export interface WriteWatch {
  /** The same store, watched. */
  readonly store: MappingStore;
  /** Whether a write failed, and no heartbeat was written since. */
  isFailing(): boolean;
}

const WRITES: ReadonlySet<string | symbol> = new Set<keyof MappingStore>([
  ...(['insert', 'adopt', 'lease', 'leaseDue', 'update', 'release', 'renewLease', 'releaseMany'] as const),
  ...(['makeAllDue', 'mendTimes', 'addEvents', 'heartbeat', 'prune'] as const),
]);

/**
 * Says so once when writes begin to fail, and once when they succeed again.
 * @param database its name, for people
 */
export function watchWrites(store: MappingStore, database: string, log: Logger): WriteWatch {
  let isFailing = false;

  function onFailure(error: unknown): void {
    // Others are about one row, or about the schema, which is said when it is read.
    if (!isTransient(error) || isFailing) {
      return;
    }
    isFailing = true;
    const isFull = error instanceof BridgeError && error.code === 'store-full';
    log[isFull ? 'error' : 'warn']({ database, err: error }, 'the mapping database cannot be written');
  }

  function onHeartbeat(): void {
    if (isFailing) {
      isFailing = false;
      log.info({ database }, 'the mapping database is written again');
    }
  }

  return {
    isFailing: () => isFailing,
    store: new Proxy(store, {
      get(target, key, receiver) {
        const method: unknown = Reflect.get(target, key, receiver);
        if (typeof method !== 'function' || !WRITES.has(key)) {
          return method;
        }
        return async (...parameters: unknown[]) => {
          try {
            const answer: unknown = await method.apply(target, parameters);
            // The others may have found nothing to write.
            if (key === 'heartbeat') {
              onHeartbeat();
            }
            return answer;
          } catch (error) {
            onFailure(error);
            throw error;
          }
        };
      },
    }),
  };
}
