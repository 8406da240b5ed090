/** What the three engines' errors mean. */
import { setTimeout as delay } from 'node:timers/promises';
import { BridgeError, StoreError } from '../errors.ts';
import type { MappingStore } from '../ports.ts';

const UNIQUE = new Set(['SQLITE_CONSTRAINT_UNIQUE', 'SQLITE_CONSTRAINT_PRIMARYKEY', 'ER_DUP_ENTRY', '23505']);
/** The engine undid the statement for another's sake and says: again. */
const AGAIN = new Set([
  'ER_LOCK_DEADLOCK',
  'ER_LOCK_WAIT_TIMEOUT',
  '40001',
  '40P01',
  'SQLITE_BUSY',
  'SQLITE_BUSY_SNAPSHOT',
]);
const SCHEMA = new Set(['ER_NO_SUCH_TABLE', 'ER_BAD_FIELD_ERROR', '42P01', '42703']);
const MAX_TRIES = 5;

function codeOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}

/** Whether a unique index refused a row, on any of the engines. */
export function isUniqueViolation(error: unknown): boolean {
  return UNIQUE.has(codeOf(error)) || /UNIQUE constraint failed/.test(messageOf(error));
}

/** The same store, whose methods repeat what the engine asked to repeat, and throw nothing but StoreError. */
export function withStoreErrors(store: MappingStore): MappingStore {
  return new Proxy(store, {
    get(target, key, receiver) {
      const method: unknown = Reflect.get(target, key, receiver);
      if (typeof method !== 'function') {
        return method;
      }
      return async (...parameters: unknown[]) => {
        for (let attempt = 1; ; attempt += 1) {
          try {
            return await method.apply(target, parameters);
          } catch (error) {
            if (!AGAIN.has(codeOf(error)) || attempt >= MAX_TRIES) {
              throw toStoreError(String(key), error);
            }
            await delay(Math.random() * 20 * 2 ** attempt);
          }
        }
      };
    },
  });
}

/** Drivers put whole statements, with their values, into their messages: only the code and the first line are kept. */
export function toStoreError(method: string, error: unknown): BridgeError {
  if (error instanceof BridgeError) {
    return error;
  }
  const code = codeOf(error);
  const isSchema = SCHEMA.has(code) || /no such (table|column)/.test(messageOf(error));
  const reason = messageOf(error).split(' - ').at(-1)?.split('\n')[0]?.slice(0, 300) ?? '';
  return new StoreError(
    isSchema ? 'store-schema' : 'store-unavailable',
    isSchema
      ? `the database's schema is not this version's (${reason}): run \`bbb migrate\` once`
      : `the database failed at ${method}: ${reason || code || 'no reason given'}`,
    { isTransient: !isSchema, context: code === '' ? {} : { code } },
  );
}
