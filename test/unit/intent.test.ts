/** The first record of a task, on the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { TaskStatus } from '../../src/domain/task.ts';
import type { MappingStore, Seen } from '../../src/ports.ts';
import { createReconciler } from '../../src/reflector/reconcile.ts';
import { aTask, MINUTE, NOW, POLICY, pending, TASK_ID } from '../support/builders.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

let store: MappingStore;
beforeEach(async () => {
  const db = connect('sqlite::memory:');
  await migrate(db);
  store = createMappingStore(db);
});
afterEach(() => store.close());

/** A pass that sees these statuses, one after the other; answers what it submitted. */
async function pass(...statuses: readonly TaskStatus[]): Promise<readonly string[]> {
  const submitted: string[] = [];
  let reads = 0;
  const log = pino({ level: 'silent' });
  const queue = aQueue({
    async status(): Promise<Seen<TaskStatus>> {
      const value = statuses[Math.min(reads, statuses.length - 1)];
      reads += 1;
      return value === undefined ? { kind: 'absent' } : { kind: 'present', value };
    },
    task: async () => ({
      kind: 'present',
      value: { ...aTask([]), scopes: [], payload: { buildername: 'linux64-build' } },
    }),
  });
  const ci = aLegacyCi({
    builders: async () => new Set(['linux64-build']),
    problems: async () => [],
    collapseKey: () => null,
    async submit({ externalId }) {
      submitted.push(externalId);
      return 17;
    },
    readMany: async (ids) =>
      new Map(
        ids.map((buildRequestId) => [
          buildRequestId,
          { kind: 'present', value: { buildRequestId, builder: 'linux64-build', state: 'pending', builds: [] } },
        ]),
      ),
  });
  await createReconciler({
    ...{ queue, ci, store, clock: createManualClock(NOW), log, policy: POLICY, mode: 'normal', instance: 'test' },
    rules: { isIgnored: () => false, isRestricted: () => false },
    timing: { leaseMs: 90_000, submitGraceMs: 30_000, cancelRetryMs: 15_000 },
    ...{ reclaimThresholdMs: POLICY.reclaimThresholdMs, maxCancels: POLICY.maxCancels },
    upload: { queue, ci, log, tempDir: '/nowhere', maxLogSize: 1 },
    poke: () => undefined,
    random: () => 0.5,
  }).reconcile(TASK_ID);
  return submitted;
}

describe('an intent', () => {
  it('of a pending task leads to a build request', async () => {
    expect(await pass(aTask([pending()]))).toEqual([`${TASK_ID}/0/1`]);
    expect(await store.openMapping(TASK_ID)).toMatchObject({ state: 'submitted', buildRequestId: 17 });
  });

  it('from an old view of a task that another instance has brought to its end leads to none', async () => {
    const ended = { state: 'completed', reasonResolved: 'completed', takenUntil: NOW + MINUTE } as const;
    expect(await pass(aTask([pending()]), aTask([ended]))).toEqual([]);
    expect(await store.openMapping(TASK_ID)).toBeUndefined();
  });
});
