/** What was read before and is old by now, on the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { RequestView } from '../../src/domain/build.ts';
import type { TaskStatus } from '../../src/domain/task.ts';
import type { MappingStore, Seen } from '../../src/ports.ts';
import {
  aBuild,
  aRequest,
  aTask,
  exception,
  MINUTE,
  NOW,
  ours,
  POLICY,
  pending,
  requestBuilding,
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

/**
 * A pass that sees these statuses, one after the other, and this request; answers what it did.
 * @param sleepsAt after how many of them it sleeps until its lease is over
 */
async function pass(
  statuses: readonly TaskStatus[],
  request: RequestView = aRequest(),
  sleepsAt = 0,
): Promise<readonly string[]> {
  const done: string[] = [];
  const left = [...statuses];
  const clock = createManualClock(NOW);
  const read = (): TaskStatus => {
    if (statuses.length - left.length + 1 === sleepsAt) {
      clock.advance(5 * MINUTE);
    }
    return (left.length > 1 ? left.shift() : left[0]) ?? aTask([]);
  };
  const queue = aQueue({
    status: async (): Promise<Seen<TaskStatus>> => ({ kind: 'present', value: read() }),
    task: async () => ({
      kind: 'present',
      value: { ...aTask([]), scopes: [], payload: { buildername: 'linux64-build' } },
    }),
    async cancelTask() {
      done.push('cancelTask');
      left.splice(0, left.length, aTask([exception('canceled')]));
      return aTask([exception('canceled')]);
    },
    putArtifact: async (_taskId, _runId, { name }) => void done.push(name),
  });
  const ci = aLegacyCi({
    builders: async () => new Set(['linux64-build']),
    problems: async () => [],
    collapseKey: () => null,
    async submit({ externalId }) {
      done.push(`submit ${externalId}`);
      return 17;
    },
    readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: request }])),
    outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
  });
  await aReconciler({ queue, ci, store, clock }).reconcile(TASK_ID);
  return done;
}

describe('an intent', () => {
  it('of a pending task leads to a build request', async () => {
    expect(await pass([aTask([pending()])])).toEqual([`submit ${TASK_ID}/0/1`]);
    expect(await store.openMapping(TASK_ID)).toMatchObject({ state: 'submitted', buildRequestId: 17 });
  });

  it('from an old view of a task that another instance has brought to its end leads to none', async () => {
    const ended = { state: 'completed', reasonResolved: 'completed' } as const;
    expect(await pass([aTask([pending()]), aTask([ended])])).toEqual([]);
    expect(await store.openMapping(TASK_ID)).toBeUndefined();
  });
});

describe('a build request that a person cancelled', () => {
  const cancelled = requestComplete('CANCELLED');

  it('cancels its task', async () => {
    await pass([aTask([pending()])]);
    expect(await pass([aTask([pending()])], cancelled)).toEqual(['cancelTask']);
  });

  it('uploads first what there is if a claim of the run takes effect late', async () => {
    await pass([aTask([pending()])]);
    const done = await pass([aTask([pending()]), aTask([ours()])], cancelled);
    expect(done.slice(0, -1)).toContain('public/buildbot/status.json');
    expect(done.at(-1)).toBe('cancelTask');
  });

  it('does not cancel the run that a person has asked for since', async () => {
    await pass([aTask([pending()])]);
    const rerun = aTask([exception('canceled'), pending()]);
    expect(await pass([aTask([pending()]), rerun], cancelled)).toEqual([`submit ${TASK_ID}/1/1`]);
    expect(await store.openMapping(TASK_ID)).toMatchObject({ runId: 1, state: 'submitted' });
    expect((await store.eventsOf(TASK_ID)).map(({ what }) => what)).not.toContain('cancelTask');
  });

  it('does not cancel it either where it slept between its look and the cancel', async () => {
    await pass([aTask([pending()])]);
    const before = aTask([pending()]);
    const rerun = aTask([exception('canceled'), pending()]);
    expect(await pass([before, before, rerun], cancelled, 2)).toEqual([`submit ${TASK_ID}/1/1`]);
  });
});

