/** The Taskcluster queue. */
import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import pLimit from 'p-limit';
import type { TaskStatus } from '../domain/task.ts';
import type { QueueError } from '../errors.ts';
import { AnswerTooLong } from '../foreign-answer.ts';
import type { Clock, InputCounter, Resolution, Seen, TaskQueue } from '../ports.ts';
import { createAnswerReader, reclaimAnswer, scopesAnswer, statusesAnswer, taskPageAnswer } from './answers.ts';
import { putArtifact } from './artifacts.ts';
import { toQueueError } from './errors.ts';
import { type ListedTask, pagesOf, tokens } from './lists.ts';
import { createServices } from './services.ts';

export interface QueueClientOptions {
  readonly rootUrl: string;
  readonly credentials: { readonly clientId: string; readonly accessToken: string; readonly certificate?: string };
  readonly provisionerId: string;
  readonly workerType: string;
  readonly workerGroup: string;
  readonly workerId: string;
  readonly clock: Clock;
  /** See `ServicesOptions`; the machine's time unless given. */
  readonly signedAt?: () => number;
  /**
   * Milliseconds for each single request. With the default number of retries a call ends within some 20 seconds, or 30 for a
   * page of a list.
   */
  readonly timeoutMs?: number;
  /** See `ServicesOptions`. */
  readonly retries?: number;
  /** Connections at once; uploads have others, as many as go on at once. */
  readonly maxSockets?: number;
  readonly inputs?: InputCounter | undefined;
}

/** How many statuses are asked for at once: no more than fit into one page of the queue's answers. */
const BATCH = 500;
/** A deployment without the batch call is asked for it again after this long: perhaps only its proxy was at fault. */
const WITHOUT_BATCH_MS = 10 * 60_000;
/** Meanwhile so many statuses are asked for at a time. */
const AT_ONCE = 8;
/** Expanded scopes are believed for this long. */
const SCOPES_MS = 5 * 60_000;
const MAX_CACHED_SCOPES = 1000;
/** Longer ones are asked for each time. */
const MAX_CACHED_LENGTH = 50_000;

