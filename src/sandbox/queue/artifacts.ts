/** Artifacts of runs: which may be made, and how they are found. Times are UTC milliseconds. */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { ApiError } from './errors.ts';
import { dateTime, uri } from './formats.ts';
import { taskMessage } from './messages.ts';
import type { QueueState, Run, Task } from './state.ts';
import { statusOf } from './state.ts';

const expires = dateTime;
const contentType = z.string().max(255);
const contentLength = z.int().min(0).optional();

const ERROR_REASONS = [
  'file-missing-on-worker',
  'invalid-resource-on-worker',
  'too-large-file-on-worker',
  'file-not-readable-on-worker',
] as const;

/** The body of `createArtifact`. */
export const artifactInput = z.discriminatedUnion('storageType', [
  z.strictObject({ storageType: z.literal('s3'), expires, contentType, contentLength }),
  z.strictObject({ storageType: z.literal('object'), expires, contentType, contentLength }),
  z.strictObject({ storageType: z.literal('reference'), expires, contentType, url: uri }),
  z.strictObject({
    storageType: z.literal('link'),
    expires,
    contentType: contentType.optional(),
    artifact: z.string(),
  }),
  z.strictObject({
    storageType: z.literal('error'),
    expires,
    message: z.string().max(4096),
    reason: z.enum(ERROR_REASONS),
  }),
]);
/** What a worker says of an artifact it makes. */
export type ArtifactInput = z.infer<typeof artifactInput>;

/** What makes up an artifact, by storage type. */
export type ArtifactDetails =
  | { readonly storageType: 's3'; readonly prefix: string; readonly bucket: 'public-bucket' | 'private-bucket' }
  | { readonly storageType: 'reference'; readonly url: string }
  | { readonly storageType: 'link'; readonly artifact: string }
  | { readonly storageType: 'error'; readonly reason: string; readonly message: string };

/** An artifact as the queue keeps it; `expires` is UTC milliseconds. */
export interface StoredArtifact {
  readonly runId: number;
  readonly name: string;
  readonly contentType: string;
  readonly expires: number;
  readonly details: ArtifactDetails;
}

/** By task, run and name. */
export interface ArtifactStore {
  get(taskId: string, runId: number, name: string): StoredArtifact | undefined;
  set(taskId: string, artifact: StoredArtifact): void;
  /** Of one run or of all, by name. */
  list(taskId: string, runId?: number): readonly StoredArtifact[];
}

/** An empty store, in memory. */
export function createArtifactStore(): ArtifactStore {
  const tasks = new Map<string, Map<string, StoredArtifact>>();
  const keyOf = (runId: number, name: string) => `${runId}/${name}`;
  return {
    get: (taskId, runId, name) => tasks.get(taskId)?.get(keyOf(runId, name)),
    set(taskId, artifact) {
      const known = tasks.get(taskId) ?? new Map<string, StoredArtifact>();
      tasks.set(taskId, known.set(keyOf(artifact.runId, artifact.name), artifact));
    },
    list(taskId, runId) {
      const all = [...(tasks.get(taskId)?.values() ?? [])];
      const chosen = all.filter((artifact) => runId === undefined || artifact.runId === runId);
      return chosen.sort((a, b) => (a.name < b.name ? -1 : 1));
    },
  };
}

/** An artifact as the API and the messages show it. */
export function describeArtifact(artifact: StoredArtifact) {
  return {
    storageType: artifact.details.storageType,
    name: artifact.name,
    expires: new Date(artifact.expires).toJSON(),
    contentType: artifact.contentType,
  };
}

/**
 * Seen on a real 106: what nobody limits when it is made fails the queue's own schema when it is shown.
 * @throws ApiError `InternalServerError`
 */
export function refuseUnshowable(artifacts: readonly StoredArtifact[]): void {
  if (artifacts.some(({ name }) => name.length > 1024)) {
    throw new ApiError(
      'InternalServerError',
      'Internal Server Error: an artifact with a name of more than 1024 letters',
    );
  }
}

const MINUTE = 60_000;

function checkRun(task: Task, run: Run, now: number): void {
  const isLateButFine = run.state === 'exception' && (run.resolved ?? 0) > now - 25 * MINUTE;
  if (run.state !== 'running' && !isLateButFine) {
    throw new ApiError(
      'RequestConflict',
      "Artifacts cannot be created for a task after it is resolved, unless it is resolved 'exception', and even in " +
        'this case only up to 25 min past resolution.This to ensure that artifacts have been uploaded before a task ' +
        "is 'completed' and output is consumed by a dependent task\n\n" +
        `Task status: ${JSON.stringify(statusOf(task), null, 2)}`,
    );
  }
}

