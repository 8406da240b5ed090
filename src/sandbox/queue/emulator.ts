/**
 * An emulated Taskcluster queue (and the little of auth that a worker needs): the same HTTP API on 127.0.0.1, the same
 * Pulse messages, nothing kept beyond `stop()`.
 */
import { readFileSync } from 'node:fs';
import { type FastifyInstance, fastify } from 'fastify';
import { systemClock } from '../../clock.ts';
import type { Clock } from '../../ports.ts';
import type { Faults } from '../faults.ts';
import { type ApiOptions, registerService } from './api.ts';
import { createArtifactStore, type StoredArtifact } from './artifacts.ts';
import { type Client, createAuth } from './auth.ts';
import { createBlobStore } from './blobs.ts';
import type { Context } from './call.ts';
import { registerHttpFaults } from './http-faults.ts';
import type { QueueMessage } from './messages.ts';
import { createPublisher } from './publisher.ts';
import { followResolutions, resolveAllDue } from './resolvers.ts';
import { artifactHandlers } from './routes-artifacts.ts';
import { authHandlers } from './routes-auth.ts';
import { groupHandlers } from './routes-groups.ts';
import { registerBucket } from './routes-s3.ts';
import { taskHandlers } from './routes-tasks.ts';
import { workerHandlers } from './routes-worker.ts';
import type { Roles } from './scopes.ts';
import { createState, type StatusStructure, statusOf } from './state.ts';
import type { TaskDefinition } from './task-input.ts';

/** Durations are milliseconds. */
export interface QueueEmulatorOptions {
  readonly clock: Clock;
  /** A free one if absent. */
  readonly port?: number;
  readonly clients: readonly Client[];
  /** Role id to scopes; `anonymous` is what everybody has: to read public artifacts, if absent. */
  readonly roles?: Roles;
  readonly faults: Faults;
  publish(message: QueueMessage): void | Promise<void>;
  readonly claimTimeoutMs?: number;
  /** How long after its deadline a task is resolved. */
  readonly deadlineDelayMs?: number;
  /** How long after a task's resolution tasks that wait for it are released, and its group is announced: 5 s or less. */
  readonly resolutionDelayMs?: number;
  /** How often `tick` runs by itself; 0: never. Without it: often if the clock is the machine's, else never. */
  readonly tickIntervalMs?: number;
  /** How long a call waits for each message that `publish` fails to carry. */
  readonly pulseDelayMs?: number;
}

/** An artifact for tests to look at. */
export interface ArtifactView extends StoredArtifact {
  /** What was uploaded, as it was uploaded; undefined where nothing was. */
  content(): Buffer | undefined;
}

/** A task as it is at the moment of looking. */
export interface TaskView {
  readonly taskId: string;
  readonly definition: TaskDefinition;
  readonly status: StatusStructure;
  /** Of all runs. */
  readonly artifacts: readonly ArtifactView[];
}

/** The emulator, from `start()` to `stop()`. Calls before `start()` are not answered. */
export interface QueueEmulator {
  /** For clients; known once started. */
  readonly rootUrl: string;
  start(): Promise<void>;
  /** Cuts all connections and removes artifact contents. */
  stop(): Promise<void>;
  /** Resolves claims and deadlines that are due by the clock. */
  tick(): void;
  /** Resolves when all that has happened so far has been published. */
  published(): Promise<void>;
  readonly tasks: { get(taskId: string): TaskView | undefined; list(): readonly TaskView[] };
  /** Gives a client other scopes from now on. Throws for a client that is not configured. */
  setScopes(clientId: string, scopes: readonly string[]): void;
}

const CLAIM_TIMEOUT_MS = 20 * 60_000;
const DEADLINE_DELAY_MS = 60_000;
const TICK_INTERVAL_MS = 250;
const PULSE_DELAY_MS = 30_000;
const DEFAULT_ROLES: Roles = { anonymous: ['queue:get-artifact:public/*', 'queue:list-artifacts:*'] };

