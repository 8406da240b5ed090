/** The Taskcluster queue over taskcluster-client. */
import http from 'node:http';
import https from 'node:https';
import pLimit from 'p-limit';
import taskcluster from 'taskcluster-client';
import type { z } from 'zod';
import type { TaskStatus } from '../domain/task.ts';
import { QueueError } from '../errors.ts';
import type { Clock, InputCounter, Resolution, Seen, TaskQueue } from '../ports.ts';
import {
  createAnswerReader,
  reclaimAnswer,
  scopesAnswer,
  statusAnswer,
  statusesAnswer,
  taskPageAnswer,
} from './answers.ts';
import { putArtifact } from './artifacts.ts';
import { toQueueError } from './errors.ts';

export interface QueueClientOptions {
  readonly rootUrl: string;
  readonly credentials: { readonly clientId: string; readonly accessToken: string; readonly certificate?: string };
  readonly provisionerId: string;
  readonly workerType: string;
  readonly workerGroup: string;
  readonly workerId: string;
  readonly clock: Clock;
  /** Milliseconds for each single request. With the default number of retries a call ends within some 20 seconds. */
  readonly timeoutMs?: number;
  /** How often a call repeats a request that got no answer or a 5xx. */
  readonly retries?: number;
  /** Connections at once. */
  readonly maxSockets?: number;
  readonly inputs?: InputCounter | undefined;
}

/** How many statuses are asked for at once: no more than fit into one page of the queue's answers. */
const BATCH = 500;
/** Tasks of a list come with their definitions, which may be large. */
const LIST_PAGE = 200;
/** More than any list has: tokens that lead from one to the other and back would go on for ever. */
const MAX_PAGES = 1000;
/** A deployment without the batch call is asked for it again after this long: perhaps only its proxy was at fault. */
const WITHOUT_BATCH_MS = 10 * 60_000;
/** Expanded scopes are believed for this long. */
const SCOPES_MS = 5 * 60_000;
const MAX_CACHED_SCOPES = 1000;

