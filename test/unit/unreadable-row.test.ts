/** A hint at a task whose row another version of the bridge has written. */
import { afterEach, expect, it } from '@jest/globals';
import pino from 'pino';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { createWorkQueue } from '../../src/reflector/work-queue.ts';
import { MINUTE, NOW, TASK_ID } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const db = connect('sqlite::memory:');
afterEach(() => db.destroy());

it('is given up in the end, so that others come to be heard', async () => {
  await migrate(db);
  const store = createMappingStore(db);
  await store.insert(
    {
      ...{ taskId: TASK_ID, runId: 0, taskGroupId: TASK_ID, builder: 'b', externalId: `${TASK_ID}/0/1` },
      ...{ state: 'intended', submissions: 1, collapseKey: null, hasSlot: false, priority: 2, takenUntil: null },
      deadline: NOW + 600 * MINUTE,
    },
    { owner: 'test', leaseUntil: NOW, now: NOW },
  );
  await db('tasks').update({ state: 'from-the-future' });
  const clock = createManualClock(NOW + MINUTE);
  const { reconcile } = aReconciler({ queue: aQueue(), ci: aLegacyCi(), store, clock });
  expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });

  const log = pino({ level: 'silent' });
  const queue = createWorkQueue({ pass: reconcile, concurrency: 1, clock, log, maxTries: 3 });
  let isOver = false;
  const hint = queue.add(TASK_ID).then(() => {
    isOver = true;
  });
  await eventually(() => {
    clock.advance(MINUTE);
    return isOver;
  });
  await hint;
});
