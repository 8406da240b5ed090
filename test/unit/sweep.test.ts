/** What a sweep does about mappings that it finds nothing to do about, on the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import type { RequestView } from '../../src/domain/build.ts';
import { LegacyCiError } from '../../src/errors.ts';
import type { MappingStore, Seen } from '../../src/ports.ts';
import { sweep } from '../../src/reflector/sweep.ts';
import { aRequest, aTask, MINUTE, NOW, pending } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock, type ManualClock, newTaskId } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const AWAY = new LegacyCiError('legacy-ci-unavailable', 'Buildbot is away', { isTransient: true });

let store: MappingStore;
let clock: ManualClock;
let request: Seen<RequestView>;
beforeEach(async () => {
  clock = createManualClock(NOW);
  store = await openMemoryStore();
});
afterEach(() => store.close());

async function aMapping(state: 'submitted'): Promise<string> {
  const taskId = newTaskId();
  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', externalId: `${taskId}/0/1`, takenUntil: null },
      ...{ state: 'intended', submissions: 1, collapseKey: null, hasSlot: false, priority: 2 },
      deadline: NOW + 600 * MINUTE,
    },
    { owner: 'test', leaseUntil: NOW, now: NOW },
  );
  if (stored.kind === 'stored') {
    await store.release(
      stored.mapping,
      { state, buildRequestId: 17, attempts: 3, lastError: 'as it was', nextCheckAt: NOW },
      NOW,
    );
  }
  return taskId;
}

async function sweepOnce(): Promise<void> {
  clock.advance(2 * MINUTE);
  const queue = aQueue({
    statuses: async (taskIds) =>
      new Map(
        taskIds.map((taskId) => [
          taskId,
          { kind: 'present', value: { ...aTask([pending()], { deadline: NOW + 600 * MINUTE }), taskId } },
        ]),
      ),
  });
  const ci = aLegacyCi({ readMany: async (ids) => new Map(ids.map((id) => [id, request])) });
  const reconciler = aReconciler({ queue, ci, store, clock });
  const limits = { leaseMs: 90_000, recheckMs: MINUTE, batchSize: 100, concurrency: 1 };
  const log = pino({ level: 'silent' });
  await sweep({ store, queue, ci, clock, log, reconciler, instance: 'test', ...limits }, new AbortController().signal);
}

describe('a sweep', () => {
  it('keeps what is wrong with a task of which it could not find out anything', async () => {
    const taskId = await aMapping('submitted');
    request = { kind: 'unreadable', error: AWAY };
    await sweepOnce();
    expect(await store.openMapping(taskId)).toMatchObject({ attempts: 4, lastError: 'Buildbot is away' });
    for (let round = 0; round < 40; round += 1) {
      await sweepOnce();
    }
    // As many as an operator is told of, and not so many that an upload would be given up at its first try.
    expect(await store.openMapping(taskId)).toMatchObject({ attempts: 5 });
  });

  it('forgets what was wrong when all is well', async () => {
    const taskId = await aMapping('submitted');
    request = { kind: 'present', value: aRequest({ buildRequestId: 17 }) };
    await sweepOnce();
    expect(await store.openMapping(taskId)).toMatchObject({ attempts: 0, lastError: null });
  });
});