/** Keeps its connections alive and reuses them; idle ones do not keep the process alive. */
export function createQueueClient(options: QueueClientOptions): TaskQueue {
  const { clock, workerGroup, workerId } = options;
  const reader = createAnswerReader(options.inputs);
  const { parse } = reader;
  const taskQueueId = `${options.provisionerId}/${options.workerType}`;
  const agentOptions = { keepAlive: true, maxSockets: options.maxSockets ?? 20, maxFreeSockets: 10, timeout: 60_000 };
  const clientOptions = {
    rootUrl: options.rootUrl,
    credentials: { ...options.credentials },
    timeout: options.timeoutMs ?? 6000,
    retries: options.retries ?? 2,
    delayFactor: 100,
    maxDelay: 2000,
    agent: agentOptions,
  };
  const queue = new taskcluster.Queue(clientOptions);
  const auth = new taskcluster.Auth(clientOptions);
  const agent = { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) };
  const expanded = new Map<string, { readonly scopes: readonly string[]; readonly until: number }>();
  let noBatchUntil = Number.NEGATIVE_INFINITY;

  /** The client itself throws where an answer is not JSON: a failure whose status is a good one. */
  function failed(what: string, thrown: unknown, context?: Record<string, string | number>): QueueError {
    const error = toQueueError(what, thrown, context);
    const { statusCode } = error.context;
    if (typeof statusCode === 'number' && statusCode < 400) {
      options.inputs?.rejected('queue-answer');
    }
    return error;
  }

  async function call<T>(
    what: string,
    context: Record<string, string | number>,
    work: () => Promise<unknown>,
    read: (answer: unknown) => T,
  ): Promise<T> {
    try {
      return read(await work());
    } catch (error) {
      throw failed(what, error, context);
    }
  }

  const readStatus = (answer: unknown): TaskStatus => parse(statusAnswer, answer, 'a task status').status;

  function status(taskId: string): Promise<Seen<TaskStatus>> {
    return seen(() => call('status', { taskId }, () => queue.status(taskId), readStatus));
  }

  async function statuses(taskIds: readonly string[]): Promise<ReadonlyMap<string, Seen<TaskStatus>>> {
    const all = new Map<string, Seen<TaskStatus>>();
    for (let start = 0; start < taskIds.length; start += BATCH) {
      const batch = taskIds.slice(start, start + BATCH);
      for (const [taskId, value] of await statusesOf(batch)) {
        all.set(taskId, value);
      }
    }
    return all;
  }

  async function statusesOf(taskIds: readonly string[]): Promise<ReadonlyMap<string, Seen<TaskStatus>>> {
    if (clock.now() >= noBatchUntil) {
      try {
        return await statusesInOneCall(taskIds);
      } catch (error) {
        const failure = failed('statuses', error);
        if (failure.context.statusCode !== 404) {
          return new Map(taskIds.map((taskId) => [taskId, { kind: 'unreadable', error: failure }]));
        }
        // An older deployment, without this route.
        noBatchUntil = clock.now() + WITHOUT_BATCH_MS;
      }
    }
    const limit = pLimit(8);
    return new Map(
      await Promise.all(
        taskIds.map((taskId) => limit(async (): Promise<[string, Seen<TaskStatus>]> => [taskId, await status(taskId)])),
      ),
    );
  }

  async function statusesInOneCall(taskIds: readonly string[]): Promise<ReadonlyMap<string, Seen<TaskStatus>>> {
    // Tasks that the queue does not know are left out of its answer.
    const found = new Map<string, Seen<TaskStatus>>(taskIds.map((taskId) => [taskId, { kind: 'absent' }]));
    const nextToken = tokens();
    let continuationToken: string | undefined;
    do {
      const page = continuationToken === undefined ? { limit: BATCH } : { limit: BATCH, continuationToken };
      const answer = parse(
        statusesAnswer,
        await queue.statuses({ taskIds: [...taskIds] }, page),
        'a list of task statuses',
      );
      for (const entry of answer.statuses) {
        found.set(entry.taskId, await seen(async () => reader.status(entry.status)));
      }
      continuationToken = nextToken(answer.continuationToken);
    } while (continuationToken !== undefined);
    return found;
  }

  async function* pages(
    what: string,
    list: (page: { limit: number; continuationToken?: string }) => Promise<unknown>,
    isWanted: (task: z.infer<typeof taskPageAnswer>['tasks'][number]) => boolean,
  ): AsyncGenerator<readonly string[]> {
    const nextToken = tokens();
    let continuationToken: string | undefined;
    do {
      const page = continuationToken === undefined ? { limit: LIST_PAGE } : { limit: LIST_PAGE, continuationToken };
      const answer = await call(
        what,
        { taskQueueId },
        () => list(page),
        (a) => parse(taskPageAnswer, a, 'a list of tasks'),
      );
      yield answer.tasks.filter(isWanted).map(({ taskId }) => taskId);
      continuationToken = nextToken(answer.continuationToken);
    } while (continuationToken !== undefined);
  }

  function report(taskId: string, runId: number, resolution: Resolution): Promise<unknown> {
    switch (resolution.state) {
      case 'completed':
        return queue.reportCompleted(taskId, runId);
      case 'failed':
        return queue.reportFailed(taskId, runId);
      case 'exception':
        return queue.reportException(taskId, runId, { reason: resolution.reason });
      default:
        return resolution satisfies never;
    }
  }

  async function expandScopes(scopes: readonly string[]): Promise<readonly string[]> {
    const key = JSON.stringify([...scopes].sort());
    const cached = expanded.get(key);
    if (cached && clock.now() < cached.until) {
      return cached.scopes;
    }
    const answer = await call(
      'expandScopes',
      {},
      () => auth.expandScopes({ scopes: [...scopes] }),
      (a) => parse(scopesAnswer, a, 'a list of scopes'),
    );
    if (expanded.size >= MAX_CACHED_SCOPES) {
      expanded.clear();
    }
    expanded.set(key, { scopes: answer.scopes, until: clock.now() + SCOPES_MS });
    return answer.scopes;
  }

  return {
    taskQueueId,
    workerGroup,
    workerId,
    status,
    statuses,
    task: (taskId) => seen(() => call('task', { taskId }, () => queue.task(taskId), reader.definition)),
    claim: (taskId, runId) =>
      call('claimTask', { taskId, runId }, () => queue.claimTask(taskId, runId, { workerGroup, workerId }), readStatus),
    reclaim: (taskId, runId) =>
      call(
        'reclaimTask',
        { taskId, runId },
        () => queue.reclaimTask(taskId, runId),
        (a) => parse(reclaimAnswer, a, 'a reclaim'),
      ),
    resolve: (taskId, runId, resolution) =>
      call('report', { taskId, runId, state: resolution.state }, () => report(taskId, runId, resolution), readStatus),
    cancelTask: (taskId) => call('cancelTask', { taskId }, () => queue.cancelTask(taskId), readStatus),
    rerunTask: (taskId) => call('rerunTask', { taskId }, () => queue.rerunTask(taskId), readStatus),
    putArtifact: (taskId, runId, artifact) => putArtifact(taskId, runId, artifact, { queue, agent, reader }),
    listPending: () =>
      pages(
        'listPendingTasks',
        (page) => queue.listPendingTasks(taskQueueId, page),
        () => true,
      ),
    listClaimed: () =>
      pages(
        'listClaimedTasks',
        (page) => queue.listClaimedTasks(taskQueueId, page),
        (task) => task.workerGroup === workerGroup && task.workerId === workerId,
      ),
    expandScopes,
  };
}

/** What was read, absent for a 404, unreadable for anything else that went wrong. */
async function seen<T>(read: () => Promise<T>): Promise<Seen<T>> {
  try {
    return { kind: 'present', value: await read() };
  } catch (thrown) {
    const error = toQueueError('read', thrown);
    return error.code === 'queue-not-found' ? { kind: 'absent' } : { kind: 'unreadable', error };
  }
}

/**
 * The token to go on with; undefined where one comes again, and the pages would go on for ever: the queue answers the
 * first page to a token that it does not know, and goes round among more entries of one millisecond than fit a page.
 */
function tokens(): (answered: string | undefined) => string | undefined {
  const known = new Set<string>();
  return (answered) => {
    if (answered === undefined || known.has(answered)) {
      return undefined;
    }
    if (known.size >= MAX_PAGES) {
      throw new QueueError('queue-unavailable', `a list of the queue's does not end`, { isTransient: true });
    }
    known.add(answered);
    return answered;
  };
}
