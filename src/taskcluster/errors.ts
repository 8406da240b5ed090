/** What a failed call to the queue means. */
import { types } from 'node:util';
import { QueueError, type QueueErrorCode, toError } from '../errors.ts';

/** The queue's own name for what it does not have; a 404 without it is a proxy's, or an unknown route. */
const NOT_FOUND = 'ResourceNotFound';

function codeOf(statusCode: number, errorCode: string | undefined): QueueErrorCode {
  switch (statusCode) {
    case 401:
    case 403:
      return 'queue-forbidden';
    case 404:
      // Only the queue itself can say that a task is gone.
      return errorCode === NOT_FOUND ? 'queue-not-found' : 'queue-unavailable';
    case 409:
      return 'queue-conflict';
    default:
      return statusCode >= 400 && statusCode < 500 && statusCode !== 429 ? 'queue-invalid' : 'queue-unavailable';
  }
}

/** The answer's status and the queue's own code for it, as taskcluster-client puts them on its errors. */
function answerOf(error: unknown): { statusCode: number; errorCode: string | undefined } | undefined {
  if (typeof error !== 'object' || error === null || !('statusCode' in error)) {
    return undefined;
  }
  const { statusCode } = error;
  const errorCode = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  return typeof statusCode === 'number' ? { statusCode, errorCode } : undefined;
}

/**
 * Wraps what taskcluster-client threw. No answer, a time-out, 429 and 5xx are `queue-unavailable`; rights can be mended
 * by an operator and a conflict by reading again, so only `queue-invalid` is final.
 * @param what was tried, such as `claimTask`
 */
export function toQueueError(what: string, thrown: unknown, context: Record<string, string | number> = {}): QueueError {
  if (thrown instanceof QueueError) {
    return thrown;
  }
  const answer = answerOf(thrown);
  if (answer === undefined) {
    return new QueueError('queue-unavailable', `${what}: no answer from the queue`, {
      isTransient: true,
      context,
      cause: rootOf(toError(thrown)),
    });
  }
  const { statusCode, errorCode } = answer;
  const code = codeOf(statusCode, errorCode);
  // The client's message repeats the request; its first part says what matters, with any missing scopes.
  const [message = ''] = toError(thrown).message.split('\n---\n');
  return new QueueError(code, `${what}: ${message.trim().slice(0, 1000)}`, {
    isTransient: code === 'queue-unavailable',
    context: { ...context, statusCode },
  });
}

/** What the HTTP client's error wraps: its own holds the whole request, with its credentials. */
function rootOf(error: Error): Error {
  const inner = types.isNativeError(error.cause) ? error.cause : error;
  // A name with several addresses fails with one error for each, and no message of its own.
  const first: unknown = 'errors' in inner && Array.isArray(inner.errors) ? inner.errors[0] : undefined;
  return types.isNativeError(first) ? first : inner;
}
