/** The log: JSON lines on stdout, fixed messages, everything that varies as fields. */
import { type DestinationStream, type Logger, type LoggerOptions, pino } from 'pino';
import { BridgeError, toError } from './errors.ts';
import { createLogOutput } from './log-output.ts';
import { plain } from './plain.ts';

/** Keys whose values never reach the log, wherever they stand. */
const REDACTED = [
  'accessToken',
  'certificate',
  'password',
  'authorization',
  'Authorization',
  'cookie',
  'credentials',
  'putUrl',
];
/** What a terminal would take for something else, and JSON leaves as it is; the end of the line is its end. */
const LEFT_BY_JSON = /[\u007f-\u009f\p{Cf}\u2028\u2029]/gu;
const MAX_TEXT = 2000;
const MAX_CAUSES = 5;

export interface LogOptions {
  readonly level: string;
  /** On every line. */
  readonly base?: Record<string, string>;
  /** stdout if absent. */
  readonly destination?: DestinationStream;
}

export function createLog({ level, base = {}, destination }: LogOptions): Logger {
  const options: LoggerOptions = {
    level,
    base,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: serializeError },
    hooks: { streamWrite: (line) => plain(line, LEFT_BY_JSON) },
    redact: { paths: REDACTED.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]), censor: '[secret]' },
  };
  return destination ? pino(options, destination) : logToStdout(options);
}

function logToStdout(options: LoggerOptions): Logger {
  const output = createLogOutput({
    onLost: (lines) => log.error({ lines }, 'lines of the log were lost: they could not be written'),
  });
  process.on('exit', output.finish);
  const log = pino(options, output);
  return log;
}

/** An error with its code, its facts and its causes; texts are clipped, and credentials in URLs hidden. */
export function serializeError(thrown: unknown, depth = 0): Record<string, unknown> {
  const error = toError(thrown);
  const cause = causeOf(error);
  return {
    type: error.name,
    message: clean(error.message),
    ...(error instanceof BridgeError ? { ...error.context, code: error.code } : codeOf(error)),
    // The stack of an expected error says nothing that its code does not; a bug has no code.
    ...(isExpected(error, depth) ? {} : { stack: clean(error.stack ?? '') }),
    ...(cause !== undefined && depth < MAX_CAUSES ? { cause: serializeError(cause, depth + 1) } : {}),
  };
}

function isExpected(error: Error, depth: number): boolean {
  return error instanceof BridgeError || (depth > 0 && codeOf(error).code !== undefined);
}

/** The cause, or the first of several errors: a host with two addresses fails with one for each and no message. */
function causeOf(error: Error): unknown {
  return error.cause ?? ('errors' in error && Array.isArray(error.errors) ? error.errors[0] : undefined);
}

function codeOf(error: Error): { code?: string } {
  return 'code' in error && typeof error.code === 'string' ? { code: error.code } : {};
}

/** A text as it may be logged: clipped, without the credentials that a URL in it may carry. */
export function clean(text: string): string {
  // Up to the last @: a password may hold one, though it should be escaped.
  const hidden = text.slice(0, MAX_TEXT * 2).replace(/([a-z][a-z0-9+.-]{0,20}:\/\/)[^\s/]{1,500}@/gi, '$1[secret]@');
  return hidden.length > MAX_TEXT ? `${hidden.slice(0, MAX_TEXT)}…` : hidden;
}

/** The beginning of a message for a log line: at most `length` characters, none of which is anything but text. */
export function excerpt(body: Buffer | string, length = 200): string {
  const text = typeof body === 'string' ? body.slice(0, length) : body.subarray(0, length * 4).toString('utf8');
  let result = '';
  for (const char of text) {
    const shown = plain(char);
    if (result.length + shown.length > length) {
      break;
    }
    result += shown;
  }
  return result;
}
