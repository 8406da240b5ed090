/**
 * Lookups of host names, of which a process can have very few under way: Node.js asks the system in threads, and lets
 * lookups have two of them. Where a name server does not answer for one name, each of its lookups has a thread for ten
 * seconds or more, and every other name waits for one, be it the queue's.
 */
import type { LookupOptions } from 'node:dns';

type Done = (error: unknown, ...found: unknown[]) => void;
type Lookup = (hostname: string, options: LookupOptions, done: Done) => void;

/** What Node.js keeps its `lookup` in, and looks for it each time that it connects. */
export interface Names {
  lookup: unknown;
}

/**
 * From now on, whoever asks for a name that is being looked up already waits for that, whatever in this process asks.
 * For the start of a program: the settings of all of a process are no module's.
 * @param names `node:dns`
 */
export function shareLookups(names: Names): void {
  const original = names.lookup as Lookup;
  const waiting = new Map<string, Done[]>();
  const share = (hostname: string, options: LookupOptions, done: Done): void => {
    const key = JSON.stringify([hostname, options]);
    const others = waiting.get(key);
    if (others !== undefined) {
      others.push(done);
      return;
    }
    const all = [done];
    waiting.set(key, all);
    try {
      original(hostname, options, (...answer) => {
        waiting.delete(key);
        for (const one of all) {
          one(...answer);
        }
      });
    } catch (error) {
      waiting.delete(key);
      throw error;
    }
  };
  const lookup = (hostname: string, given: LookupOptions | number | Done, done?: Done) =>
    typeof given === 'function'
      ? share(hostname, {}, given)
      : share(hostname, typeof given === 'number' ? { family: given } : given, done as Done);
  // By which `promisify` knows what it answers.
  for (const symbol of Object.getOwnPropertySymbols(original)) {
    Object.defineProperty(lookup, symbol, Object.getOwnPropertyDescriptor(original, symbol) ?? {});
  }
  names.lookup = lookup;
}
