/** Tasks that cannot even be admitted: their reason is in their trace, once. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { NewMapping } from '../../src/domain/mapping.ts';
import type { TaskDefinition } from '../../src/domain/task.ts';
import { LegacyCiError, QueueError, StoreError } from '../../src/errors.ts';
import type { MappingStore, TaskQueue } from '../../src/ports.ts';
import { createUnkeptFailures } from '../../src/reflector/unkept-failures.ts';
import { showTask } from '../../src/tasks/show.ts';
import { aTask, MINUTE, NOW, POLICY, pending, TASK_ID } from '../support/builders.ts';
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

const unreadable = (message: string) => ({
  kind: 'unreadable' as const,
  error: new QueueError('queue-invalid', message),
});
const present = { kind: 'present' as const, value: aTask([pending()]) };
const definition: TaskDefinition = {
  ...{ taskQueueId: POLICY.taskQueueId, schedulerId: 's', taskGroupId: TASK_ID, priority: 'lowest' },
  ...{ deadline: NOW + MINUTE, expires: NOW + MINUTE, scopes: [], payload: { buildername: 'b' } },
};

describe('a task that cannot be admitted', () => {
  it.each<[string, Partial<TaskQueue>, string, number | null]>([
    ['its status', { status: async () => unreadable('no status') }, 'no status', null],
    ['its definition', { status: async () => present, task: async () => unreadable('no task') }, 'no task', 0],
    [
      'the builders',
      { status: async () => present, task: async () => ({ kind: 'present', value: definition }) },
      'no list: no master',
      0,
    ],
  ])(
    'has the reason in its trace when %s cannot be read again, and only once',
    async (_what, methods, detail, runId) => {
      const cause = new Error('no master');
      const ci = aLegacyCi({
        builders: () => Promise.reject(new LegacyCiError('legacy-ci-unavailable', 'no list', { cause })),
      });
      const { reconcile } = aReconciler({ queue: aQueue(methods), ci, store, clock });
      expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });
      expect(await store.eventsOf(TASK_ID)).toEqual([]);
      for (let again = 0; again < 3; again += 1) {
        await reconcile(TASK_ID);
      }
      expect(await store.eventsOf(TASK_ID)).toEqual([
        { taskId: TASK_ID, runId, at: NOW, instance: 'test', what: 'notAdmitted', detail },
      ]);
      expect(showTask([], await store.eventsOf(TASK_ID)).join('\n')).toContain(`notAdmitted  ${detail}`);
    },
  );
});

/** A store that fails in what `broken` names. */
function breaking(broken: Set<keyof MappingStore>): MappingStore {
  const fails = (method: keyof MappingStore) => {
    if (broken.has(method)) {
      throw new StoreError('store-unavailable', 'away', { isTransient: true });
    }
  };
  return {
    ...store,
    async addEvents(events) {
      fails('addEvents');
      await store.addEvents(events);
    },
    async release(...all) {
      fails('release');
      return store.release(...all);
    },
  };
}

const details = async () => (await store.eventsOf(TASK_ID)).map(({ what, detail }) => `${what}: ${detail}`);

async function anOpen(changes: Pick<NewMapping, 'state'>): Promise<void> {
  await store.insert(
    {
      ...{ taskId: TASK_ID, runId: 0, taskGroupId: TASK_ID, builder: 'b', externalId: `${TASK_ID}/0/1` },
      ...{ submissions: 1, collapseKey: null, hasSlot: false, priority: 0, takenUntil: null },
      deadline: NOW + 60 * MINUTE,
      ...changes,
    },
    { owner: 'before', leaseUntil: NOW - 1, now: NOW - 2 },
  );
}

