/** A submission without an answer has its grace by the time at which it was looked for. */
import { afterEach, expect, it } from '@jest/globals';
import { LegacyCiError } from '../../src/errors.ts';
import { type Passes, startPasses } from '../support/passes.ts';

let passes: Passes;
afterEach(() => passes.stop());

it('who sleeps between the look for a submission and the decision does not submit again', async () => {
  let sleepMs = 0;
  let submitted = 0;
  passes = await startPasses(
    {},
    {
      async submit() {
        submitted += 1;
        throw new LegacyCiError('legacy-ci-unavailable', 'no answer', { isTransient: true });
      },
      async findByExternalId() {
        // Longer than the grace, and shorter than the lease.
        passes.queue.clock.advance(sleepMs);
        return { kind: 'absent' };
      },
    },
  );
  const taskId = await passes.create();
  expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
  passes.queue.clock.advance(5000);
  sleepMs = 80_000;
  expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'done' });
  expect(submitted).toBe(1);
  // The next look is after the grace, and finds nothing either.
  sleepMs = 0;
  expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
  expect(submitted).toBe(2);
});

it('who sleeps between two steps looks for a submission again before it decides', async () => {
  let submitted = 0;
  passes = await startPasses(
    {},
    {
      async submit() {
        submitted += 1;
        throw new LegacyCiError('legacy-ci-unavailable', 'no answer', { isTransient: true });
      },
      // The first one took effect late, and meanwhile.
      findByExternalId: async () =>
        passes.queue.clock.now() < slept ? { kind: 'absent' } : { kind: 'present', value: passes.request },
    },
  );
  const { queue, store, reconciler } = passes;
  let slept = Number.POSITIVE_INFINITY;
  const taskId = await passes.create();
  expect(await reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
  // The intent follows the next run, which is a step of its own.
  await queue.ok('cancelTask', taskId);
  await queue.ok('rerunTask', taskId);
  queue.clock.advance(5000);
  const { update } = store;
  store.update = async (mapping, changes, now) => {
    const stored = await update(mapping, changes, now);
    if ('runId' in changes) {
      // Longer than the grace, and shorter than the lease.
      queue.clock.advance(60_000);
      slept = queue.clock.now();
    }
    return stored;
  };
  expect(await reconciler.reconcile(taskId)).toMatchObject({ kind: 'done' });
  expect(submitted).toBe(1);
});

it('a request is asked for under a lease that is as long as it can be, however slow the pass was', async () => {
  const left: number[] = [];
  passes = await startPasses(
    {},
    {
      async problems() {
        passes.queue.clock.advance(80_000);
        return [];
      },
      async submit({ taskId }) {
        const mapping = await passes.store.openMapping(taskId);
        left.push((mapping?.leaseUntil ?? 0) - passes.queue.clock.now());
        return passes.request.buildRequestId;
      },
    },
  );
  await passes.reconciler.reconcile(await passes.create());
  expect(left).toEqual([90_000]);
});
