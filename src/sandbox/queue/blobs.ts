/** The bucket behind s3 artifacts: signed URLs, and contents in a temporary directory. */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** An uploaded content. */
export interface Blob {
  readonly path: string;
  readonly size: number;
  readonly contentType: string;
  /** As it was uploaded: the bucket does not decompress. */
  readonly contentEncoding: string | undefined;
}

/** The contents of s3 artifacts. `open` it first, `close` removes everything. */
export interface BlobStore {
  open(): Promise<void>;
  close(): Promise<void>;
  get(key: string): Blob | undefined;
  /** Stores a body; the key's former content stays until it is complete. Rejects when the body breaks off. */
  put(key: string, body: Readable, headers: Pick<Blob, 'contentType' | 'contentEncoding'>, size: number): Promise<void>;
  /** The query of a URL that is good until `expires` (UTC milliseconds). */
  sign(method: 'GET' | 'PUT', key: string, contentType: string, expires: number): string;
  isSigned(method: 'GET' | 'PUT', key: string, contentType: string, query: Readonly<Record<string, string>>): boolean;
}

/** @param key `<bucket>/<taskId>/<runId>/<name>`, in all methods */
export function createBlobStore(): BlobStore {
  const secret = randomBytes(32);
  const blobs = new Map<string, Blob>();
  let directory: string | undefined;
  let uploads = 0;

  function signature(method: string, key: string, contentType: string, expires: string): string {
    return createHmac('sha256', secret).update([method, key, contentType, expires].join('\n')).digest('hex');
  }

  return {
    async open() {
      directory ??= await mkdtemp(join(tmpdir(), 'queue-artifacts-'));
    },
    async close() {
      blobs.clear();
      if (directory !== undefined) {
        await rm(directory, { recursive: true, force: true });
        directory = undefined;
      }
    },
    get: (key) => blobs.get(key),
    async put(key, body, headers, size) {
      if (directory === undefined) {
        throw new Error('the store is not open');
      }
      uploads += 1;
      const partial = join(directory, `upload-${uploads}`);
      await pipeline(body, createWriteStream(partial));
      const path = join(directory, createHash('sha256').update(key).digest('hex'));
      await rename(partial, path);
      blobs.set(key, { path, size, ...headers });
    },
    sign(method, key, contentType, expires) {
      const signed = signature(method, key, contentType, String(expires));
      return new URLSearchParams({ 'X-Amz-Expires': String(expires), 'X-Amz-Signature': signed }).toString();
    },
    isSigned(method, key, contentType, query) {
      const expected = Buffer.from(signature(method, key, contentType, query['X-Amz-Expires'] ?? ''));
      const given = Buffer.from(query['X-Amz-Signature'] ?? '');
      return given.length === expected.length && timingSafeEqual(given, expected);
    },
  };
}