describe('a failure counts as one only where its reason is kept', () => {
  it('in the trace, by the third time whatever it says', async () => {
    let count = 0;
    const status = async () => {
      count += 1;
      return unreadable(`request ${count}`);
    };
    const { reconcile } = aReconciler({ queue: aQueue({ status }), ci: aLegacyCi(), store, clock });
    for (let look = 0; look < 9; look += 1) {
      await reconcile(TASK_ID);
    }
    expect(await details()).toEqual(['notAdmitted: request 3']);
  });

  it('in the trace at once where rights are missing, since the next try is minutes away', async () => {
    const forbidden = new LegacyCiError('legacy-ci-forbidden', 'no rights');
    const { reconcile } = aReconciler({
      queue: aQueue({ status: async () => present, task: async () => ({ kind: 'present', value: definition }) }),
      ci: aLegacyCi({ builders: () => Promise.reject(forbidden) }),
      ...{ store, clock },
    });
    await reconcile(TASK_ID);
    await reconcile(TASK_ID);
    expect(await details()).toEqual(['notAdmitted: no rights']);
  });

  it('in the trace, and not while it cannot be written', async () => {
    const broken = new Set<keyof MappingStore>();
    const queue = aQueue({ status: async () => unreadable('no status') });
    const { reconcile } = aReconciler({ queue, ci: aLegacyCi(), store: breaking(broken), clock });
    await reconcile(TASK_ID);
    broken.add('addEvents');
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'store-away' });
    broken.clear();
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });
    expect(await details()).toEqual(['notAdmitted: no status']);
  });

  it.each<[string, (keyof MappingStore)[]]>([
    ['the trace', ['addEvents']],
    ['the trace and the mapping', ['addEvents', 'release']],
  ])('in the trace of a refused task, also after %s could not be written', async (_what, methods) => {
    await anOpen({ state: 'refusing' });
    const broken = new Set<keyof MappingStore>();
    const queue = aQueue({ status: async () => unreadable('no status') });
    const { reconcile } = aReconciler({ queue, ci: aLegacyCi(), store: breaking(broken), clock });
    await reconcile(TASK_ID);
    for (const method of methods) {
      broken.add(method);
    }
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'store-away' });
    clock.advance(5 * MINUTE);
    broken.clear();
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });
    expect(await details()).toEqual(['notRefused: no status']);
  });

  it('in the trace of a refused task, also after that could not be written and another pass took over', async () => {
    await anOpen({ state: 'refusing' });
    const broken = new Set<keyof MappingStore>();
    let isTaken = false;
    const queue = aQueue({
      async status() {
        if (isTaken) {
          clock.advance(5 * MINUTE);
          await store.lease(TASK_ID, { owner: 'another', leaseUntil: clock.now() + MINUTE, now: clock.now() });
        }
        throw new QueueError('queue-unavailable', 'no status');
      },
    });
    const { reconcile } = aReconciler({ queue, ci: aLegacyCi(), store: breaking(broken), clock });
    await reconcile(TASK_ID);
    broken.add('addEvents');
    isTaken = true;
    expect(await reconcile(TASK_ID)).toEqual({ kind: 'busy' });
    clock.advance(5 * MINUTE);
    broken.clear();
    isTaken = false;
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });
    expect(await details()).toEqual(['notRefused: no status']);
  });

  it('in the mapping, and not while that cannot be written', async () => {
    await anOpen({ state: 'submitted' });
    const broken = new Set<keyof MappingStore>(['release']);
    const queue = aQueue({ status: async () => unreadable('no status') });
    const { reconcile } = aReconciler({ queue, ci: aLegacyCi(), store: breaking(broken), clock });
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'store-away' });
    clock.advance(5 * MINUTE);
    broken.clear();
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });
    expect(await store.openMapping(TASK_ID)).toMatchObject({ lastError: 'no status' });
  });

  it('in the mapping, and not where another pass took it over meanwhile', async () => {
    await anOpen({ state: 'submitted' });
    const queue = aQueue({
      async status() {
        clock.advance(5 * MINUTE);
        await store.lease(TASK_ID, { owner: 'another', leaseUntil: clock.now() + MINUTE, now: clock.now() });
        return unreadable('no status');
      },
    });
    const { reconcile } = aReconciler({ queue, ci: aLegacyCi(), store, clock });
    expect(await reconcile(TASK_ID)).toEqual({ kind: 'busy' });
  });

  it('in the trace where the mapping has what the task is refused for', async () => {
    await anOpen({ state: 'refusing' });
    const queue = aQueue({ status: async () => unreadable('no status') });
    const { reconcile } = aReconciler({ queue, ci: aLegacyCi(), store, clock });
    for (let look = 0; look < 4; look += 1) {
      await reconcile(TASK_ID);
    }
    expect(await details()).toEqual(['notRefused: no status']);
    expect(await store.openMapping(TASK_ID)).toMatchObject({ lastError: null, attempts: 4 });
  });
});

describe('the failures that are remembered', () => {
  it('are told apart by task and text', () => {
    const failures = createUnkeptFailures();
    const told = ['a x', 'a y', 'b x', 'a x', 'a x', 'b x'].map((one) => failures.isLasting(one.slice(0, 1), one));
    expect(told).toEqual([false, false, false, true, false, true]);
  });

  it('are told by the third of a task, whatever it says, and others then when they come again', () => {
    const failures = createUnkeptFailures();
    const told = ['x', 'y', 'z', 'v', 'w', 'w', 'z'].map((text) => failures.isLasting('a', text));
    expect(told).toEqual([false, false, true, false, false, true, false]);
  });

  it('are told at once where they are known to last, and once', () => {
    const failures = createUnkeptFailures();
    expect([failures.isLasting('a', 'x', true), failures.isLasting('a', 'x', true)]).toEqual([true, false]);
  });

  it('are told once where they are known to last and are another one every time', () => {
    const failures = createUnkeptFailures();
    const told = Array.from({ length: 50 }, (_, pass) => failures.isLasting('a', `x${pass % 5}`, true));
    expect(told.filter(Boolean)).toHaveLength(1);
    expect(told[0]).toBe(true);
  });

  it('are not told any number of times, however they follow one another', () => {
    const failures = createUnkeptFailures();
    const told = Array.from({ length: 500 }, (_, pass) => failures.isLasting('a', `x${Math.floor(pass / 2) % 5}`));
    expect(told.filter(Boolean)).toHaveLength(10);
  });

  it('are told again where that did not work', () => {
    const failures = createUnkeptFailures();
    const told = [failures.isLasting('a', 'x'), failures.isLasting('a', 'x')];
    failures.wasNotTold('a');
    expect([...told, failures.isLasting('a', 'x'), failures.isLasting('a', 'x')]).toEqual([false, true, true, false]);
  });

  it('are not more than a bound: the oldest are forgotten', () => {
    const failures = createUnkeptFailures(2);
    for (const taskId of ['a', 'b', 'c']) {
      failures.isLasting(taskId, 'x');
    }
    expect([failures.isLasting('c', 'x'), failures.isLasting('a', 'x')]).toEqual([true, false]);
  });
});
