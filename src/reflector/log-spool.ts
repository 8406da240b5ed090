/** Brings a log of unknown length to disk, since an upload has to say its length first. Never holds it in memory. */
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

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
}

/** Lends a log as a file to `use`, for as long as that takes. */
export type Spool = (source: Readable, options: SpoolOptions, use: (log: SpooledLog) => Promise<void>) => Promise<void>;

/** A log that takes longer than this to come is not waited for: whoever sends it drips, or does not end. */
const MAX_MS = 3_600_000;

/**
 * Streams a log into a temporary file, lends the file to `use` and removes it, whatever happens.
 * @throws what the stream, the disk or `use` throw
 */
export async function withSpooledLog<T>(
  source: Readable,
  { tempDir, maxSize, hint, maxMs = MAX_MS }: SpoolOptions,
  use: (log: SpooledLog) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(path.join(tempDir, 'bbb-log-'));
  try {
    const file = path.join(folder, 'live_backing.log');
    await pipeline(cutAt(source, { maxSize, maxMs, hint }), createWriteStream(file), { end: true });
    const { size } = await stat(file);
    return await use({ path: file, size });
  } finally {
    await rm(folder, { recursive: true, force: true });
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
