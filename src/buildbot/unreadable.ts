/** Answers of Buildbot, and of what stands around it, that cannot be read: counted here, logged where the error is handled. */
import { z } from 'zod';
import { LegacyCiError } from '../errors.ts';
import { AnswerTooLong } from '../foreign-answer.ts';
import type { InputCounter } from '../ports.ts';
import type { BadRecord } from './records.ts';

const MAX_MESSAGE = 1000;

/** The error of an answer that cannot be read. */
export function unreadable(inputs: InputCounter | undefined, message: string, cause?: unknown): LegacyCiError {
  inputs?.rejected('legacy-ci-answer');
  return new LegacyCiError('legacy-ci-protocol', message.slice(0, MAX_MESSAGE), { cause, isTransient: true });
}

/** Counts an error, if it says that an answer was too long, not JSON, or not what it ought to be. */
export function countIfUnreadable(inputs: InputCounter | undefined, error: unknown): void {
  if (error instanceof AnswerTooLong || error instanceof SyntaxError || error instanceof z.ZodError) {
    inputs?.rejected('legacy-ci-answer');
  }
}

/** The errors of records that cannot be read, by whom each belongs to: of several of one, the first. Each is counted. */
export function errorsOf(
  inputs: InputCounter | undefined,
  what: string,
  bad: readonly BadRecord[],
): ReadonlyMap<number | undefined, LegacyCiError> {
  const errors = new Map<number | undefined, LegacyCiError>();
  for (const { owner, reason } of bad) {
    const error = unreadable(inputs, `what Buildbot says of ${what} ${owner ?? 'unknown'} cannot be read: ${reason}`);
    if (!errors.has(owner)) {
      errors.set(owner, error);
    }
  }
  return errors;
}
