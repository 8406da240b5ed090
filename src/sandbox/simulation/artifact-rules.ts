/** What must hold of a run's artifacts. */
import { isTransient, QueueError } from '../../errors.ts';
import { BACKING_LOG, LIVE_LOG, PROPERTIES, STATUS } from '../../reflector/upload.ts';
import { LEAST_STAND_INS_MS } from '../../reflector/upload-time.ts';
import type { Call, Host } from './host.ts';
import { shortName } from './names.ts';
import type { Ending, QueueServer } from './queue-server.ts';
import { POLICY } from './settings.ts';
import type { StoreState } from './store-state.ts';
import type { Truth } from './truth.ts';

export interface ArtifactRules {
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  /** A process hears that its call had its effect. */
  onAnswered(host: Host, call: Call, answer: unknown): void;
  /** A process hears of no effect of its call. */
  onFailed(host: Host, call: Call, error: unknown): void;
  /** The bridge has resolved a run of its own. */
  onEnding(ending: Ending): void;
}

export interface ArtifactRulesContext {
  readonly complain: (what: string) => void;
  readonly now: () => number;
  readonly queue: () => QueueServer;
  readonly store: () => StoreState;
  readonly truth: () => Truth;
  /** Whether there is a request too many for the run: then either may be the one that is followed. */
  readonly isDoubled: (taskId: string, runId: number) => boolean;
  /** Whether the task's deadline may be so near that nothing is waited for any more; or nearer than so many milliseconds. */
  readonly isLastChance: (taskId: string, leftMs?: number) => boolean;
}

interface Put {
  readonly taskId: string;
  readonly runId: string;
  readonly name: string;
  readonly kind: string;
}

/** Every upload has at least so long. */
const LEAST_UPLOAD_MS = 5000;
/** Shorter than the shortest upload, and the time that is left to resolve the run in. */
const LAST_SECONDS_MS = 10_000;

/** What an artifact is made of: whichever of it fails, an `error` artifact may stand in its place. */
const INGREDIENTS: Readonly<Record<string, readonly string[]>> = {
  [PROPERTIES]: ['outcome', PROPERTIES],
  [BACKING_LOG]: ['outcome', 'log', BACKING_LOG, `${BACKING_LOG}.gz`, LIVE_LOG],
  [STATUS]: [STATUS],
};