describe('a pass that slept until its lease was over', () => {
  it('reads again before it believes that a request is gone', async () => {
    await pass([aTask([pending()])]);
    const clock = createManualClock(NOW + 1);
    const task = aTask([ours()]);
    const answers: Seen<RequestView>[] = [{ kind: 'absent' }, { kind: 'absent' }, { kind: 'absent' }];
    const queue = aQueue({ status: async () => ({ kind: 'present', value: task }) });
    const ci = aLegacyCi({
      async readMany(ids) {
        const answer = answers.shift() ?? { kind: 'present', value: requestBuilding() };
        if (answers.length === 0 && answer.kind === 'absent') {
          clock.advance(5 * MINUTE);
        }
        return new Map(ids.map((id) => [id, answer]));
      },
    });
    const { reconcile } = aReconciler({ queue, ci, store, clock });
    expect(await reconcile(TASK_ID)).toEqual({ kind: 'done' });
    expect(await store.openMapping(TASK_ID)).toMatchObject({
      state: 'submitted',
      requestAbsentSince: expect.any(Number),
    });
    expect(await reconcile(TASK_ID)).toEqual({ kind: 'done' });
    expect(await store.openMapping(TASK_ID)).toMatchObject({ state: 'submitted', requestAbsentSince: null });
  });

  it('notices it although the database’s clock was set back meanwhile', async () => {
    await pass([aTask([pending()])]);
    const time = createManualClock(NOW + 1);
    let offset = 60 * MINUTE;
    const clock = { ...time, now: () => time.now() + offset };
    let looks = 0;
    const claimed: number[] = [];
    const queue = aQueue({
      async status() {
        looks += 1;
        if (looks === 1) {
          offset = 0;
          time.advance(2 * MINUTE);
          const [now, leaseUntil] = [NOW + 120 * MINUTE, NOW + 122 * MINUTE];
          expect(await store.lease(TASK_ID, { owner: 'other', leaseUntil, now })).toMatchObject({ kind: 'leased' });
        }
        return { kind: 'present', value: aTask([pending()]) };
      },
      async claim(_taskId, runId) {
        claimed.push(runId);
        return aTask([ours()]);
      },
    });
    const ci = aLegacyCi({
      readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: requestBuilding() }])),
    });
    expect(await aReconciler({ queue, ci, store, clock }).reconcile(TASK_ID)).toEqual({ kind: 'busy' });
    expect(claimed).toEqual([]);
  });

  it('uploads nothing more, be it the last try: another pass may have uploaded what is newer', async () => {
    await pass([aTask([pending()])]);
    for (let attempts = 0; attempts < POLICY.maxUploadAttempts; attempts += 1) {
      const leased = await store.lease(TASK_ID, { owner: 'before', leaseUntil: NOW, now: NOW });
      if (leased.kind === 'leased') {
        await store.release(leased.mapping, { attempts: leased.mapping.attempts + 1, nextCheckAt: NOW }, NOW);
      }
    }
    const clock = createManualClock(NOW + 1);
    const put: string[] = [];
    const queue = aQueue({
      status: async () => ({ kind: 'present', value: aTask([ours()]) }),
      task: async () => ({ kind: 'present', value: { ...aTask([]), scopes: [], payload: { buildername: 'b' } } }),
      async putArtifact(_taskId, _runId, { name }) {
        put.push(name);
        const now = NOW + 10 * MINUTE;
        await store.lease(TASK_ID, { owner: 'other', leaseUntil: now + MINUTE, now });
        clock.advance(10 * MINUTE);
      },
    });
    const ci = aLegacyCi({
      readMany: async (ids) =>
        new Map(ids.map((id) => [id, { kind: 'present', value: requestComplete('SUCCESS', aBuild('SUCCESS')) }])),
      outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
    });
    expect(await aReconciler({ queue, ci, store, clock }).reconcile(TASK_ID)).toEqual({ kind: 'busy' });
    expect(put).toHaveLength(1);
  });
});
