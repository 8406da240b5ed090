/** What SQL engines' errors mean, whichever database it is, and statements that end in bounded time. */
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf, toError } from './errors.ts';

const UNIQUE = new Set(['SQLITE_CONSTRAINT_UNIQUE', 'SQLITE_CONSTRAINT_PRIMARYKEY', 'ER_DUP_ENTRY', '23505']);
/** What the engines call a table or a column that is not there. */
const NOT_THERE = new Set(['ER_NO_SUCH_TABLE', 'ER_BAD_FIELD_ERROR', '42P01', '42703']);
/** The engine undid the statement for another's sake and says: again. */
const AGAIN = new Set([
  'ER_LOCK_DEADLOCK',
  'ER_LOCK_WAIT_TIMEOUT',
  '40001',
  '40P01',
  '55P03',
  'SQLITE_BUSY',
  'SQLITE_BUSY_SNAPSHOT',
]);
const MAX_TRIES = 5;

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}

/** Whether a unique index refused a row, on any of the engines. */
export function isUniqueViolation(error: unknown): boolean {
  return UNIQUE.has(codeOf(error)) || /UNIQUE constraint failed/.test(messageOf(error));
}

/** Whether a table or a column that a statement names is not there, on any of the engines. */
export function isNotThere(error: unknown): boolean {
  return NOT_THERE.has(codeOf(error)) || /no such (table|column)/.test(messageOf(error));
}

/** Whether the engine undid a statement or a transaction for another's sake: it may be tried again as it was. */
export function wantsAgain(error: unknown): boolean {
  return AGAIN.has(codeOf(error));
}

/**
 * Runs statements, again where the engine undid them for another's sake; a database that has hung, or a network that
 * swallows everything, must not hold a pass for ever.
 * @param bounds.answerMs how long each try may take
 * @param bounds.late the error where one takes longer; what it started may still take effect
 */
export async function runBounded<T>(
  work: () => Promise<T>,
  { answerMs, late }: { readonly answerMs: number; readonly late: () => Error },
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await within(answerMs, late, work());
    } catch (error) {
      if (!wantsAgain(error) || attempt >= MAX_TRIES) {
        throw error;
      }
      await delay(Math.random() * 20 * 2 ** attempt);
    }
  }
}

async function within<T>(ms: number, late: () => Error, work: Promise<T>): Promise<T> {
  const done = new AbortController();
  const silence = async (): Promise<never> => {
    await delay(ms, undefined, { signal: done.signal });
    throw late();
  };
  try {
    return await Promise.race([work, silence()]);
  } finally {
    done.abort();
  }
}

/** knex puts whole statements, with their values, into messages, and drivers into fields: only the reason is kept. */
export function withoutStatement(thrown: unknown): Error {
  const error = toError(thrown);
  const code = codeOf(error);
  // A host with two addresses fails with one error for each, and no message.
  const first = error instanceof AggregateError ? toError(error.errors[0]).message : '';
  const reason = error.message.split(' - ').at(-1)?.split('\n')[0]?.slice(0, 300) || first || code || 'no reason given';
  const cause = new Error(reason);
  cause.name = error.name;
  const frames = (error.stack ?? '').split('\n').filter((line) => line.startsWith('    at '));
  cause.stack = [`${error.name}: ${reason}`, ...frames].join('\n');
  return code === '' ? cause : Object.assign(cause, { code });
}
