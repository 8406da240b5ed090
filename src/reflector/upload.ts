/** A run's artifacts. Uploading comes before resolving: afterwards the queue takes no more. */
import type { Logger } from 'pino';
import type { RequestView } from '../domain/build.ts';
import { lastBuild } from '../domain/build.ts';
import { BridgeError, describeError, isForbidden, isTransient, QueueError } from '../errors.ts';
import type { Artifact, LegacyCi, Outcome, Resolution, TaskQueue } from '../ports.ts';
import { MappingMoved } from './apply/pass.ts';
import { type Spool, withSpooledLog } from './log-spool.ts';
import { runResults, statusJson } from './outcome.ts';

/** What people open: leads to the build's page while the build runs, and to the stored log afterwards. */
export const LIVE_LOG = 'public/logs/live.log';
/** The log as it is stored; of one that Buildbot has stored itself, a redirect there. */
export const BACKING_LOG = 'public/logs/live_backing.log';
export const PROPERTIES = 'public/properties.json';
/** Of every form of the log: links and redirects too. */
const LOG_TYPE = 'text/plain; charset=utf-8';
export const STATUS = 'public/buildbot/status.json';

export interface UploadContext {
  readonly queue: Pick<TaskQueue, 'putArtifact'>;
  readonly ci: LegacyCi;
  readonly log: Logger;
  /** Where logs are spooled. */
  readonly tempDir: string;
  /** Bytes. */
  readonly maxLogSize: number;
  /** To disk unless given. */
  readonly spool?: Spool | undefined;
}

export interface UploadTarget {
  readonly taskId: string;
  readonly runId: number;
  readonly builder: string;
  /** The task's own expiry: no artifact may outlive it. */
  readonly expires: number;
  readonly resolution: Resolution | 'canceled';
}

/** How hard an upload is tried. */
export interface Effort {
  /** Whether what cannot be uploaded now is given up: an `error` artifact stands in its place. */
  isLastTry(): boolean;
  readonly time: UploadTime;
}

/** How long an upload may take. */
export interface UploadTime {
  /** Is aborted when no time is left: what was not uploaded by then is given up; with a QueueError, if the run is over. */
  readonly forArtifacts: AbortSignal;
  /** Is aborted some seconds later, when what stands in for them is waited for no longer, either; with it, if the run is over. */
  readonly forStandIns: AbortSignal;
}

/** The run has to be resolved before its deadline. */
class OutOfTime extends BridgeError<'upload-out-of-time'> {
  constructor() {
    super('upload-out-of-time', 'it was not uploaded in time for the deadline of the task', { isTransient: true });
  }
}

type Put = (artifact: ArtifactWithoutExpiry) => Promise<void>;
type ArtifactWithoutExpiry = Artifact extends infer A ? (A extends Artifact ? Omit<A, 'expires'> : never) : never;

/**
 * Uploads properties, log and status of a request whose last finished build ended the run.
 * @throws the first error that a later try may overcome, unless this is the last one
 */
export async function uploadOutcome(
  context: UploadContext,
  target: UploadTarget,
  openOrComplete: RequestView,
  effort: Effort,
): Promise<void> {
  const put = putter(context, target, effort.time.forArtifacts);
  const guard = guarded(context, target, effort);
  // While the request is open the build that ended the run is the last one that is over.
  const request = { ...openOrComplete, builds: openOrComplete.builds.filter((build) => build.isComplete) };

  // What is small comes first: a log can take all of the time that there is.
  let outcome: Outcome | undefined;
  await guard(STATUS, () => put(json(STATUS, statusJson({ ...target, request, results: runResults(openOrComplete) }))));
  await guard(PROPERTIES, async () => {
    outcome = await context.ci.outcome(request);
    await put(json(PROPERTIES, outcome.properties));
  });
  await guard(BACKING_LOG, async () => {
    outcome ??= await context.ci.outcome(request);
    await putLog(context, request, outcome, put, effort.time.forArtifacts);
  });
}

/** Uploads a text in place of a build's log, for a run that has no build. */
export async function uploadExplanation(
  context: UploadContext,
  target: UploadTarget,
  text: string,
  effort: Effort,
): Promise<void> {
  const put = putter(context, target, effort.time.forArtifacts);
  const guard = guarded(context, target, effort);
  await guard(BACKING_LOG, () => putTextLog(text, put));
  await guard(PROPERTIES, () => put(json(PROPERTIES, {})));
  await guard(STATUS, () => put(json(STATUS, statusJson({ ...target, request: null, results: undefined }))));
}

/** While the build runs, the log that people open leads to the build's page. Later `live.log` becomes a link. */
export async function announceBuild(
  context: UploadContext,
  target: Omit<UploadTarget, 'resolution'>,
  url: string,
): Promise<void> {
  const { taskId, runId, expires } = target;
  await context.queue.putArtifact(taskId, runId, {
    kind: 'redirect',
    name: LIVE_LOG,
    // The queue replaces a redirect by a link of the same type only.
    contentType: LOG_TYPE,
    url,
    expires,
  });
}

/** For a run that was canceled while nothing can stop its build: says so where people look for its log. */
export async function announceNoStop(
  context: UploadContext,
  target: Omit<UploadTarget, 'resolution'>,
  why: string,
): Promise<void> {
  const { taskId, runId, expires, builder } = target;
  await context.queue.putArtifact(taskId, runId, {
    kind: 'content',
    name: LIVE_LOG,
    contentType: LOG_TYPE,
    content: `This task is over, but its build of "${builder}" in Buildbot is not and goes on to its end: ${why}.\n`,
    expires,
  });
}

