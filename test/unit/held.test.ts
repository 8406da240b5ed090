/** Tasks that wait for their turn behind the collapse guard, on the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import slugid from 'slugid';
import type { Priority, TaskStatus } from '../../src/domain/task.ts';
import { LegacyCiError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';
import { sweep } from '../../src/reflector/sweep.ts';
import { aRequest, aTask, MINUTE, NOW, pending, requestBuilding, requestPending } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { startPasses } from '../support/passes.ts';
import { createManualClock, type ManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const KEY = 'b revision';
const AWAY = new LegacyCiError('legacy-ci-unavailable', 'Buildbot is away', { isTransient: true });

let store: MappingStore;
let clock: ManualClock;
let tasks: Map<string, TaskStatus>;
let lines: { action?: string; level: number }[];
beforeEach(async () => {
  clock = createManualClock(NOW);
  tasks = new Map();
  lines = [];
  store = await openMemoryStore();
});
const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) {
    await stop();
  }
  await store.close();
});

/** A pending task: the first one has the key's one place, with request 17; the others are held. */
async function aPendingTask(): Promise<string> {
  const taskId = slugid.nice();
  const isFirst = tasks.size === 0;
  tasks.set(taskId, { ...aTask([pending()], { deadline: NOW + 600 * MINUTE }), taskId });
  clock.advance(1);
  const now = clock.now();
  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', externalId: `${taskId}/0/1`, takenUntil: null },
      ...{ state: isFirst ? 'intended' : 'held', submissions: 0, collapseKey: KEY, hasSlot: isFirst, priority: 2 },
      deadline: NOW + 600 * MINUTE,
    },
    { owner: 'test', leaseUntil: now, now },
  );
  if (stored.kind === 'stored') {
    const submitted = isFirst ? ({ state: 'submitted', buildRequestId: 17 } as const) : {};
    await store.release(stored.mapping, { ...submitted, nextCheckAt: now }, now);
  }
  return taskId;
}

function changePriority(taskId: string, priority: Priority): void {
  const task = tasks.get(taskId);
  if (task) {
    tasks.set(taskId, { ...task, priority });
  }
}

function bridge() {
  const queue = aQueue({
    status: async (taskId) => {
      const value = tasks.get(taskId);
      return value ? { kind: 'present', value } : { kind: 'absent' };
    },
    statuses: async (taskIds) =>
      new Map(
        taskIds.map((taskId) => {
          const value = tasks.get(taskId);
          return [taskId, value ? { kind: 'present', value } : { kind: 'absent' }];
        }),
      ),
  });
  const ci = aLegacyCi({
    readMany: async (ids) =>
      new Map(ids.map((buildRequestId) => [buildRequestId, { kind: 'present', value: aRequest({ buildRequestId }) }])),
  });
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const reconciler = aReconciler({ queue, ci, store, clock, log });
  const limits = {
    leaseMs: 90_000,
    recheckMs: MINUTE,
    reclaimThresholdMs: 10 * MINUTE,
    batchSize: 100,
    concurrency: 1,
  };
  return {
    reconcile: reconciler.reconcile,
    sweep: () =>
      sweep({ store, queue, ci, clock, log, reconciler, instance: 'test', ...limits }, new AbortController().signal),
  };
}

describe('a held task', () => {
  it('leaves no line at info and no event while it only waits', async () => {
    await aPendingTask();
    const held = await aPendingTask();
    const { reconcile, sweep: sweepOnce } = bridge();
    for (let minutes = 0; minutes < 5; minutes += 1) {
      await reconcile(held);
      clock.advance(2 * MINUTE);
      await sweepOnce();
    }
    expect(await store.openMapping(held)).toMatchObject({ state: 'held' });
    expect(lines.filter(({ level }) => level >= 30)).toEqual([]);
    expect(await store.eventsOf(held)).toEqual([]);
  });

  it('goes first when its priority was raised, whatever the time it has waited', async () => {
    const first = await aPendingTask();
    const older = await aPendingTask();
    const urgent = await aPendingTask();
    const { sweep: sweepOnce } = bridge();
    await sweepOnce();
    expect(await store.nextHeld(KEY)).toBe(older);
    changePriority(urgent, 'highest');
    changePriority(first, 'lowest');
    clock.advance(2 * MINUTE);
    await sweepOnce();
    expect(await store.nextHeld(KEY)).toBe(urgent);
    expect((await store.eventsOf(urgent)).map(({ what }) => what)).toEqual(['notePriority']);
    expect((await store.eventsOf(first)).map(({ what }) => what)).toEqual([]);
  });
});

