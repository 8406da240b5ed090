/**
 * Everything a scenario needs: a real RabbitMQ, a real database, a legacy CI, an emulated queue that publishes to the
 * real RabbitMQ, and the daemon in a process of its own.
 */
import slugid from 'slugid';
import taskcluster, { type Queue } from 'taskcluster-client';
import { systemClock } from '../../src/clock.ts';
import { createFaults, type Faults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator, type QueueEmulator, type TaskView } from '../../src/sandbox/queue/emulator.ts';
import { type Daemon, startDaemon } from './daemon.ts';
import { eventually } from './eventually.ts';
import { startDataApiSide } from './legacy/data-api.ts';
import type { LegacyCast, LegacySide } from './legacy/legacy-side.ts';
import { startPulsePublisher } from './pulse-publisher.ts';
import { mariadb, rabbitmq } from './services/index.ts';

/** What a scenario asks for of a task. */
export interface TaskWish {
  readonly builder?: string;
  readonly payload?: unknown;
  readonly properties?: Record<string, unknown>;
  readonly dependencies?: readonly string[];
  readonly taskQueueId?: string;
  readonly scopes?: readonly string[];
  readonly retries?: number;
  readonly priority?: string;
  readonly deadlineInMs?: number;
  readonly revision?: string;
}

export interface World {
  readonly queue: QueueEmulator;
  readonly faults: Faults;
  /** The queue as a person or a scheduler uses it, with all scopes. */
  readonly client: Queue;
  readonly legacy: LegacySide;
  daemon: Daemon;
  /** Starts the daemon (again). */
  startDaemon(): Promise<void>;
  createTask(wish: TaskWish): Promise<string>;
  /** Waits until the task's last run has this state and, if given, this reason; answers the task. */
  resolved(taskId: string, state: string, reason?: string): Promise<TaskView>;
  until(what: string, check: () => Promise<unknown> | unknown, timeoutMs?: number): Promise<void>;
  task(taskId: string): TaskView;
  /** The states and reasons of the task's runs, such as `exception/worker-shutdown`. */
  runs(taskId: string): string[];
  /** An artifact of a run as text; throws when there is none. */
  artifact(taskId: string, runId: number, name: string): string;
  /** The names of a run's artifacts, sorted. */
  artifactNames(taskId: string, runId: number): string[];
  stop(): Promise<void>;
}

export interface WorldOptions {
  readonly services?: readonly string[];
  readonly claimTimeoutMs?: number;
  /** Starts the legacy CI; a Buildbot 3.7 with default settings unless given. */
  readonly legacy?: (cast: LegacyCast) => Promise<LegacySide>;
  /** Merged into the daemon's configuration. */
  readonly config?: Record<string, unknown>;
}

export const ROOT = { clientId: 'root', accessToken: 'root-access-token-for-tests', scopes: ['*'] };
const SCHEDULER = 'test-sched';
/** No more than the bridge needs: a scope that is missing from the documentation is missing here. */
export const BRIDGE_SCOPES = [
  'queue:claim-task:buildbot/bridge',
  'queue:worker-id:buildbot-bridge/buildbot-bridge',
  'queue:reclaim-task:*',
  'queue:resolve-task:*',
  'queue:create-artifact:*',
  'queue:get-task:*',
  'queue:status:*',
  'queue:pending-list:buildbot/bridge',
  'queue:claimed-list:buildbot/bridge',
  `queue:cancel-task:${SCHEDULER}/*`,
  `queue:rerun-task:${SCHEDULER}/*`,
];
export const BRIDGE = { clientId: 'bridge', accessToken: 'bridge-access-token-for-tests', scopes: BRIDGE_SCOPES };
export const EXCHANGES = [
  ...['task-defined', 'task-pending', 'task-running', 'task-completed', 'task-failed', 'task-exception'],
  ...['task-group-resolved', 'task-group-sealed', 'artifact-created'],
  ...['task-priority-changed', 'task-group-priority-changed'],
].map((name) => `exchange/taskcluster-queue/v1/${name}`);

