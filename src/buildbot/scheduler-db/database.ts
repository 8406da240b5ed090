/** The scheduler database: statements that end in bounded time, and whose errors say what they mean. */
import type { Knex } from 'knex';
import { BridgeError, codeOf, LegacyCiError } from '../../errors.ts';
import type { InputCounter } from '../../ports.ts';
import { runBounded, withoutStatement } from '../../sql.ts';
import { countIfUnreadable } from '../unreadable.ts';

/** Nothing here takes nearly as long, unless the database hangs. */
const ANSWER_MS = 20_000;
const DENIED = new Set([
  'ER_ACCESS_DENIED_ERROR',
  'ER_DBACCESS_DENIED_ERROR',
  'ER_TABLEACCESS_DENIED_ERROR',
  'ER_COLUMNACCESS_DENIED_ERROR',
  'ER_SPECIFIC_ACCESS_DENIED_ERROR',
]);
const READ_ONLY = new Set(['ER_OPTION_PREVENTS_STATEMENT', 'ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION']);
/** These are refused for what was asked, not for how the database is at the moment. */
const WRONG = new Set(['ER_DATA_TOO_LONG', 'ER_TRUNCATED_WRONG_VALUE_FOR_FIELD', 'ER_CANT_AGGREGATE_2COLLATIONS']);

export interface SchedulerDb {
  /**
   * Runs statements; repeated when the engine says again (a deadlock), so `work` has to bear that.
   * @throws LegacyCiError
   */
  run<T>(what: string, work: (db: Knex) => Promise<T>): Promise<T>;
  /** Counts rows that cannot be read. */
  readonly inputs: InputCounter | undefined;
  close(): Promise<void>;
}

/** @param options.answerMs how long each try may take, milliseconds; the pool is closed with `close` */
export function createSchedulerDb(
  db: Knex,
  { answerMs = ANSWER_MS, inputs }: { readonly answerMs?: number; readonly inputs?: InputCounter | undefined } = {},
): SchedulerDb {
  return {
    async run(what, work) {
      const late = () => unavailable(`the scheduler database did not answer for ${answerMs / 1000} s, ${what}`);
      try {
        return await runBounded(() => work(db), { answerMs, late });
      } catch (error) {
        countIfUnreadable(inputs, error);
        throw toLegacyCiError(what, error);
      }
    },
    inputs,
    close: () => db.destroy(),
  };
}

/** The error of something that is so at the moment: trying again later can help. */
export function unavailable(message: string, cause?: unknown): LegacyCiError {
  return new LegacyCiError('legacy-ci-unavailable', message, { cause, isTransient: true });
}

function toLegacyCiError(what: string, thrown: unknown): BridgeError {
  if (thrown instanceof BridgeError) {
    return thrown;
  }
  const cause = withoutStatement(thrown);
  const code = codeOf(thrown);
  const context = code === '' ? {} : { code };
  if (DENIED.has(code)) {
    const message = `the scheduler database refuses ${what}: the user of legacyCi.schedulerDb.url lacks rights`;
    return new LegacyCiError('legacy-ci-forbidden', message, { cause, context });
  }
  if (READ_ONLY.has(code)) {
    const message = `the scheduler database is read-only, ${what}`;
    return new LegacyCiError('legacy-ci-unavailable', message, { cause, context, isTransient: true });
  }
  if (WRONG.has(code)) {
    return new LegacyCiError('legacy-ci-rejected', `the scheduler database rejects ${what}`, { cause, context });
  }
  return new LegacyCiError('legacy-ci-unavailable', `the scheduler database failed, ${what}`, {
    cause,
    context,
    isTransient: true,
  });
}

/** Numbers of an `IN` list that MySQL still plans well. */
export const BATCH = 500;

/** Runs `read` on parts of a long list, one after the other, and puts what it finds together. */
export async function inBatches<T, R>(
  values: readonly T[],
  read: (batch: T[]) => Promise<readonly R[]>,
  size = BATCH,
): Promise<R[]> {
  const found: R[] = [];
  for (let start = 0; start < values.length; start += size) {
    found.push(...(await read(values.slice(start, start + size))));
  }
  return found;
}