function createContext(options: QueueEmulatorOptions, rootUrl: () => string): Context {
  const { claimTimeoutMs = CLAIM_TIMEOUT_MS, deadlineDelayMs = DEADLINE_DELAY_MS, resolutionDelayMs = 0 } = options;
  const state = createState({ claimTimeoutMs, deadlineDelayMs, resolutionDelayMs });
  const auth = createAuth({
    clients: options.clients,
    roles: options.roles ?? DEFAULT_ROLES,
    taskScopes: (taskId) => state.tasks.get(taskId)?.definition.scopes ?? [],
    now: () => options.clock.now(),
  });
  return { state, artifacts: createArtifactStore(), blobs: createBlobStore(), auth, rootUrl };
}

function createTasksView({ state, artifacts, blobs }: Context): QueueEmulator['tasks'] {
  function content({ details }: StoredArtifact): Buffer | undefined {
    const blob = details.storageType === 's3' ? blobs.get(`${details.bucket}/${details.prefix}`) : undefined;
    return blob && readFileSync(blob.path);
  }
  function get(taskId: string): TaskView | undefined {
    const task = state.tasks.get(taskId);
    return (
      task && {
        taskId,
        definition: task.definition,
        status: statusOf(task),
        artifacts: artifacts.list(taskId).map((artifact) => ({ ...artifact, content: () => content(artifact) })),
      }
    );
  }
  return { get, list: () => [...state.tasks.keys()].flatMap((taskId) => get(taskId) ?? []) };
}

/** The HTTP server, not yet listening. */
function createServer(
  options: QueueEmulatorOptions,
  context: Context,
  afterCall: ApiOptions['afterCall'],
  stopping: AbortSignal,
): FastifyInstance {
  const { clock, faults } = options;
  const app = fastify({ forceCloseConnections: true, routerOptions: { maxParamLength: 2048 } });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'Not found' }));
  registerHttpFaults(app, { faults, clock, stopping });
  app.register(async (api) => {
    api.removeAllContentTypeParsers();
    api.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    const apiOptions = { context, now: () => clock.now(), afterCall };
    const alive = { ping: () => ({ alive: true, uptime: process.uptime() }) };
    const handlers = { ...taskHandlers(context), ...groupHandlers(context), ...workerHandlers(context) };
    registerService(api, 'Queue', { ...alive, ...handlers, ...artifactHandlers(context) }, apiOptions);
    registerService(api, 'Auth', { ...alive, ...authHandlers(context) }, apiOptions);
  });
  app.register(async (bucket) => registerBucket(bucket, context.blobs, clock));
  return app;
}

/**
 * Makes an emulated queue without tasks; call `start()`.
 * `publish` must not wait for calls to this same queue: calls are answered when their messages are published.
 */
export function createQueueEmulator(options: QueueEmulatorOptions): QueueEmulator {
  const { clock, tickIntervalMs = clock === systemClock ? TICK_INTERVAL_MS : 0 } = options;
  let rootUrl = '';
  let timer: NodeJS.Timeout | undefined;
  const stopping = new AbortController();
  const context = createContext(options, () => rootUrl);
  const publisher = createPublisher(options);
  const flush = () => publisher.flush(context.state.outbox);
  const app = createServer(options, context, afterCall, stopping.signal);

  async function afterCall(): Promise<readonly QueueMessage[]> {
    const lost = await flush();
    // Nobody waits for these, nor for their messages, except that without a delay tests see them at once.
    followResolutions(context.state, clock.now());
    await flush();
    const wait = lost.length * (options.pulseDelayMs ?? PULSE_DELAY_MS);
    if (wait > 0) {
      await clock.sleep(wait, stopping.signal);
    }
    return lost;
  }

  function tick(): void {
    resolveAllDue(context.state, clock.now());
    void flush();
  }

  return {
    get rootUrl() {
      return rootUrl;
    },
    async start() {
      await context.blobs.open();
      rootUrl = await app.listen({ host: '127.0.0.1', port: options.port ?? 0 });
      if (tickIntervalMs > 0) {
        timer = setInterval(tick, tickIntervalMs);
        timer.unref();
      }
    },
    async stop() {
      clearInterval(timer);
      stopping.abort();
      publisher.stop();
      await app.close();
      await context.blobs.close();
    },
    tick,
    async published() {
      await flush();
    },
    tasks: createTasksView(context),
    setScopes: (clientId, scopes) => context.auth.setScopes(clientId, scopes),
  };
}
