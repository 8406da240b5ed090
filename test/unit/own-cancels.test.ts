/** A build that the bridge itself has cancelled, and died before it could say so: no person did that. */
import { afterEach, expect, it } from '@jest/globals';
import { StoreError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';
import { aBuild, aRequest, MINUTE, requestBuilding, requestComplete } from '../support/builders.ts';
import { type Passes, startPasses } from '../support/passes.ts';

let passes: Passes;
afterEach(() => passes.stop());

const runsOf = (taskId: string) => passes.queue.emulator.tasks.get(taskId)?.status.runs ?? [];

it('does not cancel the run that a person has asked for since', async () => {
  let isDead = false;
  passes = await startPasses(
    {},
    {
      async cancel() {
        passes.request = requestComplete('CANCELLED', aBuild('CANCELLED'));
        isDead = true;
        return { kind: 'asked' };
      },
      async submit() {
        passes.submitted += 1;
        passes.request = aRequest({ buildRequestId: 17 + passes.submitted });
        return passes.request.buildRequestId;
      },
      findByExternalId: async () => ({ kind: 'absent' }),
    },
  );
  const { queue, store } = passes;
  const taskId = await passes.create({ retries: 0 });
  await passes.reconciler.reconcile(taskId);
  passes.request = requestBuilding();
  queue.clock.advance(MINUTE);
  await passes.reconciler.reconcile(taskId);
  expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
  // No instance renews the claim.
  queue.clock.advance(25 * MINUTE);
  queue.emulator.tick();
  expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'claim-expired' }]);
  // The one that is back dies right after its cancel: nothing of what it writes then is kept.
  const dying: MappingStore = {
    ...store,
    async update(...call) {
      if (isDead) {
        throw new StoreError('store-unavailable', 'away', { isTransient: true });
      }
      return store.update(...call);
    },
  };
  await passes.reconcilerOn(dying).reconcile(taskId);
  expect(isDead).toBe(true);

  await queue.ok('rerunTask', taskId);
  queue.clock.advance(2 * MINUTE);
  expect(await passes.reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
  expect(await passes.reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
  expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'claim-expired' }, { state: 'pending' }]);
  expect(passes.submitted).toBe(2);
});

it('of another build request of the same run, a RETRY is told, too', async () => {
  passes = await startPasses({}, { findByExternalId: async () => ({ kind: 'absent' }) });
  const taskId = await passes.create();
  const look = async () => {
    passes.queue.clock.advance(MINUTE);
    await passes.reconciler.reconcile(taskId);
  };
  passes.request = requestBuilding();
  await look();
  await look();
  passes.request = requestBuilding(aBuild('RETRY'));
  await look();
  await look();
  expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'worker-shutdown' }, { state: 'running' }]);
  // It is collapsed while it waits to be built again, and made anew.
  passes.request = requestComplete('SKIPPED', aBuild('RETRY'));
  await look();
  passes.request = requestBuilding(aBuild('RETRY'));
  await look();
  expect(passes.submitted).toBe(2);
  expect(runsOf(taskId)).toMatchObject([{}, { reasonResolved: 'worker-shutdown' }, { state: expect.any(String) }]);
});
