/** The first bridge's table as it made it, and what comes after adopting: passes over a legacy CI that is a list. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Knex } from 'knex';
import { stringify } from 'yaml';
import type { RequestView } from '../../src/domain/build.ts';
import type { LegacyCi, MappingStore, TaskQueue } from '../../src/ports.ts';
import type { Reconciler } from '../../src/reflector/reconcile.ts';
import { POLICY } from '../support/builders.ts';
import { newTaskId, type QueueFixture, ROOT_CLIENT, taskAt } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');

export interface OldRow {
  readonly buildrequestId: number | null;
  readonly taskId: string;
  readonly runId: number;
  readonly createdDate?: number | null;
  readonly processedDate?: number | null;
  /** Seconds. */
  readonly takenUntil?: number | null;
}

/** Without any of its keys, which changed over the years. */
export async function createOldTable(db: Knex): Promise<void> {
  await db.schema.createTable('tasks', (table) => {
    table.integer('buildrequestId').nullable().index();
    table.string('taskId', 32).notNullable();
    table.integer('runId').notNullable();
    table.integer('createdDate');
    table.integer('processedDate');
    table.integer('takenUntil').nullable();
  });
}

export async function addOldRows(db: Knex, rows: readonly OldRow[]): Promise<void> {
  await db('tasks').insert(
    rows.map((row) => ({ createdDate: 1_790_000_000, processedDate: 1_790_000_000, takenUntil: null, ...row })),
  );
}

/** Tasks in the emulated queue, in the states that the first bridge leaves behind. */
export function tasksOf(queue: QueueFixture) {
  const worker = { workerGroup: POLICY.workerGroup, workerId: POLICY.workerId };
  async function pending(changes: Readonly<Record<string, unknown>> = {}): Promise<string> {
    const taskId = newTaskId();
    await queue.ok('createTask', taskId, taskAt(queue.clock.now(), changes));
    return taskId;
  }
  async function claim(taskId: string, runId = 0, by = worker): Promise<void> {
    await queue.ok('claimTask', taskId, runId, by);
  }
  return {
    pending,
    claim,
    async running(by = worker): Promise<string> {
      const taskId = await pending();
      await claim(taskId, 0, by);
      return taskId;
    },
    /** As the first bridge told the queue of a RETRY: the next run is pending. */
    async retried(taskId: string, runId = 0): Promise<void> {
      await queue.ok('reportException', taskId, runId, { reason: 'malformed-payload' });
      await queue.ok('rerunTask', taskId);
    },
  };
}

export interface FakeCi {
  readonly ci: LegacyCi;
  readonly requests: Map<number, RequestView>;
  /** By external id. */
  readonly known: Map<string, number>;
  /** What was asked of it: `submit <externalId>`, `cancel <id>`. */
  readonly calls: string[];
}

/** A legacy CI that has what it is given, and does at once what it is asked. */
export function createFakeCi(builders: readonly string[]): FakeCi {
  const requests = new Map<number, RequestView>();
  const known = new Map<string, number>();
  const calls: string[] = [];
  const seen = (id: number | undefined) => {
    const value = id === undefined ? undefined : requests.get(id);
    return value === undefined ? ({ kind: 'absent' } as const) : ({ kind: 'present', value } as const);
  };
  const ci: LegacyCi = {
    check: async () => undefined,
    builders: async () => new Set(builders),
    problems: async () => [],
    collapseKey: () => null,
    async submit(spec) {
      const buildRequestId = 1000 + requests.size;
      calls.push(`submit ${spec.externalId}`);
      requests.set(buildRequestId, { buildRequestId, builder: spec.builder, state: 'pending', builds: [] });
      known.set(spec.externalId, buildRequestId);
      return buildRequestId;
    },
    findByExternalId: async ({ externalId }) => seen(known.get(externalId)),
    readMany: async (ids) => new Map(ids.map((id) => [id, seen(id)])),
    async cancel(request) {
      calls.push(`cancel ${request.buildRequestId}`);
      requests.set(request.buildRequestId, {
        ...request,
        state: 'complete',
        results: 'CANCELLED',
        cancelledBy: 'person',
      });
      return { kind: 'asked' };
    },
    outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
    watch: async () => ({ stop: async () => undefined }),
    close: async () => undefined,
  };
  return { ci, requests, known, calls };
}

/** The core itself, on the fake. */
export function reconcilerOn(
  store: MappingStore,
  queue: TaskQueue,
  ci: LegacyCi,
  clock: QueueFixture['clock'],
): Reconciler {
  return aReconciler({ store, queue, ci, clock, logs: { tempDir: tmpdir(), maxLogSize: 1e6 } });
}

export interface Ran {
  readonly code: number;
  readonly lines: readonly string[];
  readonly errors: string;
}

/** `bbb migrate` in a process of its own, with a configuration file unless there is to be none. */
export async function runMigrate(
  args: readonly string[],
  { config, env = {} }: { config?: object; env?: Record<string, string> },
): Promise<Ran> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-adopt-'));
  const file = path.join(folder, 'bridge.yml');
  try {
    if (config) {
      writeFileSync(file, stringify(config));
    }
    const all = [CLI, 'migrate', ...args, ...(config ? ['--config', file] : [])];
    return await new Promise((resolve) => {
      execFile(
        process.execPath,
        all,
        { env: { ...process.env, NODE_OPTIONS: '', ...env } },
        (error, stdout, stderr) => {
          const code = error === null ? 0 : Number(error.code);
          resolve({ code, lines: stdout.split('\n').filter((line) => line !== ''), errors: stderr });
        },
      );
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A whole configuration; only the queue and the database are there. */
export function configOf(rootUrl: string, databaseUrl: string, more: object = {}): object {
  const { clientId, accessToken } = ROOT_CLIENT;
  return {
    taskcluster: { rootUrl, credentials: { clientId, accessToken } },
    pulse: { url: 'amqp://nobody:nothing@127.0.0.1:1/', namespace: 'nobody' },
    database: { url: databaseUrl },
    legacyCi: { kind: 'scheduler-db', schedulerDb: { url: 'mysql://u:p@127.0.0.1:1/buildbot' } },
    ...more,
  };
}
