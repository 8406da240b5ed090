/** Cancels of build requests, on the real mapping store: asked for, shared, impossible, and in vain. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import slugid from 'slugid';
import type { RequestView } from '../../src/domain/build.ts';
import { LegacyCiError } from '../../src/errors.ts';
import type { Artifact, CancelAnswer, MappingStore } from '../../src/ports.ts';
import { aBuild, aTask, exception, MINUTE, NOW } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock, type ManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

let store: MappingStore;
let clock: ManualClock;
beforeEach(async () => {
  clock = createManualClock(NOW);
  store = await openMemoryStore();
});
afterEach(() => store.close());

/** A task whose run was claimed and whose request builds; the task is canceled by now. */
async function canceledTask(buildRequestId: number): Promise<string> {
  const taskId = slugid.nice();
  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', state: 'intended', externalId: `${taskId}/0/1` },
      ...{ submissions: 1, collapseKey: null, hasSlot: false, priority: 2, deadline: NOW + 600 * MINUTE },
      takenUntil: null,
    },
    { owner: 'test', leaseUntil: NOW, now: NOW },
  );
  if (stored.kind === 'stored') {
    await store.release(
      stored.mapping,
      { state: 'submitted', buildRequestId, takenUntil: NOW + MINUTE, nextCheckAt: NOW },
      NOW,
    );
  }
  return taskId;
}

function bridge(answer: CancelAnswer | Error, sharedWith: readonly number[] = []) {
  const asked: number[] = [];
  const artifacts: Artifact[] = [];
  const request = (buildRequestId: number): RequestView => ({
    ...{ buildRequestId, builder: 'b', state: 'building', builds: [aBuild(undefined)], sharedWith },
  });
  const queue = aQueue({
    status: async (taskId) => ({ kind: 'present', value: { ...aTask([exception('canceled')]), taskId } }),
    task: async (taskId) => {
      const { taskQueueId, schedulerId, taskGroupId, priority, deadline, expires } = aTask([]);
      const same = { taskQueueId, schedulerId, taskGroupId, priority, deadline, expires };
      return { kind: 'present', value: { ...same, scopes: [], payload: { taskId } } };
    },
    putArtifact: async (_taskId, _runId, artifact) => void artifacts.push(artifact),
  });
  const ci = aLegacyCi({
    readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: request(id) }])),
    async cancel({ buildRequestId }) {
      asked.push(buildRequestId);
      if (answer instanceof Error) {
        throw answer;
      }
      return answer;
    },
  });
  const reconciler = aReconciler({ queue, ci, store, clock });
  return { asked, artifacts, reconcile: reconciler.reconcile };
}

const notes = async (taskId: string) =>
  (await store.eventsOf(taskId)).filter(({ what }) => what === 'notCancelled').map(({ detail }) => detail);

describe('a cancel', () => {
  it('is repeated with waits that double, up to ten minutes, and a person is told once', async () => {
    const { asked, reconcile } = bridge({ kind: 'asked' });
    const taskId = await canceledTask(17);
    const waits: number[] = [];
    for (let last = clock.now(); waits.length < 12; ) {
      const before = asked.length;
      await reconcile(taskId);
      if (asked.length > before) {
        waits.push((clock.now() - last) / 1000);
        last = clock.now();
      } else if (clock.now() - last > 60 * MINUTE) {
        break;
      }
      clock.advance(5000);
    }
    expect(waits).toEqual([0, 15, 30, 60, 120, 240, 480, 600, 600, 600, 600, 600]);
    expect(await notes(taskId)).toEqual([expect.stringContaining('somebody should look')]);
    expect(await store.openMapping(taskId)).toMatchObject({ state: 'cancelling', attempts: 0 });
  });

  it('is not in the trace any more once a person was told', async () => {
    const { asked, reconcile } = bridge({ kind: 'asked' });
    const taskId = await canceledTask(17);
    for (let minutes = 0; minutes < 8 * 60; minutes += 1) {
      await reconcile(taskId);
      clock.advance(MINUTE);
    }
    expect(asked.length).toBeGreaterThan(40);
    const cancels = (await store.eventsOf(taskId)).filter(({ what }) => what === 'cancelRequest');
    expect(cancels).toHaveLength(10);
  });

  it('that is impossible is tried again every ten minutes, and the trace says why once', async () => {
    const { asked, artifacts, reconcile } = bridge({
      kind: 'impossible',
      why: 'no way to stop a running build is configured',
    });
    const taskId = await canceledTask(17);
    for (let minutes = 0; minutes < 60; minutes += 1) {
      await reconcile(taskId);
      clock.advance(MINUTE);
    }
    expect(asked).toHaveLength(6);
    expect(await notes(taskId)).toEqual(['no way to stop a running build is configured']);
    expect(artifacts).toMatchObject([
      { name: 'public/logs/live.log', content: expect.stringContaining('no way to stop') },
    ]);
    expect(await store.openMapping(taskId)).toMatchObject({ state: 'cancelling' });
  });

  it('that is refused is repeated for as long as one that has no effect, and the trace says why', async () => {
    const error = new LegacyCiError('legacy-ci-forbidden', 'Buildbot does not allow cancel');
    const { asked, reconcile } = bridge(error);
    const taskId = await canceledTask(17);
    for (let minutes = 0; minutes < 120; minutes += 1) {
      await reconcile(taskId);
      clock.advance(MINUTE);
    }
    expect(asked.length).toBeGreaterThan(10);
    expect((await notes(taskId)).at(0)).toBe('Buildbot does not allow cancel');
    expect((await notes(taskId)).at(-1)).toContain('somebody should look');
    expect(await notes(taskId)).toHaveLength(11);
    expect(await store.openMapping(taskId)).toMatchObject({ state: 'cancelling' });
  });

  it('of a build that others want waits for them; the last one stops it', async () => {
    const first = await canceledTask(17);
    const second = await canceledTask(18);
    const { asked, reconcile } = bridge({ kind: 'asked' }, [18]);
    await reconcile(first);
    expect(asked).toEqual([]);
    expect(await notes(first)).toEqual([expect.stringContaining('build request 18')]);
    await bridge({ kind: 'asked' }, [17]).reconcile(second);
    clock.advance(11 * MINUTE);
    await reconcile(first);
    expect(asked).toEqual([17]);
  });

  it('of all that a build serves at once stops it at once', async () => {
    const both = [await canceledTask(17), await canceledTask(18)] as const;
    const [first, second] = [bridge({ kind: 'asked' }, [18]), bridge({ kind: 'asked' }, [17])];
    await Promise.all([first.reconcile(both[0]), second.reconcile(both[1])]);
    expect([...first.asked, ...second.asked]).not.toEqual([]);
  });

  it('of a build that a request of nobody known shares does not stop it', async () => {
    const taskId = await canceledTask(17);
    const { asked, reconcile } = bridge({ kind: 'asked' }, [4000]);
    for (let minutes = 0; minutes < 30; minutes += 1) {
      await reconcile(taskId);
      clock.advance(MINUTE);
    }
    expect(asked).toEqual([]);
    expect((await store.eventsOf(taskId)).map(({ what }) => what)).not.toContain('cancelRequest');
    expect(await notes(taskId)).toHaveLength(1);
    expect(await store.openMapping(taskId)).toMatchObject({ state: 'cancelling', cancels: 0 });
  });
});
