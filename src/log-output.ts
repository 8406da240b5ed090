/**
 * stdout for the log, which must never be what a bridge waits for: its disk may be full, its reader gone or asleep. What
 * cannot be written is kept for a while, and then lost; how much, the log says when it is taken again.
 */
import { writeSync } from 'node:fs';
import type { DestinationStream } from 'pino';
import { codeOf } from './errors.ts';

/** Of lines that a reader has not taken yet, in bytes. */
const MAX_WAITING = 1_000_000;
const RETRY_MS = 20;
/** At the end a reader may take what is left, but not for long. */
const LAST_MS = 1000;
const NEWLINE = 10;

export interface LogOutput extends DestinationStream {
  /** Waits, without letting anything else go on, until all is written or cannot be: for the end of the process. */
  finish(): void;
}

export interface LogOutputOptions {
  /** Writes what it can without waiting, and says how many bytes that was; stdout if absent. */
  readonly write?: (bytes: Buffer) => number;
  /** Told how many were lost so far, when lines are taken again; what it writes comes behind them. */
  readonly onLost: (lines: number) => void;
  readonly lastMs?: number;
}

/** Lines go out whole and in their order, or not at all. */
export function createLogOutput({ write = writerOfStdout(), onLost, lastMs = LAST_MS }: LogOutputOptions): LogOutput {
  const waiting: Buffer[] = [];
  let waitingBytes = 0;
  let lost = 0;
  let said = 0;
  let isWriting = false;
  /** What was written last is no whole line. */
  let isTorn = false;
  let retry: NodeJS.Timeout | undefined;

  /** @returns whether something is left, for which there is no room at the moment */
  function writeOut(): boolean {
    isWriting = true;
    try {
      for (let bytes = next(); bytes !== undefined; bytes = next()) {
        const written = write(bytes);
        waitingBytes -= written;
        isTorn = bytes[written - 1] !== NEWLINE;
        waiting.splice(0, 1, ...(written < bytes.length ? [bytes.subarray(written)] : []));
      }
      return false;
    } catch (error) {
      if (codeOf(error) === 'EAGAIN') {
        return true;
      }
      // Full, or gone: what comes later may go out again.
      lost += waiting.splice(0).length;
      waitingBytes = 0;
      return false;
    } finally {
      isWriting = false;
    }
  }

  /** What is to be written next: last of all, how much was lost. */
  function next(): Buffer | undefined {
    if (waiting.length === 0 && lost > said) {
      said = lost;
      onLost(lost);
    }
    return waiting[0];
  }

  function writeAndRetry(): void {
    retry = writeOut() ? setTimeout(writeAndRetry, RETRY_MS).unref() : undefined;
  }

  return {
    write(line) {
      const bytes = Buffer.from(isTorn && waiting.length === 0 ? `\n${line}` : line);
      if (waitingBytes + bytes.length > MAX_WAITING) {
        lost += 1;
        return;
      }
      waiting.push(bytes);
      waitingBytes += bytes.length;
      if (!isWriting && retry === undefined) {
        writeAndRetry();
      }
    },
    finish() {
      clearTimeout(retry);
      const end = performance.now() + lastMs;
      const sleeper = new Int32Array(new SharedArrayBuffer(4));
      while (writeOut() && performance.now() < end) {
        Atomics.wait(sleeper, 0, 0, RETRY_MS);
      }
    },
  };
}

/** Node.js writes to files at once; and when it opens stdout it sees to it that a pipe, or a socket, is never waited for. */
function writerOfStdout(): (bytes: Buffer) => number {
  const { fd } = process.stdout;
  return (bytes) => writeSync(fd, bytes);
}
