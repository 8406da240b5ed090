/** A RETRY whose upload took very long: by then its request may be over, and what it came to is told at once. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import type { RequestView } from '../../src/domain/build.ts';
import type { TaskRun } from '../../src/domain/task.ts';
import type { MappingStore } from '../../src/ports.ts';
import {
  aBuild,
  aRequest,
  aTask,
  exception,
  NOW,
  ours,
  pending,
  requestComplete,
  TASK_ID,
} from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

let store: MappingStore;
beforeEach(async () => {
  store = await openMemoryStore();
});
afterEach(() => store.close());

it('the run after it is not left to the next look by what was seen before the upload', async () => {
  const clock = createManualClock(NOW);
  let runs: Partial<TaskRun>[] = [ours()];
  let request: RequestView = aRequest({ builds: [aBuild('RETRY')] });
  const resolved: string[] = [];
  const status = () => aTask(runs);
  const queue = aQueue({
    status: async () => ({ kind: 'present', value: status() }),
    async claim(_taskId, runId) {
      runs = runs.map((run, at) => (at === runId ? ours() : run));
      return status();
    },
    async resolve(_taskId, runId, resolution) {
      const reason = resolution.state === 'exception' ? resolution.reason : resolution.state;
      resolved.push(`${runId} ${reason}`);
      runs = runs.map((run, at) => (at === runId ? exception(reason) : run));
      runs = reason === 'worker-shutdown' ? [...runs, pending()] : runs;
      return status();
    },
    async putArtifact() {
      // The first upload hangs for as long as the next build takes.
      request = requestComplete('FAILURE', aBuild('RETRY'), aBuild('RETRY'), aBuild('FAILURE'));
    },
  });
  const ci = aLegacyCi({
    readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: request }])),
    outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
  });
  const given = {
    ...{ taskId: TASK_ID, runId: 0, taskGroupId: TASK_ID, builder: 'b', state: 'intended' as const },
    ...{ externalId: `${TASK_ID}/0/1`, submissions: 1, collapseKey: null, hasSlot: false, priority: 3 },
    ...{ deadline: status().deadline, takenUntil: ours().takenUntil ?? null },
  };
  const stored = await store.insert(given, { owner: 'x', leaseUntil: NOW, now: NOW });
  if (stored.kind !== 'stored') {
    throw new Error(stored.kind);
  }
  await store.release(stored.mapping, { state: 'submitted', buildRequestId: request.buildRequestId }, NOW);
  clock.advance(1000);
  await aReconciler({ queue, ci, store, clock }).reconcile(TASK_ID);
  expect(resolved).toEqual(['0 worker-shutdown', '1 failed']);
});
