/** Answers of foreign web servers, of which no more is taken in than an honest one has. */
import http from 'node:http';
import https from 'node:https';
import got, { type CancelableRequest, type Request, type Response } from 'got';

/** Far more than Buildbot, Self-serve or a bucket ever answers, and what a process can bear several times over. */
export const MAX_ANSWER = 16_000_000;

/** The server answers without end, or somebody else does in its place. */
export class AnswerTooLong extends Error {
  readonly code = 'ERR_ANSWER_TOO_LONG';
  constructor(max: number) {
    super(`the answer is longer than ${max} bytes`);
    this.name = 'AnswerTooLong';
  }
}

/** The server refuses to stream. */
export class RefusedStream extends Error {
  readonly statusCode: number;
  constructor(statusCode: number) {
    super(`the answer has status ${statusCode}`);
    this.name = 'RefusedStream';
    this.statusCode = statusCode;
  }
}

/**
 * Waits for an answer, also one that is an error, but gives it up as soon as it is too long; compressed ones count as
 * what they hold.
 * @throws AnswerTooLong, or what got throws
 */
export async function limited(
  request: CancelableRequest<Response<string>>,
  max: number = MAX_ANSWER,
): Promise<Response<string>> {
  let isTooLong = false;
  void request.on('downloadProgress', ({ transferred }) => {
    if (transferred > max) {
      isTooLong = true;
      request.cancel();
    }
  });
  try {
    return await request;
  } catch (error) {
    throw isTooLong ? new AnswerTooLong(max) : error;
  }
}

export interface Streams {
  /**
   * The chunks of an answer, which may take as long as it takes. Of one that is an error nothing is read: got would hold
   * all of it in memory.
   * @throws RefusedStream, or what got throws
   */
  read(url: string, headers?: Readonly<Record<string, string>>): AsyncGenerator<Buffer>;
  close(): void;
}

/**
 * Reads long answers, logs, over connections of their own: whatever else is asked must not wait for these, which are as
 * many as uploads go on at once.
 * @param options.timeoutMs until an answer begins
 * @param options.idleMs how long nothing may come of it
 */
export function createStreams({ timeoutMs, idleMs }: { timeoutMs: number; idleMs: number }): Streams {
  const agent = { http: new http.Agent({ keepAlive: true }), https: new https.Agent({ keepAlive: true }) };
  const client = got.extend({
    agent,
    timeout: { connect: 5000, response: timeoutMs, socket: idleMs },
    followRedirect: false,
    throwHttpErrors: false,
    retry: { limit: 0 },
  });
  return {
    read: (url, headers = {}) => streamed(client.stream(url, { headers })),
    close() {
      agent.http.destroy();
      agent.https.destroy();
    },
  };
}

async function* streamed(source: Request): AsyncGenerator<Buffer> {
  let statusCode = 0;
  source.once('response', (response: Response) => {
    statusCode = response.statusCode;
  });
  const check = () => {
    if (statusCode < 200 || statusCode > 299) {
      throw new RefusedStream(statusCode);
    }
  };
  try {
    for await (const chunk of source) {
      check();
      yield Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
    }
    check();
  } finally {
    source.destroy();
  }
}