export async function startWorld(options: WorldOptions = {}): Promise<World> {
  // Of its own, so that worlds can stand side by side.
  const rabbit = await rabbitmq().createVhost();
  const pulse = await startPulsePublisher(rabbit.adminUrl, EXCHANGES);
  const database = await mariadb().createDatabase();
  const hasListener = options.services?.includes('legacy-listener') ?? true;
  const legacy = await (options.legacy ?? startDataApiSide)({ hasListener, pulseUrl: rabbit.adminUrl });
  const faults = createFaults();
  const queue = createQueueEmulator({
    clock: systemClock,
    clients: [ROOT, BRIDGE],
    faults,
    claimTimeoutMs: options.claimTimeoutMs ?? 20 * 60_000,
    deadlineDelayMs: 500,
    resolutionDelayMs: 500,
    publish: pulse.publish,
  });
  await queue.start();
  const client = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT });
  const config = {
    taskcluster: {
      rootUrl: queue.rootUrl,
      credentials: { clientId: BRIDGE.clientId, accessToken: BRIDGE.accessToken },
    },
    pulse: { url: rabbit.url, namespace: 'bridge' },
    database: { url: database.url },
    legacyCi: legacy.config,
    builders: { ignored: ['^ignored-'], restricted: ['^release-.*$'] },
    reflector: { schedule: '* * * * * *', recheck: '1s', reclaimThreshold: '10m' },
    bridge: { lease: '6s' },
    http: { port: 0 },
    log: { level: 'debug' },
    ...options.config,
  };

  const world: World = {
    queue,
    faults,
    client,
    legacy,
    daemon: await startDaemon(config, options.services),
    async startDaemon() {
      world.daemon = await startDaemon(config, options.services);
    },
    async createTask(wish) {
      const taskId = slugid.nice();
      await client.createTask(taskId, taskDefinition(wish));
      return taskId;
    },
    async resolved(taskId, state, reason) {
      await world.until(`task ${taskId} to be ${state}${reason ? `/${reason}` : ''}`, () => {
        const run = world.task(taskId).status.runs.at(-1);
        return run?.state === state && (reason === undefined || run.reasonResolved === reason);
      });
      return world.task(taskId);
    },
    async until(what, check, timeoutMs = 60_000) {
      try {
        await eventually(async () => Boolean(await check()), { timeoutMs, intervalMs: 50, what });
      } catch (error) {
        const tail = world.daemon.lines.slice(-40).map((line) => JSON.stringify(line));
        throw new Error(`waited in vain for ${what}; the daemon's log ends:\n${tail.join('\n')}`, { cause: error });
      }
    },
    task(taskId) {
      const task = queue.tasks.get(taskId);
      if (task === undefined) {
        throw new Error(`no task ${taskId}`);
      }
      return task;
    },
    runs: (taskId) =>
      world
        .task(taskId)
        .status.runs.map((run) => (run.reasonResolved ? `${run.state}/${run.reasonResolved}` : run.state)),
    artifact(taskId, runId, name) {
      const found = world.task(taskId).artifacts.find((artifact) => artifact.runId === runId && artifact.name === name);
      const content = found?.content();
      if (content === undefined) {
        throw new Error(`run ${runId} of ${taskId} has no content for ${name}: ${JSON.stringify(found)}`);
      }
      return content.toString('utf8');
    },
    artifactNames: (taskId, runId) =>
      world
        .task(taskId)
        .artifacts.filter((artifact) => artifact.runId === runId)
        .map(({ name }) => name)
        .sort(),
    async stop() {
      await world.daemon.stop();
      await queue.stop();
      await legacy.stop();
      await database.drop();
      await pulse.close();
      await rabbit.drop();
    },
  };
  return world;
}

/** What a scheduler would submit. */
export function taskDefinition(wish: TaskWish): object {
  const now = Date.now();
  const at = (ms: number) => new Date(now + ms).toISOString();
  return {
    taskQueueId: wish.taskQueueId ?? 'buildbot/bridge',
    schedulerId: SCHEDULER,
    priority: wish.priority ?? 'low',
    retries: wish.retries ?? 5,
    created: at(0),
    deadline: at(wish.deadlineInMs ?? 3_600_000),
    expires: at(7_200_000),
    dependencies: wish.dependencies ?? [],
    scopes: wish.scopes ?? [],
    payload: wish.payload ?? {
      buildername: wish.builder ?? 'success',
      sourcestamp: { branch: 'https://hg.example.com/integration/main/', revision: wish.revision ?? slugid.nice() },
      properties: { product: 'widget', ...wish.properties },
    },
    metadata: { name: 'a test', description: 'a test', owner: 'test@example.com', source: 'https://example.com/test' },
  };
}