function detailsOf(taskId: string, runId: number, name: string, input: ArtifactInput): ArtifactDetails {
  switch (input.storageType) {
    case 's3': {
      const bucket = name.startsWith('public/') ? 'public-bucket' : 'private-bucket';
      return { storageType: 's3', bucket, prefix: `${taskId}/${runId}/${name}` };
    }
    case 'reference':
      return { storageType: 'reference', url: input.url };
    case 'link':
      return { storageType: 'link', artifact: input.artifact };
    case 'error':
      return { storageType: 'error', reason: input.reason, message: input.message };
    case 'object':
      throw new ApiError('InputError', 'This deployment has no object service: use storage type `s3`.');
  }
}

/** What may take an artifact's place: the same again, a link or another reference for a reference; later expiry. */
function isCompatible(known: StoredArtifact, next: StoredArtifact): boolean {
  const from = known.details.storageType;
  const to = next.details.storageType;
  if ((to !== 'link' && known.contentType !== next.contentType) || known.expires > next.expires) {
    return false;
  }
  return from === 'reference'
    ? to === 'reference' || to === 'link'
    : from === to && isDeepStrictEqual(known.details, next.details);
}

/**
 * Checks and stores an artifact; its creation is announced, except for s3, where it is not yet uploaded.
 * @throws ApiError `InputError` or `RequestConflict`
 */
export function createArtifact(
  { state, store }: { readonly state: QueueState; readonly store: ArtifactStore },
  task: Task,
  target: { readonly run: Run; readonly runId: number; readonly name: string },
  input: ArtifactInput,
  now: number,
): StoredArtifact {
  const { run, runId, name } = target;
  const { taskId, definition } = task;
  const expires = Date.parse(input.expires);
  if (expires > Date.parse(definition.expires)) {
    throw new ApiError(
      'InputError',
      `Artifact expires (${new Date(expires).toJSON()}) after the task expiration ${definition.expires} ` +
        '(task.expires < expires) - this is not allowed, artifacts may not expire after the task they belong to expires',
    );
  }
  checkRun(task, run, now);
  const contentType = ('contentType' in input && input.contentType) || 'application/binary';
  const artifact = { runId, name, contentType, expires, details: detailsOf(taskId, runId, name, input) };
  const known = store.get(taskId, runId, name);
  if (known && !isCompatible(known, artifact)) {
    const { name: _name, ...shown } = describeArtifact(known);
    throw new ApiError(
      'RequestConflict',
      'Artifact already exists with different properties, and none of the allowed exceptions apply: ' +
        JSON.stringify(shown, null, 2),
    );
  }
  const stored = { ...artifact, contentType: known?.contentType ?? contentType };
  store.set(taskId, stored);
  refuseUnshowable([stored]);
  if (stored.details.storageType !== 's3') {
    const { workerGroup, workerId } = run;
    const extra = { artifact: describeArtifact(stored) };
    state.outbox.push(taskMessage('artifact-created', task, { runId, workerGroup, workerId }, extra));
  }
  return stored;
}

/**
 * Finds an artifact, following links.
 * @param visit called with the names met so far before each is looked up, to check that the caller may see them
 * @throws ApiError `ResourceNotFound`, `ResourceExpired` or `InputError` for links in a circle
 */
export function followLinks(
  store: ArtifactStore,
  where: { readonly taskId: string; readonly runId: number; readonly name: string },
  now: number,
  visit: (names: readonly string[]) => void,
): StoredArtifact {
  const names: string[] = [];
  let name = where.name;
  for (;;) {
    names.push(name);
    visit(names);
    const artifact = store.get(where.taskId, where.runId, name);
    if (!artifact) {
      throw new ApiError('ResourceNotFound', 'Artifact not found');
    }
    if (artifact.expires < now) {
      throw new ApiError('ResourceExpired', 'Artifact expired');
    }
    if (artifact.details.storageType !== 'link') {
      return artifact;
    }
    name = artifact.details.artifact;
    if (names.includes(name)) {
      throw new ApiError('InputError', 'Artifact leads to a link cycle');
    }
  }
}
