/** What the three engines' errors mean. */
import { ZodError } from 'zod';
import { BridgeError, codeOf, StoreError } from '../errors.ts';
import { isNotThere, isUniqueViolation, messageOf, runBounded, wantsAgain, withoutStatement } from '../sql.ts';

const FULL = new Set(['SQLITE_FULL', 'ER_DISK_FULL', 'ER_RECORD_FILE_FULL', '53100']);
const EXISTS = new Set(['ER_TABLE_EXISTS_ERROR', '42P07', '42710']);
/** No statement of the store takes nearly as long, unless nothing answers any more. */
export const ANSWER_MS = 30_000;

/** Whether two instances made the same table at the same time, or the engine wants a statement again. */
export function isRace(error: unknown): boolean {
  const code = codeOf(error);
  return EXISTS.has(code) || wantsAgain(error) || isUniqueViolation(error) || /already exists/.test(messageOf(error));
}

/** The same store, whose methods repeat what the engine asked to repeat, and throw nothing but StoreError. */
export function withStoreErrors<T extends object>(store: T, { answerMs = ANSWER_MS } = {}): T {
  return new Proxy(store, {
    get(target, key, receiver) {
      const method: unknown = Reflect.get(target, key, receiver);
      if (typeof method !== 'function') {
        return method;
      }
      const late = () =>
        new StoreError('store-unavailable', `the database did not answer at ${String(key)} for ${answerMs / 1000} s`, {
          isTransient: true,
        });
      return async (...parameters: unknown[]) => {
        try {
          return await runBounded(() => method.apply(target, parameters), { answerMs, late });
        } catch (error) {
          throw toStoreError(String(key), error);
        }
      };
    },
  });
}

/** What happened at `method`; the cause says it in the engine's words. */
export function toStoreError(method: string, error: unknown): BridgeError {
  if (error instanceof BridgeError) {
    return error;
  }
  const cause = withoutStatement(error);
  const code = codeOf(error);
  const context = code === '' ? {} : { code };
  if (error instanceof ZodError) {
    const message = `a row cannot be read, at ${method}: correct it, or delete it (\`bbb tasks\` lists it)`;
    return new StoreError('store-row', message, { cause, context });
  }
  if (isNotThere(cause)) {
    const message = `the database's schema is not this version's, at ${method}: run \`bbb migrate\` once`;
    return new StoreError('store-schema', message, { cause, context });
  }
  if (FULL.has(code)) {
    const message = `the database's disk is full, at ${method}: make room; the bridge goes on by itself then`;
    return new StoreError('store-full', message, { cause, context, isTransient: true });
  }
  return new StoreError('store-unavailable', `the database failed at ${method}`, { cause, context, isTransient: true });
}
