/** Answers of foreign web servers, of which no more is taken in than an honest one has. */
import type { CancelableRequest, Request, Response } from 'got';

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

/**
 * The chunks of an answer. Of one that is an error nothing is read: got would hold all of it in memory.
 * @param source of a client with `throwHttpErrors: false`
 * @throws RefusedStream, or what got throws
 */
export async function* streamed(source: Request): AsyncGenerator<Buffer> {
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
