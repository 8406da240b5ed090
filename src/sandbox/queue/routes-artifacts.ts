/** The queue's methods for artifacts. */
import type { StoredArtifact } from './artifacts.ts';
import { artifactInput, createArtifact, describeArtifact, followLinks, refuseUnshowable } from './artifacts.ts';
import type { Call, Context, Handlers } from './call.ts';
import { param, runIdOf } from './call.ts';
import { ApiError } from './errors.ts';
import { page } from './pages.ts';
import type { Task } from './state.ts';
import { parseInput } from './task-input.ts';

const MINUTE = 60_000;

function findTask(context: Context, call: Call): Task {
  const task = context.state.tasks.get(param(call, 'taskId'));
  if (!task) {
    throw new ApiError('ResourceNotFound', 'Task not found');
  }
  return task;
}

function latestRunId(context: Context, call: Call): number {
  const { runs } = findTask(context, call);
  if (runs.length === 0) {
    throw new ApiError('ResourceNotFound', "Task doesn't have any runs");
  }
  return runs.length - 1;
}

function bucketUrl(context: Context, details: { bucket: string; prefix: string }, query: string): string {
  const path = details.prefix.split('/').map(encodeURIComponent).join('/');
  return `${context.rootUrl()}/${details.bucket}/${path}${query === '' ? '' : `?${query}`}`;
}

/** Where the content of an artifact is. */
function contentUrl(context: Context, artifact: StoredArtifact, now: number): string | undefined {
  const { details } = artifact;
  if (details.storageType === 'reference') {
    return details.url;
  }
  if (details.storageType !== 's3') {
    return undefined;
  }
  const isPublic = details.bucket === 'public-bucket';
  const key = `${details.bucket}/${details.prefix}`;
  return bucketUrl(context, details, isPublic ? '' : context.blobs.sign('GET', key, '', now + 30 * MINUTE));
}

function creating(context: Context): Handlers {
  return {
    createArtifact(call) {
      const input = parseInput(artifactInput, call.body, call.schemaUrl);
      const [taskId, runId, name] = [param(call, 'taskId'), runIdOf(call), param(call, 'name')];
      const task = context.state.tasks.get(taskId);
      const run = task?.runs[runId];
      const refusals: readonly (readonly [boolean, string])[] = [
        [Date.parse(input.expires) < call.now - 15 * MINUTE, 'Expires must be in the future'],
        [!task, 'Task not found'],
        [!run, 'Run not found'],
        [run?.workerGroup === undefined, 'Run was not claimed by a worker and so no artifacts can exist'],
      ];
      const refusal = refusals.find(([applies]) => applies);
      if (refusal || !task || !run) {
        throw new ApiError('InputError', refusal?.[1] ?? 'Run not found');
      }
      const stores = { state: context.state, store: context.artifacts };
      const { details, contentType } = createArtifact(stores, task, { run, runId, name }, input, call.now);
      if (details.storageType !== 's3') {
        return { storageType: details.storageType };
      }
      const expires = call.now + 45 * MINUTE;
      const query = context.blobs.sign('PUT', `${details.bucket}/${details.prefix}`, contentType, expires);
      const putUrl = bucketUrl(context, details, query);
      return { storageType: 's3', contentType, expires: new Date(expires).toJSON(), putUrl };
    },
    finishArtifact(call) {
      const [taskId, runId, name] = [param(call, 'taskId'), runIdOf(call), param(call, 'name')];
      if (!context.artifacts.get(taskId, runId, name)) {
        const where = `taskId \`${taskId}\`, runId ${runId}, name \`${name}\``;
        throw new ApiError('ResourceNotFound', `Artifact with ${where} not found`);
      }
      throw new ApiError('InputError', 'Only object artifacts can be finished');
    },
  };
}

function reading(context: Context): Handlers {
  function find(call: Call, runId: number): StoredArtifact {
    const where = { taskId: param(call, 'taskId'), runId, name: param(call, 'name') };
    return followLinks(context.artifacts, where, call.now, (names) => call.authorize({ names }));
  }

  function download(call: Call, runId: number) {
    const artifact = find(call, runId);
    const { details } = artifact;
    const { reply } = call;
    reply.header('x-taskcluster-artifact-storage-type', details.storageType);
    if (details.storageType === 'error') {
      return reply.code(424).send({ reason: details.reason, message: details.message });
    }
    const url = contentUrl(context, artifact, call.now) ?? '';
    return reply.code(303).header('location', url).send({ storageType: details.storageType, url });
  }

  function content(call: Call, runId: number) {
    const artifact = find(call, runId);
    return artifact.details.storageType === 'error'
      ? artifact.details
      : { storageType: artifact.details.storageType, url: contentUrl(context, artifact, call.now) };
  }

  return {
    getArtifact: (call) => download(call, runIdOf(call)),
    getLatestArtifact(call) {
      call.authorize({ names: [param(call, 'name')] });
      return download(call, latestRunId(context, call));
    },
    artifact: (call) => content(call, runIdOf(call)),
    latestArtifact: (call) => content(call, latestRunId(context, call)),
  };
}

function listing(context: Context): Handlers {
  function list(call: Call, runId: number) {
    const { items, next } = page(call, context.artifacts.list(param(call, 'taskId'), runId));
    refuseUnshowable(items);
    return { artifacts: items.map(describeArtifact), ...next };
  }
  function info(call: Call, runId: number) {
    const artifact = context.artifacts.get(param(call, 'taskId'), runId, param(call, 'name'));
    if (!artifact) {
      throw new ApiError('ResourceNotFound', 'Artifact not found');
    }
    return describeArtifact(artifact);
  }
  return {
    listArtifacts(call) {
      const runId = runIdOf(call);
      if (runId > latestRunId(context, call)) {
        const taskId = param(call, 'taskId');
        throw new ApiError('ResourceNotFound', `Task with taskId: \`${taskId}\` has no run with runId: ${runId}`);
      }
      return list(call, runId);
    },
    listLatestArtifacts: (call) => list(call, latestRunId(context, call)),
    artifactInfo: (call) => info(call, runIdOf(call)),
    latestArtifactInfo: (call) => info(call, latestRunId(context, call)),
  };
}

/** Handlers by method name. */
export function artifactHandlers(context: Context): Handlers {
  return { ...creating(context), ...reading(context), ...listing(context) };
}
