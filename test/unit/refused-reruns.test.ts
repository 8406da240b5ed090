/** Buildbot builds a task's request again, and the queue makes no more runs of it. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { QueueError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';
import {
  aBuild,
  aRequest,
  aTask,
  exception,
  MINUTE,
  NOW,
  POLICY,
  requestBuilding,
  TASK_ID,
} from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

let store: MappingStore;
beforeEach(async () => {
  store = await openMemoryStore();
  const { buildRequestId } = aRequest();
  await store.adopt(
    {
      ...{ taskId: TASK_ID, runId: 0, taskGroupId: TASK_ID, builder: 'linux64-build', state: 'submitted' },
      ...{ externalId: `${TASK_ID}/0/1`, submissions: 1, collapseKey: null, hasSlot: false, priority: 0 },
      ...{ deadline: NOW + 600 * MINUTE, takenUntil: null, buildRequestId, retriesReported: 0 },
    },
    NOW,
  );
});
afterEach(() => store.close());

const LOST = aTask([exception('worker-shutdown')]);

/**
 * A pass that finds the run resolved for a RETRY, and no retries left, and then this; answers what it asked for.
 * @param looks how often it finds that before; after the last time it sleeps until its lease is over, if it was a second one
 */
async function pass(refusal: QueueError, since = LOST, looks = 1): Promise<readonly string[]> {
  const asked: string[] = [];
  const clock = createManualClock(NOW);
  const statuses = Array.from({ length: looks }, () => LOST);
  const queue = aQueue({
    async status() {
      if (looks > 1 && statuses.length === 1) {
        clock.advance(5 * MINUTE);
      }
      return { kind: 'present', value: statuses.shift() ?? since };
    },
    async rerunTask() {
      asked.push('rerunTask');
      throw refusal;
    },
  });
  const ci = aLegacyCi({
    readMany: async (ids) =>
      new Map(ids.map((id) => [id, { kind: 'present', value: requestBuilding(aBuild('RETRY')) }])),
    async cancel() {
      asked.push('cancel');
      return { kind: 'asked' };
    },
  });
  await aReconciler({ queue, ci, store, clock }).reconcile(TASK_ID);
  return asked;
}

describe('a rerun that the queue refuses', () => {
  it('for good is asked for a few times, and then the build that nobody wants is stopped', async () => {
    const asked: string[] = [];
    for (let passes = 0; passes < POLICY.maxReruns && !asked.includes('cancel'); passes += 1) {
      asked.push(...(await pass(new QueueError('queue-conflict', 'Maximum number of runs reached (50).'))));
    }
    expect(asked.filter((what) => what === 'rerunTask').length).toBeLessThanOrEqual(POLICY.maxReruns);
    expect(asked.at(-1)).toBe('cancel');
    expect((await store.openMapping(TASK_ID))?.state).toBe('cancelling');
  });

  it('is not asked for where a person has asked for a run since, and cancelled it', async () => {
    const since = aTask([exception('worker-shutdown'), exception('canceled')]);
    expect(await pass(new QueueError('queue-conflict', 'none is expected'), since)).toEqual(['cancel']);
  });

  it('is not asked for either where the bridge slept since it looked', async () => {
    const since = aTask([exception('worker-shutdown'), exception('canceled')]);
    expect(await pass(new QueueError('queue-conflict', 'none is expected'), since, 2)).toEqual(['cancel']);
  });

  it('for want of rights uses nothing up', async () => {
    expect(await pass(new QueueError('queue-forbidden', 'no rights'))).toEqual(['rerunTask']);
    expect((await store.openMapping(TASK_ID))?.reruns).toBe(0);
  });
});
