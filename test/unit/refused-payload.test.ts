/** Tasks that are refused for what they say: counted and said, once each. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { QueueError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import type { MappingStore } from '../../src/ports.ts';
import { aTask, MINUTE, NOW, POLICY, pending, TASK_ID } from '../support/builders.ts';
import { countInputs } from '../support/count-inputs.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

let store: MappingStore;
beforeEach(async () => {
  store = await openMemoryStore();
});
afterEach(() => store.close());

/** Looks three times at a task whose run cannot be claimed yet; answers the lines that say that it was refused. */
async function refuse(payload: unknown) {
  const queue = aQueue({
    status: async () => ({ kind: 'present', value: aTask([pending()]) }),
    task: async () => ({
      kind: 'present',
      value: {
        ...{ taskQueueId: POLICY.taskQueueId, schedulerId: 's', taskGroupId: TASK_ID, priority: 'lowest', scopes: [] },
        ...{ deadline: NOW + MINUTE, expires: NOW + MINUTE, payload },
      },
    }),
    claim: () => Promise.reject(new QueueError('queue-unavailable', 'not now', { isTransient: true })),
  });
  const ci = aLegacyCi({
    builders: async () => new Set(['b']),
    problems: async () => [],
    collapseKey: () => null,
    findByExternalId: async () => ({ kind: 'absent' }),
  });
  const lines: Record<string, unknown>[] = [];
  const log = createLog({ level: 'info', destination: { write: (line) => void lines.push(JSON.parse(line)) } });
  const inputs = countInputs();
  const { reconcile } = aReconciler({ queue, ci, store, clock: createManualClock(NOW), inputs, log });
  for (let look = 0; look < 3; look += 1) {
    expect(await reconcile(TASK_ID)).toMatchObject({ kind: 'failed' });
  }
  return { counts: inputs.counts, said: lines.filter(({ msg }) => msg === 'task refused') };
}

it('a payload that is none', async () => {
  const { counts, said } = await refuse({ buildername: 7 });
  expect(counts).toEqual({ 'rejected payload': 1 });
  expect(said).toMatchObject([
    { taskId: TASK_ID, runId: 0, problem: expect.stringMatching(/^payload\.buildername: /) },
  ]);
});

it('a builder that is none, with nothing in the line that is not text', async () => {
  const { counts, said } = await refuse({ buildername: `\u001b[2J\u202e${'x'.repeat(230)}` });
  expect(counts).toEqual({ 'rejected payload': 1 });
  const problem = String(said[0]?.problem);
  expect(problem).toContain('\\u001b[2J\\u202exx');
  expect(problem).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  expect(problem.length).toBeLessThan(230);
});

it('an intent that turns out to be one for such a task', async () => {
  await store.insert(
    {
      ...{ taskId: TASK_ID, runId: 0, taskGroupId: TASK_ID, builder: 'b', externalId: `${TASK_ID}/0/1` },
      ...{ state: 'intended', submissions: 1, collapseKey: null, hasSlot: false, priority: 0, takenUntil: null },
      deadline: NOW + MINUTE,
    },
    { owner: 'before', leaseUntil: NOW - 1, now: NOW - 2 },
  );
  const { counts, said } = await refuse({ buildername: 'gone' });
  expect([counts, said.length]).toEqual([{ 'rejected payload': 1 }, 1]);
});
