/** RabbitMQ's refusals in words that say what to do. The texts matched here are RabbitMQ's own. */
import { PulseError, toError } from '../errors.ts';

/** Why there is no connection. */
export function toConnectionError(thrown: unknown): PulseError {
  const cause = toError(thrown);
  if (/ACCESS[_-]REFUSED/.test(cause.message)) {
    return new PulseError('pulse-forbidden', 'Pulse refuses the user or the password', { cause });
  }
  return new PulseError('pulse-unavailable', 'Pulse cannot be reached', { cause, isTransient: true });
}

/** Why a queue is not being consumed. */
export function toConsumerError(queueName: string, thrown: unknown): PulseError {
  const cause = toError(thrown);
  const { message } = cause;
  if (/ACCESS[_-]REFUSED/.test(message)) {
    return new PulseError(
      'pulse-forbidden',
      `the Pulse user may not use ${queueName} or read the exchanges: check its rights and pulse.namespace`,
      { cause },
    );
  }
  // A queue can be "not found" as well, deleted between two steps of the set-up; that mends itself.
  if (/NOT_FOUND - no exchange/.test(message)) {
    return new PulseError(
      'pulse-topology',
      'an exchange is not there: is this the right Pulse, and has Taskcluster run on it?',
      { cause },
    );
  }
  // Not every failed precondition: a message that was under way for too long is one too.
  if (/PRECONDITION_FAILED - (inequivalent arg|invalid arg)/.test(message)) {
    return new PulseError(
      'pulse-topology',
      `${queueName} exists with other properties: delete it, or use another namespace`,
      { cause },
    );
  }
  return new PulseError('pulse-unavailable', `${queueName} is not being consumed`, { cause, isTransient: true });
}
