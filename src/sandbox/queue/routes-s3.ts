/** The bucket's own HTTP interface, as strict as S3 about what it is sent. */
import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Clock } from '../../ports.ts';
import type { BlobStore } from './blobs.ts';

interface BucketRequest {
  readonly key: string;
  readonly query: Readonly<Record<string, string>>;
}

function readRequest(request: FastifyRequest): BucketRequest {
  const url = new URL(request.url, 'http://bucket');
  return { key: decodeURIComponent(url.pathname.slice(1)), query: Object.fromEntries(url.searchParams) };
}

/** S3 answers errors in XML. */
function refuse(reply: FastifyReply, status: number, code: string, message: string): FastifyReply {
  // The body is not read: the connection cannot be used again.
  return reply
    .code(status)
    .header('connection', 'close')
    .type('application/xml')
    .send(`<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message></Error>`);
}

/** What S3 takes in one PUT, in bytes. */
const MAX_PUT = 5 * 2 ** 30;

const HAS_EXPIRED = 'Request has expired';
const BAD_SIGNATURE =
  'The request signature we calculated does not match the signature you provided. Check your key and signing method.';

/** Registers GET and PUT of `/public-bucket/...` and `/private-bucket/...`. */
export function registerBucket(app: FastifyInstance, blobs: BlobStore, clock: Clock): void {
  // Bodies are streamed to disk, whatever they are.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, body, done) => done(null, body));

  async function put(request: FastifyRequest<{ Body: Readable | undefined }>, reply: FastifyReply) {
    const { key, query } = readRequest(request);
    const { headers } = request;
    if (Number(query['X-Amz-Expires']) < clock.now()) {
      return refuse(reply, 403, 'AccessDenied', HAS_EXPIRED);
    }
    const contentType = headers['content-type'] ?? '';
    if (!blobs.isSigned('PUT', key, contentType, query)) {
      return refuse(reply, 403, 'SignatureDoesNotMatch', BAD_SIGNATURE);
    }
    if (headers['transfer-encoding'] !== undefined) {
      return refuse(
        reply,
        501,
        'NotImplemented',
        'A header you provided implies functionality that is not implemented',
      );
    }
    if (headers['content-length'] === undefined) {
      return refuse(reply, 411, 'MissingContentLength', 'You must provide the Content-Length HTTP header.');
    }
    const size = Number(headers['content-length']);
    if (size > MAX_PUT) {
      return refuse(reply, 400, 'EntityTooLarge', 'Your proposed upload exceeds the maximum allowed size');
    }
    const contentEncoding = headers['content-encoding'];
    await blobs.put(key, request.body ?? request.raw, { contentType, contentEncoding }, size);
    return reply.code(200).send();
  }

  async function get(request: FastifyRequest, reply: FastifyReply) {
    const { key, query } = readRequest(request);
    const isOpen = key.startsWith('public-bucket/') || blobs.isSigned('GET', key, '', query);
    if (!isOpen || Number(query['X-Amz-Expires']) < clock.now()) {
      return refuse(reply, 403, 'AccessDenied', isOpen ? HAS_EXPIRED : 'Access Denied');
    }
    const blob = blobs.get(key);
    if (!blob) {
      return refuse(reply, 404, 'NoSuchKey', 'The specified key does not exist.');
    }
    if (blob.contentEncoding !== undefined) {
      reply.header('content-encoding', blob.contentEncoding);
    }
    return reply.header('content-length', blob.size).type(blob.contentType).send(createReadStream(blob.path));
  }

  for (const bucket of ['public-bucket', 'private-bucket']) {
    app.put(`/${bucket}/*`, put);
    app.get(`/${bucket}/*`, get);
  }
}
