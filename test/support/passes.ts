/** Passes of the bridge over tasks of an emulated queue, on the real mapping store, with a legacy CI made up by the test. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { RequestView } from '../../src/domain/build.ts';
import type { LegacyCi, MappingStore, TaskQueue } from '../../src/ports.ts';
import type { Reconciler } from '../../src/reflector/reconcile.ts';
import { aRequest, MINUTE } from './builders.ts';
import { clientOf } from './queue-client.ts';
import { newTaskId, type QueueFixture, startQueue, taskAt } from './queue-emulator.ts';
import { aReconciler } from './reconciler.ts';
import { aLegacyCi } from './stubs.ts';

export interface Passes {
  readonly queue: QueueFixture;
  readonly store: MappingStore;
  readonly reconciler: Reconciler;
  /** Another one, on a store of its own. */
  reconcilerOn(store: MappingStore): Reconciler;
  /** What Buildbot shows of every request. */
  request: RequestView;
  /** How many requests were made. */
  submitted: number;
  /** A pending task. */
  create(changes?: Readonly<Record<string, unknown>>): Promise<string>;
  stop(): Promise<void>;
}

/**
 * @param ci what of the legacy CI is not as usual
 * @param queueCalls what of the queue's client is not
 */
export async function startPasses(
  options: Parameters<typeof startQueue>[0] = {},
  ci: Partial<LegacyCi> = {},
  queueCalls: Partial<TaskQueue> = {},
): Promise<Passes> {
  const queue = await startQueue(options);
  const db = connect('sqlite::memory:');
  await migrate(db);
  const store = createMappingStore(db);
  const tempDir = mkdtempSync(path.join(tmpdir(), 'bbb-passes-'));
  const { clock } = queue;
  const client = { ...clientOf(queue.emulator.rootUrl, { clock, retries: 0 }), ...queueCalls };
  const legacyCi = aLegacyCi({
    builders: async (wanted) => new Set([wanted]),
    problems: async () => [],
    collapseKey: () => null,
    submit: async () => {
      passes.submitted += 1;
      return passes.request.buildRequestId;
    },
    readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: passes.request }])),
    outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
    ...ci,
  });
  const reconcilerOn = (its: MappingStore) =>
    aReconciler({ queue: client, ci: legacyCi, store: its, clock, logs: { tempDir, maxLogSize: 1_000_000 } });
  const passes: Passes = {
    queue,
    store,
    reconciler: reconcilerOn(store),
    reconcilerOn,
    request: aRequest(),
    submitted: 0,
    async create(changes = {}) {
      const taskId = newTaskId();
      const deadline = new Date(clock.now() + 600 * MINUTE).toJSON();
      await queue.ok('createTask', taskId, taskAt(clock.now(), { deadline, ...changes }));
      return taskId;
    },
    async stop() {
      await queue.stop();
      await store.close();
      rmSync(tempDir, { recursive: true, force: true });
    },
  };
  return passes;
}
