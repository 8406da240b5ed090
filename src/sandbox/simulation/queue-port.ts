/** The queue as one process reaches it. */

import { BridgeError, QueueError } from '../../errors.ts';
import type { Artifact, Resolution, Seen, TaskQueue } from '../../ports.ts';
import { type ArtifactInput, createArtifact } from '../queue/artifacts.ts';
import { findRun, type Task } from '../queue/state.ts';
import { cancelTask, claimRun, reclaimRun, reportException, reportRun, rerunTask } from '../queue/transitions.ts';
import type { Host } from './host.ts';
import { shortName } from './names.ts';
import type { QueueServer } from './queue-server.ts';
import { LIST_PAGE, ROLES, TASK_QUEUE, WORKER } from './settings.ts';

export function createQueuePort(host: Host, server: QueueServer): TaskQueue {
  function change<T>(method: string, taskId: string, about: string, effect: () => T): Promise<T> {
    const called = `${shortName(taskId)}${about}`;
    return host.call({ service: 'queue', method, about: called, taskId, isChange: true }, effect);
  }

  async function seen<T>(method: string, taskId: string, effect: () => T | undefined): Promise<Seen<T>> {
    try {
      const call = { service: 'queue' as const, method, about: shortName(taskId), taskId, isChange: false };
      return present(await host.call(call, effect));
    } catch (error) {
      return { kind: 'unreadable', error: toError(error) };
    }
  }

  /** A page is read when it is asked for; what moved in between is seen twice or not at all. */
  async function* list(method: string, read: () => readonly string[]): AsyncGenerator<readonly string[]> {
    for (let offset = 0; ; offset += LIST_PAGE) {
      const all = await host.call({ service: 'queue', method, about: '', isChange: false }, read);
      yield all.slice(offset, offset + LIST_PAGE);
      if (all.length <= offset + LIST_PAGE) {
        return;
      }
    }
  }

  return {
    taskQueueId: TASK_QUEUE,
    ...WORKER,
    status: (taskId) => seen('status', taskId, () => server.view(taskId)),
    async statuses(taskIds) {
      try {
        const about = taskIds.map(shortName).join(' ');
        return await host.call(
          { service: 'queue', method: 'statuses', about, isChange: false },
          () => new Map(taskIds.map((taskId) => [taskId, present(server.view(taskId))])),
        );
      } catch (thrown) {
        const error = toError(thrown);
        return new Map(taskIds.map((taskId) => [taskId, { kind: 'unreadable', error }]));
      }
    },
    task: (taskId) => seen('task', taskId, () => server.definition(taskId)),
    claim: (taskId, runId) =>
      change('claim', taskId, `/${runId}`, () =>
        server.act(taskId, 'bridge', 'claim', (task, now) => void claimRun(server.state, task, runId, WORKER, now)),
      ),
    reclaim: (taskId, runId) =>
      change('reclaim', taskId, `/${runId}`, () => {
        server.act(taskId, 'bridge', 'reclaim', (task, now) => void reclaimRun(server.state, task, runId, now));
        return { takenUntil: server.view(taskId)?.runs[runId]?.takenUntil ?? 0 };
      }),
    resolve: (taskId, runId, resolution) =>
      change(
        'resolve',
        taskId,
        `/${runId} ${resolution.state === 'exception' ? resolution.reason : resolution.state}`,
        () => server.act(taskId, 'bridge', 'resolve', (task, now) => report(server, task, runId, resolution, now)),
      ),
    cancelTask: (taskId) =>
      change('cancelTask', taskId, '', () =>
        server.act(taskId, 'bridge', 'cancelTask', (task, now) => cancelTask(server.state, task, now)),
      ),
    rerunTask: (taskId) =>
      change('rerunTask', taskId, '', () =>
        server.act(taskId, 'bridge', 'rerunTask', (task, now) => rerunTask(server.state, task, now)),
      ),
    async putArtifact(taskId, runId, artifact) {
      const about = `/${runId} ${artifact.name} ${artifact.kind}`;
      await change('putArtifact', taskId, about, () => {
        server.act(taskId, 'bridge', 'putArtifact', (task, now) => {
          const target = { run: findRun(task, runId), runId, name: artifact.name };
          createArtifact({ state: server.state, store: server.artifacts }, task, target, inputOf(artifact), now);
        });
      });
      if (artifact.kind === 'content' || artifact.kind === 'file') {
        // Its place is known; now its content is put there, which is another call that can fail.
        const content = artifact.kind === 'content' ? String(artifact.content) : 'a log';
        const key = `${taskId}/${runId}/${artifact.name}`;
        server.lastPut += 1;
        const put = server.lastPut;
        await change('putContent', taskId, about, () => {
          // S3: of two at once, the one with the latest time stamp wins, whichever is carried out first.
          if (put > (server.contents.get(key)?.put ?? 0)) {
            server.contents.set(key, { put, content });
          }
        });
      }
    },
    listPending: () => list('listPending', server.pendingIds),
    listClaimed: () => list('listClaimed', server.claimedIds),
    expandScopes: (scopes) =>
      host.call({ service: 'queue', method: 'expandScopes', about: scopes.join(' '), isChange: false }, () => [
        ...scopes,
        ...scopes.flatMap((scope) => ROLES[scope] ?? []),
      ]),
  };
}

function report({ state }: QueueServer, task: Task, runId: number, resolution: Resolution, now: number): void {
  if (resolution.state === 'exception') {
    reportException(state, task, runId, resolution.reason, now);
  } else {
    reportRun(state, task, runId, resolution.state, now);
  }
}

function inputOf(artifact: Artifact): ArtifactInput {
  const expires = new Date(artifact.expires).toJSON();
  switch (artifact.kind) {
    case 'content':
    case 'file':
      return { storageType: 's3', contentType: artifact.contentType, expires };
    case 'redirect':
      return { storageType: 'reference', contentType: artifact.contentType, url: artifact.url, expires };
    case 'link':
      return { storageType: 'link', contentType: artifact.contentType, artifact: artifact.target, expires };
    case 'error':
      return {
        storageType: 'error',
        reason: 'invalid-resource-on-worker',
        message: artifact.message.slice(0, 4096),
        expires,
      };
    default:
      return artifact satisfies never;
  }
}

function present<T>(value: T | undefined): Seen<T> {
  return value === undefined ? { kind: 'absent' } : { kind: 'present', value };
}

function toError(error: unknown): BridgeError {
  return error instanceof BridgeError ? error : new QueueError('queue-unavailable', String(error), { cause: error });
}
