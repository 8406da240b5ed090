/** Answers of Buildbot, and of what stands around it, that cannot be read: counted here, logged where the error is handled. */
import { z } from 'zod';
import { LegacyCiError } from '../errors.ts';
import { AnswerTooLong } from '../foreign-answer.ts';
import { excerpt } from '../log.ts';
import type { InputCounter } from '../ports.ts';
import type { BadRecord } from './records.ts';

/** A line of the log that tells of it stays short, however much of it has to be escaped. */
const MAX_MESSAGE = 500;

/**
 * The error of an answer that cannot be read. Without a cause: a parser's tells of every single thing that is wrong, and
 * brings its stack along.
 */
export function unreadable(inputs: InputCounter | undefined, message: string): LegacyCiError {
  inputs?.rejected('legacy-ci-answer');
  const text = excerpt(message.replace(/\s+/g, ' '), MAX_MESSAGE);
  return new LegacyCiError('legacy-ci-protocol', text, { isTransient: true });
}

/** Counts an error, if it says that an answer was too long, not JSON, or not what it ought to be. */
export function countIfUnreadable(inputs: InputCounter | undefined, error: unknown): void {
  if (error instanceof AnswerTooLong || error instanceof SyntaxError || error instanceof z.ZodError) {
    inputs?.rejected('legacy-ci-answer');
  }
}

/**
 * The errors of records that cannot be read, by whom each belongs to: of several of one, the first. They are counted as the
 * one answer that they were in.
 */
export function errorsOf(
  inputs: InputCounter | undefined,
  what: string,
  bad: readonly BadRecord[],
): ReadonlyMap<number | undefined, LegacyCiError> {
  const errors = new Map<number | undefined, LegacyCiError>();
  for (const { owner, reason } of bad) {
    if (!errors.has(owner)) {
      const message = `what Buildbot says of ${what} ${owner ?? 'unknown'} cannot be read: ${reason}`;
      errors.set(owner, unreadable(errors.size === 0 ? inputs : undefined, message));
    }
  }
  return errors;
}
