/** What a failed call to the queue means. */
import { QueueError, type QueueErrorCode, toError } from '../errors.ts';

function codeOf(statusCode: number | undefined): QueueErrorCode {
  switch (statusCode) {
    case 401:
    case 403:
      return 'queue-forbidden';
    case 404:
      return 'queue-not-found';
    case 409:
      return 'queue-conflict';
    default:
      return statusCode !== undefined && statusCode >= 400 && statusCode < 500 && statusCode !== 429
        ? 'queue-invalid'
        : 'queue-unavailable';
  }
}

function statusCodeOf(error: unknown): number | undefined {
  if (typeof error === 'object' && error !== null && 'statusCode' in error) {
    const { statusCode } = error;
    return typeof statusCode === 'number' ? statusCode : undefined;
  }
  return undefined;
}

/**
 * Wraps what taskcluster-client threw. No answer, a time-out and 5xx are `queue-unavailable`; rights can be mended by
 * an operator and a conflict by reading again, so only `queue-invalid` is final.
 * @param what was tried, such as `claimTask`
 */
export function toQueueError(what: string, thrown: unknown, context: Record<string, string | number> = {}): QueueError {
  if (thrown instanceof QueueError) {
    return thrown;
  }
  const cause = toError(thrown);
  const statusCode = statusCodeOf(thrown);
  const code = codeOf(statusCode);
  // The client's message repeats the request; its first part says what matters, with any missing scopes.
  const [message = ''] = cause.message.split('\n---\n');
  return new QueueError(code, `${what}: ${message.trim().slice(0, 1000)}`, {
    isTransient: code === 'queue-unavailable',
    context: { ...context, ...(statusCode === undefined ? {} : { statusCode }) },
  });
}
