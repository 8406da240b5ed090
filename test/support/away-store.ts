/** A mapping store that can be away. */
import { StoreError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';

/** @param isAway asked at each call, which then fails */
export function unlessAway(store: MappingStore, isAway: () => boolean): MappingStore {
  return new Proxy(store, {
    get(target, key, receiver) {
      const method: unknown = Reflect.get(target, key, receiver);
      return typeof method !== 'function'
        ? method
        : async (...parameters: unknown[]) => {
            if (isAway()) {
              throw new StoreError('store-unavailable', 'the database is away', { isTransient: true });
            }
            return method.apply(target, parameters);
          };
    },
  });
}