describe('a claimed run whose mapping is lost', () => {
  /** A task whose build runs, another that waits with the one place of its key, and the first one's mapping is gone. */
  async function lose() {
    const requests = new Map<string, ReturnType<typeof aRequest>>();
    let isAway = false;
    const passes = await startPasses(
      {},
      {
        collapseKey: () => KEY,
        async submit({ externalId }) {
          const buildRequestId = requests.size + 1;
          requests.set(externalId, { ...requestPending(), buildRequestId });
          return buildRequestId;
        },
        async findByExternalId({ externalId }) {
          const value = requests.get(externalId);
          return isAway ? { kind: 'unreadable', error: AWAY } : value ? { kind: 'present', value } : { kind: 'absent' };
        },
        async readMany(ids) {
          const wanted = [...requests.values()].filter(({ buildRequestId }) => ids.includes(buildRequestId));
          return new Map(wanted.map((value) => [value.buildRequestId, { kind: 'present', value }]));
        },
      },
    );
    stops.push(passes.stop);
    const beginBuild = (taskId: string) => {
      const externalId = `${taskId}/0/1`;
      const { buildRequestId } = requests.get(externalId) ?? aRequest();
      requests.set(externalId, { ...requestBuilding(), buildRequestId });
    };
    const { reconciler, store: mappings, queue } = passes;
    const [first, second] = [await passes.create(), await passes.create()];
    await reconciler.reconcile(first);
    beginBuild(first);
    await reconciler.reconcile(first);
    await reconciler.reconcile(second);
    expect(await mappings.openMapping(second)).toMatchObject({ state: 'submitted', hasSlot: true });
    const lost = await mappings.openMapping(first);
    if (lost) {
      await mappings.release(lost, { state: 'closed', resolved: queue.clock.now() }, queue.clock.now());
    }
    return {
      ...{ first, second, mappings, beginBuild, queue, reconcile: reconciler.reconcile },
      made: () => [...requests.keys()],
      setAway: (away: boolean) => {
        isAway = away;
      },
    };
  }

  it('is given the request that it has at once, though another task has the one place of its key meanwhile', async () => {
    const { first, second, mappings, reconcile, queue, made } = await lose();
    await reconcile(first);
    expect(await mappings.openMapping(first)).toMatchObject({ state: 'submitted', buildRequestId: 1, hasSlot: false });
    expect(await mappings.openMapping(second)).toMatchObject({ hasSlot: true });
    // Its next run follows it.
    queue.clock.advance(25 * MINUTE);
    queue.emulator.tick();
    await reconcile(first);
    expect(await mappings.openMapping(first)).toMatchObject({ state: 'submitted', runId: 1, buildRequestId: 1 });
    expect(made()).toEqual([`${first}/0/1`, `${second}/0/1`]);
  });

  it('is given it when its turn comes, where it could not be looked for before', async () => {
    const { first, second, mappings, beginBuild, reconcile, setAway, made } = await lose();
    setAway(true);
    await reconcile(first);
    expect(await mappings.openMapping(first)).toMatchObject({ state: 'held', buildRequestId: null });
    setAway(false);
    beginBuild(second);
    await reconcile(second);
    await reconcile(first);
    expect(await mappings.openMapping(first)).toMatchObject({ state: 'submitted', buildRequestId: 1 });
    expect(made()).toEqual([`${first}/0/1`, `${second}/0/1`]);
  });
});
