/** What a failed call to the queue means. */
import { QueueError, type QueueErrorCode, toError } from '../errors.ts';
import { Refusal } from './services.ts';

/** The queue's own name for what it does not have. */
const NOT_FOUND = 'ResourceNotFound';
/** Too slow, too early, too many: of the moment, and said by what stands in front of the queue. */
const LATER = new Set([408, 425, 429]);

/** @param errorCode the queue's own name for it: what has none, such as a page of maintenance, is no word of the queue's */
function errorCodeOfStatus(statusCode: number, errorCode: string | undefined): QueueErrorCode {
  if (statusCode === 401 || statusCode === 403) {
    return 'queue-forbidden';
  }
  if (errorCode === undefined || statusCode < 400 || statusCode > 499 || LATER.has(statusCode)) {
    return 'queue-unavailable';
  }
  switch (statusCode) {
    case 404:
      // Of a route that it does not know it has another.
      return errorCode === NOT_FOUND ? 'queue-not-found' : 'queue-unavailable';
    case 409:
      return 'queue-conflict';
    default:
      return 'queue-invalid';
  }
}

/**
 * Wraps what a call of the services threw. No answer, a time-out, 408, 425, 429, 5xx and what only stands in front of the
 * queue says are `queue-unavailable`; rights can be mended by an operator and a conflict by reading again, so only
 * `queue-invalid` is final.
 * @param what was tried, such as `claimTask`
 */
export function toQueueError(what: string, thrown: unknown, context: Record<string, string | number> = {}): QueueError {
  if (thrown instanceof QueueError) {
    return thrown;
  }
  if (!(thrown instanceof Refusal)) {
    return new QueueError('queue-unavailable', `${what}: no answer from the queue`, {
      isTransient: true,
      context,
      cause: toError(thrown),
    });
  }
  const { statusCode } = thrown;
  const code = errorCodeOfStatus(statusCode, thrown.code);
  // The queue's message repeats the request; its first part says what matters, with any missing scopes.
  const [message = ''] = thrown.message.split('\n---\n');
  return new QueueError(code, `${what}: ${message.trim().slice(0, 1000)}`, {
    isTransient: code === 'queue-unavailable',
    context: { ...context, statusCode },
  });
}