export function createArtifactRules(context: ArtifactRulesContext): ArtifactRules {
  const { complain, now, queue, store, truth, isDoubled, isLastChance } = context;
  /** By process and task, or run of it: what failed when it was tried last. */
  const failed = new Set<string>();
  /** By run and name: artifacts whose last resort failed. */
  const givenUp = new Set<string>();

  /** By run: resolutions under way. One that takes effect after its call has failed may have been overtaken by a newer upload. */
  const resolving = new Map<string, number>();
  /** By process and task: when its last pass began. */
  const begun = new Map<string, number>();
  /** By task: when its last pass first put what stands in for an artifact. */
  const stoodIn = new Map<string, number>();
  /** Nothing more is tried where one upload has used up the time that was left. */
  const isOutOfTime = (host: Host, { taskId }: Put) =>
    isLastChance(taskId) && now() - (begun.get(`${host.name} ${taskId}`) ?? now()) >= LEAST_UPLOAD_MS;
  const keyOf = ({ taskId, runId, name }: Put) => `${taskId}/${runId}/${name}`;

  /** What a call says of the ingredients of artifacts. */
  function ingredientOf(host: Host, call: Call): string | undefined {
    const put = putOf(call);
    if (put !== undefined) {
      return put.kind === 'error' ? undefined : `${host.name} ${keyOf(put)}`;
    }
    return call.method === 'outcome' || call.method === 'log'
      ? `${host.name} ${call.taskId} ${call.method}`
      : undefined;
  }

  function countResolution({ method, taskId, about }: Call, more: number): void {
    const [, runId] = method === 'resolve' ? (/\/(\d+) /.exec(about) ?? []) : [];
    if (runId !== undefined) {
      const key = `${taskId}/${runId}`;
      resolving.set(key, (resolving.get(key) ?? 0) + more);
    }
  }

  function checkContents({ taskId, runId, reason }: Ending): void {
    if (!resolving.get(`${taskId}/${runId}`) && reason !== 'canceled') {
      return;
    }
    const content = (name: string) => {
      const isError = queue().artifacts.get(taskId, runId, name)?.details.storageType === 'error';
      const key = `${taskId}/${runId}/${name}`;
      const text = isError || givenUp.has(key) ? undefined : queue().contents.get(key)?.content;
      return text === undefined ? undefined : toRecord(JSON.parse(text));
    };
    const run = `${shortName(taskId)}/${runId} was resolved ${reason}`;
    const request = truth().requestOf({ taskId, runId });
    // Of what is gone or collapsed an explanation tells, and no properties.
    const isUnclear = request?.isPurged || request?.endedBy === 'collapse' || isDoubled(taskId, runId);
    const build = isUnclear ? undefined : request?.builds.at(-1);
    const properties = content(PROPERTIES);
    const isRight = firstOf(properties?.buildid) === build?.id;
    // What is told of a build after its end may come too late.
    const isEarly = isLastChance(taskId) && properties?.buildid === undefined;
    if (build !== undefined && properties !== undefined && !isRight && !isEarly) {
      complain(`${run} with properties of another build than ${build.id}`);
    }
    const status = content(STATUS);
    if (status !== undefined && toRecord(status.resolution).reason !== reason) {
      complain(`${run}, and its status says: ${String(toRecord(status.resolution).reason)}`);
    }
    const results = request?.results ?? null;
    if (build !== undefined && status !== undefined && status.resultName !== results) {
      complain(`${run}, and its status says ${String(status.resultName)} of ${results ?? 'nothing'}`);
    }
  }

  return {
    onCall(host, call) {
      countResolution(call, 1);
      const put = call.method === 'putArtifact' ? putOf(call) : undefined;
      if (put?.kind !== 'error') {
        return;
      }
      stoodIn.set(put.taskId, stoodIn.get(put.taskId) ?? now());
      const hasFailed = (INGREDIENTS[put.name] ?? []).some(
        (part) =>
          failed.has(`${host.name} ${put.taskId} ${part}`) ||
          failed.has(`${host.name} ${keyOf({ ...put, name: part })}`),
      );
      if (!hasFailed && !isOutOfTime(host, put)) {
        complain(`an error stands in for ${put.name} of ${shortName(put.taskId)}/${put.runId}, and nothing had failed`);
      }
    },
    onAnswered(host, call, answer) {
      countResolution(call, -1);
      if (call.method === 'lease' && answer === true) {
        begun.set(`${host.name} ${call.taskId}`, now());
        stoodIn.delete(call.taskId ?? '');
      }
      const ingredient = ingredientOf(host, call);
      const put = putOf(call);
      // The place of a content is not yet its content.
      if (put !== undefined && call.method === 'putArtifact' && (put.kind === 'content' || put.kind === 'file')) {
        return;
      }
      if (ingredient !== undefined) {
        failed.delete(ingredient);
      }
      if (put !== undefined) {
        givenUp.delete(keyOf(put));
      }
    },
    onFailed(host, call, error) {
      const ingredient = ingredientOf(host, call);
      if (ingredient !== undefined) {
        failed.add(ingredient);
      }
      countResolution(call, -1);
      // Only the last resort is left then, which may fail as well: see `guarded` in upload.ts.
      const put = putOf(call);
      const isLastResort = put?.kind === 'error' || put?.kind === 'link';
      const { taskId = '' } = call;
      const isLastTry = (store().open(taskId)?.attempts ?? 0) >= POLICY.maxUploadAttempts || isLastChance(taskId);
      // What took effect late, of another kind and without its content, has the name for good.
      const isTaken = error instanceof QueueError && error.code === 'queue-conflict';
      if (put !== undefined && (isTaken || (isLastResort && (isLastTry || !isTransient(error))))) {
        givenUp.add(keyOf(put));
      }
    },
    onEnding(ending) {
      const { taskId, runId, reason } = ending;
      // What stands in for them has its time, too, and in the last seconds none.
      const hasStoodIn = now() - (stoodIn.get(taskId) ?? now()) >= LEAST_STAND_INS_MS;
      const isOver = (isLastChance(taskId) && hasStoodIn) || isLastChance(taskId, LAST_SECONDS_MS);
      const missing = (isOver ? [] : [STATUS, PROPERTIES, BACKING_LOG, LIVE_LOG]).filter((name) => {
        const key = `${taskId}/${runId}/${name}`;
        const artifact = queue().artifacts.get(taskId, runId, name);
        const isEmpty = artifact?.details.storageType === 's3' && !queue().contents.has(key);
        return (artifact === undefined || isEmpty) && !givenUp.has(key);
      });
      if (missing.length > 0) {
        complain(`${shortName(taskId)}/${runId} was resolved ${reason} without ${missing.join(', ')}`);
      }
      checkContents(ending);
    },
  };
}

/** An artifact, or its content, that a call puts. */
function putOf({ method, taskId, about }: Call): Put | undefined {
  const [, runId, name, kind] = /\/(\d+) (\S+) (\S+)$/.exec(about) ?? [];
  const isPut = method === 'putArtifact' || method === 'putContent';
  return isPut && taskId !== undefined && runId !== undefined && name !== undefined && kind !== undefined
    ? { taskId, runId, name, kind }
    : undefined;
}

function toRecord(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {};
}

function firstOf(value: unknown): unknown {
  return Array.isArray(value) ? value[0] : undefined;
}
