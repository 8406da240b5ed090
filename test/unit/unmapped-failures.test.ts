/** Tasks that cannot even be admitted: their reason is in their trace, once. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { TaskDefinition } from '../../src/domain/task.ts';
import { LegacyCiError, QueueError } from '../../src/errors.ts';
import type { MappingStore, TaskQueue } from '../../src/ports.ts';
import { createUnmappedFailures } from '../../src/reflector/unmapped-failures.ts';
import { showTask } from '../../src/tasks/show.ts';
import { aTask, MINUTE, NOW, POLICY, pending, TASK_ID } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

let store: MappingStore;
beforeEach(async () => {
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
      const { reconcile } = aReconciler({ queue: aQueue(methods), ci, store, clock: createManualClock(NOW) });
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

describe('the failures that are remembered', () => {
  it('are told apart by task and text', () => {
    const failures = createUnmappedFailures();
    const told = ['a x', 'a y', 'b x', 'a x', 'a x', 'b x'].map((one) => failures.isLasting(one.slice(0, 1), one));
    expect(told).toEqual([false, false, false, true, false, true]);
  });

  it('are not more than a bound: the oldest are forgotten', () => {
    const failures = createUnmappedFailures(2);
    for (const taskId of ['a', 'b', 'c']) {
      failures.isLasting(taskId, 'x');
    }
    expect([failures.isLasting('c', 'x'), failures.isLasting('a', 'x')]).toEqual([true, false]);
  });
});
