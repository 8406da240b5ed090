/** Claims of mappings that are looked at more seldom than claims have to be renewed, on the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import { LegacyCiError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';
import { sweep } from '../../src/reflector/sweep.ts';
import { aTask, MINUTE, NOW, ours, POLICY, requestBuilding } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock, type ManualClock, newTaskId } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const AWAY = new LegacyCiError('legacy-ci-unavailable', 'Buildbot is away', { isTransient: true });
const CLAIM_MS = 20 * MINUTE;
/** As often as an operator may want it at the least. */
const policy = { ...POLICY, recheckMs: 54 * MINUTE };
const KEY = 'b revision';

let store: MappingStore;
let clock: ManualClock;
/** When the claims of all tasks end. */
let takenUntil: number;
let reclaims: number;
let isAway: boolean;
beforeEach(async () => {
  store = await openMemoryStore();
  clock = createManualClock(NOW);
  takenUntil = NOW + CLAIM_MS;
  reclaims = 0;
  isAway = false;
});
afterEach(() => store.close());

async function aClaimed(state: 'submitted' | 'held'): Promise<void> {
  const taskId = newTaskId();
  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', externalId: `${taskId}/0/1`, takenUntil },
      ...{ state, submissions: 1, collapseKey: KEY, hasSlot: false, priority: 2, deadline: NOW + 600 * MINUTE },
    },
    { owner: 'test', leaseUntil: NOW, now: NOW },
  );
  if (stored.kind === 'stored') {
    const request = state === 'submitted' ? { buildRequestId: 17 } : {};
    await store.release(stored.mapping, { ...request, reclaimAt: NOW + 10 * MINUTE, nextCheckAt: NOW }, NOW);
  }
}

/** It has the one place of the key, and is not looked at. */
async function anUnclaimed(): Promise<void> {
  const taskId = newTaskId();
  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', externalId: `${taskId}/0/1`, takenUntil: null },
      ...{ state: 'intended', submissions: 1, collapseKey: KEY, hasSlot: true, priority: 2 },
      deadline: NOW + 600 * MINUTE,
    },
    { owner: 'test', leaseUntil: NOW, now: NOW },
  );
  if (stored.kind === 'stored') {
    await store.release(stored.mapping, { nextCheckAt: NOW + 6000 * MINUTE }, NOW);
  }
}

async function sweepOnce(): Promise<void> {
  const status = () => aTask([ours(takenUntil)], { deadline: NOW + 600 * MINUTE });
  const queue = aQueue({
    status: async (taskId) => ({ kind: 'present', value: { ...status(), taskId } }),
    statuses: async (taskIds) =>
      new Map(taskIds.map((taskId) => [taskId, { kind: 'present', value: { ...status(), taskId } }])),
    async reclaim() {
      reclaims += 1;
      takenUntil = clock.now() + CLAIM_MS;
      return { takenUntil };
    },
  });
  const ci = aLegacyCi({
    readMany: async (ids) =>
      new Map(
        ids.map((id) => [
          id,
          isAway
            ? { kind: 'unreadable', error: AWAY }
            : { kind: 'present', value: { ...requestBuilding(), buildRequestId: id } },
        ]),
      ),
  });
  const log = pino({ level: 'silent' });
  const { recheckMs, reclaimThresholdMs } = policy;
  await sweep(
    {
      ...{ store, queue, ci, clock, log, reconciler: aReconciler({ queue, ci, store, clock, log, policy }) },
      ...{ instance: 'test', leaseMs: 90_000, recheckMs, reclaimThresholdMs, batchSize: 100, concurrency: 1 },
    },
    new AbortController().signal,
  );
}

/** A sweep a minute until the claim would be over. */
async function sweepUntilClaimEnds(): Promise<void> {
  for (const end = takenUntil; clock.now() < end; clock.advance(MINUTE)) {
    await sweepOnce();
  }
}

describe('a claim is renewed in time, however seldom the mapping is looked at', () => {
  it('where the build goes on', async () => {
    await aClaimed('submitted');
    await sweepUntilClaimEnds();
    expect(reclaims).toBe(1);
  });

  it('where one sweep could not read Buildbot', async () => {
    await aClaimed('submitted');
    isAway = true;
    await sweepOnce();
    isAway = false;
    await sweepUntilClaimEnds();
    expect(reclaims).toBe(1);
  });

  it('where the run waits for its turn to be built again', async () => {
    await anUnclaimed();
    await aClaimed('held');
    await sweepUntilClaimEnds();
    expect(reclaims).toBe(1);
  });

  it('where it waits behind another that waits', async () => {
    await anUnclaimed();
    await aClaimed('held');
    await aClaimed('held');
    await sweepUntilClaimEnds();
    expect(reclaims).toBe(2);
  });
});
