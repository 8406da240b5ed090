/** Artifacts of a run: declared to the queue, and their content put where it says. */
import { createReadStream } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import got, { HTTPError } from 'got';
import { codeOf, QueueError } from '../errors.ts';
import { AnswerTooLong, limited } from '../foreign-answer.ts';
import type { Artifact, InputCounter } from '../ports.ts';
import { type AnswerReader, artifactAnswer, putUrlAnswer } from './answers.ts';
import { toQueueError } from './errors.ts';
import type { Services } from './services.ts';

export interface ArtifactOptions {
  readonly services: Pick<Services, 'createArtifact'>;
  readonly agent: { readonly http: import('node:http').Agent; readonly https: import('node:https').Agent };
  readonly reader: AnswerReader;
  readonly inputs?: InputCounter | undefined;
  /** How often a PUT is tried, each time with a fresh URL. */
  readonly tries?: number;
  /** Before the second try, doubled each time. */
  readonly firstDelayMs?: number;
}

/** A slow line still moves this many bytes a millisecond. */
const SLOWEST_BYTES_PER_MS = 100;
const LEAST_PUT_MS = 30_000;
/** A line on which nothing moves for so long is dead. */
const IDLE_MS = 60_000;

/** Puts one artifact. @throws QueueError */
export async function putArtifact(
  taskId: string,
  runId: number,
  artifact: Artifact,
  options: ArtifactOptions,
  signal?: AbortSignal,
): Promise<void> {
  const create = async (payload: object) => {
    try {
      return await options.services.createArtifact(taskId, runId, artifact.name, {
        ...payload,
        expires: new Date(artifact.expires).toISOString(),
      });
    } catch (error) {
      throw toQueueError('createArtifact', error, { taskId, runId, artifact: artifact.name });
    }
  };
  const declare = async (payload: object) => {
    options.reader.parse(artifactAnswer, await create(payload), 'an artifact');
  };
  switch (artifact.kind) {
    case 'content':
    case 'file':
      return upload(artifact, () => create({ storageType: 's3', contentType: artifact.contentType }), options, signal);
    case 'redirect':
      return declare({
        storageType: 'reference',
        contentType: artifact.contentType,
        url: httpUrl(artifact.url, options.inputs),
      });
    case 'link':
      return declare({ storageType: 'link', contentType: artifact.contentType, artifact: artifact.target });
    case 'error':
      return declare({ storageType: 'error', reason: artifact.reason, message: artifact.message });
    default:
      return artifact satisfies never;
  }
}

/** What a URI may hold neither as it is nor as an escape; brackets are for addresses only. */
const NOT_OF_A_URI = /%(?![0-9a-f]{2})|[^\w\-.~:/?#@!$&'()*+,;=%]/gi;

/**
 * Nothing but http(s) is redirected to: the URL comes from Buildbot, and people follow it. It is escaped as the queue
 * wants it, by RFC 3986: a URL with a blank or an umlaut, which every browser takes, is refused there.
 */
function httpUrl(text: string, inputs: InputCounter | undefined): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:') {
    inputs?.rejected('legacy-ci-answer');
    throw new QueueError('queue-invalid', 'an artifact can only redirect to an http or https URL');
  }
  const { protocol, username, password, host, pathname, search, hash } = url;
  const user = username === '' && password === '' ? '' : `${username}:${password}@`;
  const fragment = hash === '' ? '' : `#${hash.slice(1).replaceAll('#', '%23')}`;
  return `${protocol}//${user}${host}${`${pathname}${search}${fragment}`.replace(NOT_OF_A_URI, encodeURIComponent)}`;
}

async function upload(
  artifact: Extract<Artifact, { kind: 'content' | 'file' }>,
  create: () => Promise<unknown>,
  { agent, reader, inputs, tries = 4, firstDelayMs = 500 }: ArtifactOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    // Asked for again each time: a URL lives for a while only, and asking twice for the same artifact is fine.
    const { putUrl } = reader.parse(putUrlAnswer, await create(), 'a place to put an artifact');
    try {
      await put(putUrl, artifact, agent, signal);
      return;
    } catch (error) {
      if (error instanceof AnswerTooLong) {
        inputs?.rejected('queue-answer');
      }
      const failure = putError(artifact.name, error);
      if (attempt >= tries || !failure.isTransient || signal?.aborted) {
        throw failure;
      }
      await delay(firstDelayMs * 2 ** (attempt - 1) * (0.75 + Math.random() / 2));
      if (signal?.aborted) {
        // What stands in for it may be there by now.
        throw failure;
      }
    }
  }
}

async function put(
  putUrl: string,
  artifact: Extract<Artifact, { kind: 'content' | 'file' }>,
  agent: ArtifactOptions['agent'],
  signal: AbortSignal | undefined,
): Promise<void> {
  const content = artifact.kind === 'content' ? Buffer.from(artifact.content) : undefined;
  const size = artifact.kind === 'file' ? artifact.size : (content?.length ?? 0);
  const request = got.put(putUrl, {
    body: artifact.kind === 'file' ? createReadStream(artifact.path) : (content ?? Buffer.alloc(0)),
    // S3 takes nothing without a length, and compares the type with the one that was declared.
    headers: { 'content-type': artifact.contentType, 'content-length': String(size) },
    agent,
    signal,
    retry: { limit: 0 },
    followRedirect: false,
    timeout: { connect: 10_000, socket: IDLE_MS, request: LEAST_PUT_MS + size / SLOWEST_BYTES_PER_MS },
  });
  const response = await limited(request);
  // What is not followed is no error to got, and nothing was put there.
  if (response.statusCode < 200 || response.statusCode > 299) {
    throw new HTTPError(response);
  }
}

/** What a bucket says of the content or the way it is put, and will say again. 403 is a URL's that has expired. */
const FOR_GOOD = new Set([400, 405, 411, 501]);
/** Also of what stands in front of a bucket, which has no codes. */
const TOO_LARGE = 413;
/** S3's codes for a 400 that another try, with another URL, may not get. */
const OF_THIS_TRY = new Set([
  'RequestTimeout',
  'IncompleteBody',
  'BadDigest',
  'ExpiredToken',
  'InvalidToken',
  'TokenRefreshRequired',
]);

/** Without the URL, whose query is a credential. */
function putError(name: string, thrown: unknown): QueueError {
  const message = `the content of ${name} could not be uploaded`;
  if (!(thrown instanceof HTTPError)) {
    const reason = codeOf(thrown) || 'no answer';
    return new QueueError('queue-unavailable', `${message}: ${reason}`, {
      isTransient: true,
      context: { artifact: name },
    });
  }
  const { statusCode, body } = thrown.response;
  const code = /<Code>(\w{1,60})<\/Code>/.exec(String(body))?.[1];
  const isTheBuckets = code !== undefined && !OF_THIS_TRY.has(code);
  const isForGood = statusCode === TOO_LARGE || (FOR_GOOD.has(statusCode) && isTheBuckets);
  const reason = `status ${statusCode}${code === undefined ? '' : ` (${code})`}`;
  return new QueueError(isForGood ? 'queue-invalid' : 'queue-unavailable', `${message}: ${reason}`, {
    isTransient: !isForGood,
    context: { artifact: name, statusCode },
  });
}
