/** Brings a log of unknown length to disk, since an upload has to say its length first. Never holds it in memory. */
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

export interface SpooledLog {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly isCut: boolean;
}

export interface SpoolOptions {
  readonly tempDir: string;
  /** Bytes; a longer log is cut there, and its last line says so. */
  readonly maxSize: number;
  /** Where the whole log is, for that line. */
  readonly hint: string;
}

/** Lends a log as a file to `use`, for as long as that takes. */
export type Spool = (source: Readable, options: SpoolOptions, use: (log: SpooledLog) => Promise<void>) => Promise<void>;

/**
 * Streams a log into a temporary file, lends the file to `use` and removes it, whatever happens.
 * @throws what the stream, the disk or `use` throw
 */
export async function withSpooledLog<T>(
  source: Readable,
  { tempDir, maxSize, hint }: SpoolOptions,
  use: (log: SpooledLog) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(path.join(tempDir, 'bbb-log-'));
  try {
    const file = path.join(folder, 'live_backing.log');
    const cut = cutAt(maxSize, hint);
    await pipeline(source, cut.transform, createWriteStream(file), { end: true });
    const { size } = await stat(file);
    return await use({ path: file, size, isCut: cut.isCut() });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function cutAt(maxSize: number, hint: string): { transform: Transform; isCut(): boolean } {
  let written = 0;
  let isCut = false;
  const transform = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      const room = maxSize - written;
      if (chunk.length > room) {
        isCut = true;
      }
      // What is over the limit is read and thrown away, so that the source ends as it would have.
      const part = room > 0 ? chunk.subarray(0, room) : undefined;
      written += part?.length ?? 0;
      done(null, part);
    },
    flush(done) {
      done(null, isCut ? `\n[the bridge cut this log here: it is longer than ${maxSize} bytes. ${hint}]\n` : undefined);
    },
  });
  return { transform, isCut: () => isCut };
}
