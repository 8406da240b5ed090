/** Brings a log of unknown length to disk, since an upload has to say its length first. Never holds it in memory. */
import { createWriteStream } from 'node:fs';
import { lstat, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Logger } from 'pino';

export interface SpooledLog {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
}

export interface SpoolOptions {
  readonly tempDir: string;
  /** Bytes; a longer log is cut there, and its last line says so. */
  readonly maxSize: number;
  /** Where the whole log is, for that line. */
  readonly hint: string;
  /** What has not come after this long is left out, and the last line says so. */
  readonly maxMs?: number;
  /** Ends it. */
  readonly signal?: AbortSignal;
}

/** Lends a log as a file to `use`, for as long as that takes. */
export type Spool = (source: Readable, options: SpoolOptions, use: (log: SpooledLog) => Promise<void>) => Promise<void>;

const PREFIX = 'bbb-log-';
/** As `mkdtemp` makes them. */
const IS_FOLDER = new RegExp(`^${PREFIX}[A-Za-z0-9]{6}$`);
/** No log comes and is uploaded for so long: a folder that is older belongs to a process that was killed. */
const LEFT_MS = 24 * 3_600_000;

/** A log that takes longer than this to come is not waited for: whoever sends it drips, or does not end. */
const MAX_MS = 3_600_000;

/**
 * Streams a log into a temporary file, lends the file to `use` and removes it, whatever happens.
 * @throws what the stream, the disk or `use` throw
 */
export async function withSpooledLog<T>(
  source: Readable,
  { tempDir, maxSize, hint, maxMs = MAX_MS, signal }: SpoolOptions,
  use: (log: SpooledLog) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(path.join(tempDir, PREFIX));
  const end = () => source.destroy();
  signal?.addEventListener('abort', end, { once: true });
  try {
    const file = path.join(folder, 'live_backing.log');
    await pipeline(cutAt(source, { maxSize, maxMs, hint }), createWriteStream(file), {
      end: true,
      ...(signal ? { signal } : {}),
    });
    const { size } = await stat(file);
    return await use({ path: file, size });
  } finally {
    signal?.removeEventListener('abort', end);
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Removes what killed processes have left in the temporary folder, which other bridges may be using as well; never throws.
 * @param now by the machine's clock, as the times of files are
 */
export async function removeLeftLogs(tempDir: string, log: Logger, now: number): Promise<void> {
  let count = 0;
  try {
    for (const name of (await readdir(tempDir)).filter((each) => IS_FOLDER.test(each))) {
      count += (await removeIfLeft(path.join(tempDir, name), log, now)) ? 1 : 0;
    }
  } catch (error) {
    log.warn({ err: error }, 'logs that were left on disk are not looked for');
  }
  if (count > 0) {
    log.info({ count }, 'removed logs that killed processes had left on disk');
  }
}

async function removeIfLeft(folder: string, log: Logger, now: number): Promise<boolean> {
  try {
    // Of the name itself: no link is followed. And what is another user's is none of the bridge's.
    const found = await lstat(folder);
    if (!found.isDirectory() || found.uid !== process.getuid?.() || now - found.mtimeMs <= LEFT_MS) {
      return false;
    }
    await rm(folder, { recursive: true, force: true });
    return true;
  } catch (error) {
    log.warn({ folder, err: error }, 'a log that was left on disk is not removed');
    return false;
  }
}

/** Reads no further than it has to: a source may have no end. */
async function* cutAt(
  source: Readable,
  { maxSize, maxMs, hint }: { maxSize: number; maxMs: number; hint: string },
): AsyncGenerator<Buffer> {
  let cut: string | undefined;
  let written = 0;
  const timer = setTimeout(() => {
    cut = `it did not come within ${maxMs / 1000} s`;
    source.destroy();
  }, maxMs);
  try {
    for await (const given of source) {
      const chunk: Buffer = Buffer.isBuffer(given) ? given : Buffer.from(String(given));
      const room = maxSize - written;
      written += Math.min(room, chunk.length);
      yield chunk.subarray(0, room);
      if (chunk.length > room) {
        cut = `it is longer than ${maxSize} bytes`;
        break;
      }
    }
  } catch (error) {
    if (cut === undefined) {
      throw error;
    }
  } finally {
    clearTimeout(timer);
    source.destroy();
  }
  if (cut !== undefined) {
    yield Buffer.from(`\n[the bridge cut this log here: ${cut}. ${hint}]\n`);
  }
}