/** Keeps its connections alive and reuses them; idle ones do not keep the process alive. */
export function createQueueClient(options: QueueClientOptions): TaskQueue {
  const { clock, workerGroup, workerId } = options;
  const reader = createAnswerReader(options.inputs);
  const { parse } = reader;
  const taskQueueId = `${options.provisionerId}/${options.workerType}`;
  const agents = (maxSockets: number) => {
    const agentOptions = { keepAlive: true, maxSockets, maxFreeSockets: 10, timeout: 60_000 };
    return { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) };
  };
  const servicesOver = (agent: ReturnType<typeof agents>) =>
    createServices({
      rootUrl: options.rootUrl,
      credentials: options.credentials,
      agent,
      signedAt: options.signedAt ?? Date.now,
      timeoutMs: options.timeoutMs ?? 6000,
      retries: options.retries ?? 2,
    });
  const services = servicesOver(agents(options.maxSockets ?? 20));
  // Apart, so that uploads never keep a claim waiting; nor one another, however many are at work at once.
  const uploadAgent = agents(Number.POSITIVE_INFINITY);
  const uploads = {
    services: servicesOver(uploadAgent),
    agent: uploadAgent,
    reader,
    inputs: options.inputs,
  };
  const expanded = new Map<string, { readonly scopes: readonly string[]; readonly until: number }>();
  let noBatchUntil = Number.NEGATIVE_INFINITY;

  /** Counts what came in place of an answer: a redirect, what only says that it is JSON, or what does not end. */
  function failed(what: string, thrown: unknown, context?: Record<string, string | number>): QueueError {
    const error = toQueueError(what, thrown, context);
    const { statusCode } = error.context;
    const isRefused = typeof statusCode === 'number' && statusCode < 400;
    if (isRefused || error.cause instanceof AnswerTooLong) {
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

  const statusOf =
    (taskId: string) =>
    (answer: unknown): TaskStatus =>
      reader.statusAnswer(answer, taskId);

  function status(taskId: string): Promise<Seen<TaskStatus>> {
    return seen(() => call('status', { taskId }, () => services.status(taskId), statusOf(taskId)));
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
    if (clock.uptime() >= noBatchUntil) {
      try {
        return await statusesInOneCall(taskIds);
      } catch (error) {
        const failure = failed('statuses', error);
        if (failure.context.statusCode !== 404) {
          return new Map(taskIds.map((taskId) => [taskId, { kind: 'unreadable', error: failure }]));
        }
        // An older deployment, without this route.
        noBatchUntil = clock.uptime() + WITHOUT_BATCH_MS;
      }
    }
    return statusesOneByOne(taskIds);
  }

  async function statusesOneByOne(taskIds: readonly string[]): Promise<ReadonlyMap<string, Seen<TaskStatus>>> {
    const all = new Map<string, Seen<TaskStatus>>();
    const limit = pLimit(AT_ONCE);
    let inVain = 0;
    let away: Seen<TaskStatus> | undefined;
    async function ask(taskId: string): Promise<void> {
      // Where it is away, the rest would only wait as long for the same, while claims are to be kept alive.
      const found = away ?? (await status(taskId));
      inVain = found.kind === 'unreadable' && found.error.code === 'queue-unavailable' ? inVain + 1 : 0;
      away = inVain >= AT_ONCE ? found : undefined;
      all.set(taskId, found);
    }
    await Promise.all(taskIds.map((taskId) => limit(() => ask(taskId))));
    return all;
  }

  async function statusesInOneCall(taskIds: readonly string[]): Promise<ReadonlyMap<string, Seen<TaskStatus>>> {
    // Tasks that the queue does not know are left out of its answer.
    const found = new Map<string, Seen<TaskStatus>>(taskIds.map((taskId) => [taskId, { kind: 'absent' }]));
    const nextToken = tokens();
    let continuationToken: string | undefined;
    do {
      const page = continuationToken === undefined ? { limit: BATCH } : { limit: BATCH, continuationToken };
      const answer = parse(statusesAnswer, await services.statuses(taskIds, page), 'a list of task statuses');
      for (const entry of answer.statuses) {
        if (found.has(entry.taskId)) {
          found.set(entry.taskId, await seen(async () => reader.status(entry.status, entry.taskId)));
        }
      }
      continuationToken = nextToken(answer.continuationToken);
    } while (continuationToken !== undefined);
    return found;
  }

  async function* list(
    what: 'listPendingTasks' | 'listClaimedTasks',
    isWanted: (task: ListedTask) => boolean,
  ): AsyncGenerator<readonly string[]> {
    try {
      yield* pagesOf(
        async (page) => parse(taskPageAnswer, await services[what](taskQueueId, page), 'a list of tasks'),
        isWanted,
      );
    } catch (error) {
      throw failed(what, error, { taskQueueId });
    }
  }

  function report(taskId: string, runId: number, resolution: Resolution): Promise<unknown> {
    switch (resolution.state) {
      case 'completed':
        return services.reportCompleted(taskId, runId);
      case 'failed':
        return services.reportFailed(taskId, runId);
      case 'exception':
        return services.reportException(taskId, runId, resolution.reason);
      default:
        return resolution satisfies never;
    }
  }

  async function expandScopes(
    scopes: readonly string[],
    { isFresh = false }: { readonly isFresh?: boolean } = {},
  ): Promise<readonly string[]> {
    const key = createHash('sha256')
      .update(JSON.stringify([...scopes].sort()))
      .digest('hex');
    const cached = expanded.get(key);
    if (cached && !isFresh && clock.uptime() < cached.until) {
      return cached.scopes;
    }
    const answer = await call(
      'expandScopes',
      {},
      () => services.expandScopes(scopes),
      (a) => parse(scopesAnswer, a, 'a list of scopes'),
    );
    if (expanded.size >= MAX_CACHED_SCOPES) {
      expanded.clear();
    }
    if (answer.scopes.join().length <= MAX_CACHED_LENGTH) {
      expanded.set(key, { scopes: answer.scopes, until: clock.uptime() + SCOPES_MS });
    }
    return answer.scopes;
  }

  return {
    taskQueueId,
    workerGroup,
    workerId,
    status,
    statuses,
    task: (taskId) => seen(() => call('task', { taskId }, () => services.task(taskId), reader.definition)),
    claim: (taskId, runId) =>
      call(
        'claimTask',
        { taskId, runId },
        () => services.claimTask(taskId, runId, { workerGroup, workerId }),
        statusOf(taskId),
      ),
    reclaim: (taskId, runId) =>
      call(
        'reclaimTask',
        { taskId, runId },
        () => services.reclaimTask(taskId, runId),
        (a) => parse(reclaimAnswer, a, 'a reclaim'),
      ),
    resolve: (taskId, runId, resolution) =>
      call(
        'report',
        { taskId, runId, state: resolution.state },
        () => report(taskId, runId, resolution),
        statusOf(taskId),
      ),
    cancelTask: (taskId) => call('cancelTask', { taskId }, () => services.cancelTask(taskId), statusOf(taskId)),
    rerunTask: (taskId) => call('rerunTask', { taskId }, () => services.rerunTask(taskId), statusOf(taskId)),
    putArtifact: (taskId, runId, artifact, signal) => putArtifact(taskId, runId, artifact, uploads, signal),
    listPending: () => list('listPendingTasks', () => true),
    listClaimed: () =>
      list('listClaimedTasks', (task) => task.workerGroup === workerGroup && task.workerId === workerId),
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
