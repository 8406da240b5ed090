/**
 * Errors of the bridge. Each is made once, where a foreign system is talked to, keeps its cause, and is logged once,
 * where it is handled.
 */

export interface BridgeErrorOptions {
  readonly cause?: unknown;
  /** Whether trying again later can help. */
  readonly isTransient?: boolean;
  /** Facts for the log: ids, status codes. Never secrets. */
  readonly context?: Readonly<Record<string, string | number | boolean | null>>;
}

export class BridgeError<Code extends string = string> extends Error {
  /** Stable; operators may alert on it. */
  readonly code: Code;
  readonly isTransient: boolean;
  readonly context: Readonly<Record<string, string | number | boolean | null>>;

  constructor(code: Code, message: string, options: BridgeErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.isTransient = options.isTransient ?? false;
    this.context = options.context ?? {};
  }
}

/** The configuration is wrong. The message names every key and how to mend it. */
export class ConfigError extends BridgeError<'config'> {
  constructor(message: string, options: BridgeErrorOptions = {}) {
    super('config', message, options);
  }
}

/**
 * The queue (or auth) refused, in its own words, or could not be asked.
 * - `queue-conflict` (409): the run is not in the state the call needs: read it again.
 * - `queue-not-found` (404), `queue-forbidden` (401, 403: scopes or credentials), `queue-invalid` (other 4xx, or what the
 *   artifacts' bucket takes in no case)
 * - `queue-unavailable`: no answer, a time-out, 5xx, or a 4xx of what stands in front of the queue; the call may or may not
 *   have taken effect.
 */
export type QueueErrorCode =
  | 'queue-conflict'
  | 'queue-not-found'
  | 'queue-forbidden'
  | 'queue-invalid'
  | 'queue-unavailable';
export class QueueError extends BridgeError<QueueErrorCode> {}

/**
 * The legacy CI refused or could not be asked.
 * - `legacy-ci-rejected`: it understood and said no; asking again will not help.
 * - `legacy-ci-forbidden`: credentials or rights.
 * - `legacy-ci-unavailable`: no answer, a time-out or a server error; the call may or may not have taken effect.
 * - `legacy-ci-protocol`: an answer that this bridge cannot read.
 */
export type LegacyCiErrorCode =
  | 'legacy-ci-rejected'
  | 'legacy-ci-forbidden'
  | 'legacy-ci-unavailable'
  | 'legacy-ci-protocol';
export class LegacyCiError extends BridgeError<LegacyCiErrorCode> {}

/**
 * The mapping database could not be read or written.
 * - `store-unavailable`: no answer, or a failure; transient
 * - `store-full`: there is no room to write; transient, once somebody has made room
 * - `store-schema`: its tables are not this version's
 * - `store-row`: this one row is not
 */
export type StoreErrorCode = 'store-unavailable' | 'store-full' | 'store-schema' | 'store-row';
export class StoreError extends BridgeError<StoreErrorCode> {}

/** The broker. Connection losses are not errors: the subscription recovers by itself. */
export class PulseError extends BridgeError<'pulse-unavailable' | 'pulse-forbidden' | 'pulse-topology'> {}

/** Any thrown value as an Error, so that a cause chain is never lost. */
export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** A one-line description of an error and its causes, for `lastError` and task logs. */
export function describeError(thrown: unknown): string {
  const parts: string[] = [];
  let current: unknown = thrown;
  while (current !== undefined && parts.length < 5) {
    const error = toError(current);
    parts.push(error.message);
    current = error.cause;
  }
  return parts.join(': ').slice(0, 1000);
}

/** How loud a failure is: what mends itself is a warning; what a person has to mend, or a bug, is an error. */
export function levelOf(thrown: unknown): 'warn' | 'error' {
  return isTransient(thrown) ? 'warn' : 'error';
}

/** Whether trying again later can help. Errors that are not the bridge's own are bugs: retried, but slowly. */
export function isTransient(thrown: unknown): boolean {
  return thrown instanceof BridgeError ? thrown.isTransient : false;
}

/** Whether rights or credentials are wrong: once an operator has mended them, trying again helps. */
export function isForbidden(thrown: unknown): boolean {
  return thrown instanceof BridgeError && (thrown.code === 'queue-forbidden' || thrown.code === 'legacy-ci-forbidden');
}

/** The code that Node.js, a driver or a library gave an error, such as `ECONNREFUSED`; empty where it has none. */
export function codeOf(thrown: unknown): string {
  return typeof thrown === 'object' && thrown !== null && 'code' in thrown ? String(thrown.code) : '';
}