async function putLog(
  context: UploadContext,
  request: RequestView,
  outcome: Outcome,
  put: Put,
  signal: AbortSignal,
): Promise<void> {
  const { log } = outcome;
  switch (log.kind) {
    case 'stream': {
      const hint = `The whole log: ${lastBuild(request)?.url ?? 'in Buildbot'}`;
      const options = { tempDir: context.tempDir, maxSize: context.maxLogSize, hint, signal };
      const spool = context.spool ?? withSpooledLog;
      await spool(await log.open(), options, (spooled) =>
        put({ kind: 'file', name: BACKING_LOG, contentType: LOG_TYPE, ...spooled }),
      );
      return linkLiveLog(put);
    }
    case 'url':
      await put({ kind: 'redirect', name: BACKING_LOG, contentType: 'text/plain', url: log.url });
      if (new URL(log.url).pathname.endsWith('.gz')) {
        // The name under which the first bridge's consumers look for it.
        await put({ kind: 'redirect', name: `${BACKING_LOG}.gz`, contentType: 'application/gzip', url: log.url });
      }
      return linkLiveLog(put);
    case 'none':
      return putTextLog(
        lastBuild(request) === undefined
          ? 'Buildbot has no log of this build request: no build of it ran.\n'
          : 'The bridge has no way to the log of this build.\n',
        put,
      );
    default:
      return log satisfies never;
  }
}

async function putTextLog(text: string, put: Put): Promise<void> {
  await put({ kind: 'content', name: BACKING_LOG, contentType: LOG_TYPE, content: text });
  await linkLiveLog(put);
}

async function linkLiveLog(put: Put): Promise<void> {
  await put({ kind: 'link', name: LIVE_LOG, contentType: LOG_TYPE, target: BACKING_LOG });
}

/** A line for each key, and no more: what is nested deep would be many times as long, were it indented whole. */
function json(name: string, value: Readonly<Record<string, unknown>>): ArtifactWithoutExpiry {
  const lines = Object.entries(value).map(([key, one]) => `  ${JSON.stringify(key)}: ${JSON.stringify(one ?? null)}`);
  const content = lines.length === 0 ? '{}\n' : `{\n${lines.join(',\n')}\n}\n`;
  return { kind: 'content', name, contentType: 'application/json', content };
}

/** @param time after which it puts nothing more: nobody waits for it any longer */
function putter({ queue }: UploadContext, { taskId, runId, expires }: UploadTarget, time: AbortSignal): Put {
  return async (artifact) => {
    if (time.aborted) {
      throw new OutOfTime();
    }
    await queue.putArtifact(taskId, runId, { ...artifact, expires } as Artifact, time);
  };
}

/** Waits for it no longer than there is time, whether or not it heeds that itself. */
function inTime(time: AbortSignal, work: () => Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const cut = () => reject(new OutOfTime());
    if (time.aborted) {
      cut();
      return;
    }
    time.addEventListener('abort', cut, { once: true });
    work()
      .then(resolve, reject)
      .finally(() => time.removeEventListener('abort', cut));
  });
}

/**
 * One artifact that fails for good must not keep the others, nor the resolution, from being reported: an `error`
 * artifact says what happened. What a later try may overcome is thrown, until the last try.
 */
function guarded(
  context: UploadContext,
  target: UploadTarget,
  effort: Effort,
): (name: string, upload: () => Promise<void>) => Promise<void> {
  const { log } = context;
  const { taskId, runId } = target;
  const { forArtifacts, forStandIns } = effort.time;
  const put = putter(context, target, forStandIns);
  const isLast = () => effort.isLastTry() || forArtifacts.aborted;
  return async (name, upload) => {
    /** Nothing stands in for a stand-in: it is tried again where later, or with mended rights, it can be put. */
    async function standIn(work: () => Promise<void>): Promise<void> {
      try {
        await inTime(forStandIns, work);
      } catch (error) {
        if (error instanceof MappingMoved || (!isLast() && (isTransient(error) || isForbidden(error)))) {
          throw error;
        }
        log.warn({ taskId, runId, artifact: name, err: error }, 'error artifact not taken');
      }
    }
    /** People find the stored log under the name that they open, whatever stands there. */
    const linkLog = () => (name === BACKING_LOG ? standIn(() => linkLiveLog(put)) : undefined);

    try {
      await inTime(forArtifacts, upload);
    } catch (error) {
      if (forArtifacts.reason instanceof QueueError) {
        throw forArtifacts.reason;
      }
      if (error instanceof BridgeError && error.code === 'queue-conflict') {
        // Either the run is resolved by now, which the resolution will find out, or another kind of artifact has the
        // name and stays.
        log.warn({ taskId, runId, artifact: name, err: error }, 'artifact not taken');
        await linkLog();
        return;
      }
      const isForGood = error instanceof BridgeError && !error.isTransient && !isForbidden(error);
      if (error instanceof MappingMoved || (!isForGood && !isLast())) {
        throw error;
      }
      log.error({ taskId, runId, artifact: name, err: error }, 'artifact given up');
      const message = describeError(error);
      await standIn(() => put({ kind: 'error', name, reason: 'invalid-resource-on-worker', message }));
      await linkLog();
    }
  };
}
