/** A round of the reflector: what a part of it that fails does to the others, and how loudly it is said. */
import { expect, it } from '@jest/globals';
import { type BridgeError, QueueError, StoreError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { createReflector } from '../../src/reflector/reflector.ts';
import { MINUTE, NOW } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aQueue } from '../support/stubs.ts';

/** One round of which the lists of the queue fail, or the sweep; answers what was done and what was said. */
async function round(failures: { readonly lists?: BridgeError; readonly sweep?: BridgeError }) {
  const store = await openMemoryStore();
  const lines: Record<string, unknown>[] = [];
  const done: string[] = [];
  const log = createLog({ level: 'info', destination: { write: (line) => void lines.push(JSON.parse(line)) } });
  async function* list(): AsyncGenerator<readonly string[]> {
    if (failures.lists) {
      throw failures.lists;
    }
    yield [];
  }
  const reflector = createReflector({
    ...{ store, log, clock: createManualClock(NOW), queue: aQueue({ listPending: list, listClaimed: list }) },
    ...{ isObserving: false, schedule: '* * * * * *', jitterMs: 0, retentionMs: MINUTE, random: () => 0 },
    ...{ hint: () => undefined, isKnownForeign: () => false },
    heartbeat: async () => void done.push('heartbeat'),
    keepClaims: async () => void done.push('keepClaims'),
    async sweep() {
      done.push('sweep');
      if (failures.sweep) {
        throw failures.sweep;
      }
      return { due: 0, passes: 0, failed: 0 };
    },
  });
  try {
    await reflector.runOnce();
  } finally {
    await store.close();
  }
  return { done, said: lines.map(({ level, part }) => `${level} ${part}`) };
}

it('does everything, and says nothing, where nothing fails', async () => {
  expect(await round({})).toEqual({ done: ['heartbeat', 'sweep'], said: [] });
});

it.each([
  ['a warning where the queue is away', 'queue-unavailable', true, 'warn'],
  ['an error where scopes are missing', 'queue-forbidden', false, 'error'],
] as const)('goes on with the other parts, and says so: %s', async (_what, code, isTransient, level) => {
  const { done, said } = await round({ lists: new QueueError(code, 'no', { isTransient }) });
  expect(done).toEqual(['heartbeat', 'sweep']);
  expect(said).toEqual([`${level} pending`, `${level} claimed`]);
});

it('keeps claims without the mapping database where that is away', async () => {
  const { done, said } = await round({ sweep: new StoreError('store-unavailable', 'away', { isTransient: true }) });
  expect(done).toEqual(['heartbeat', 'sweep', 'keepClaims']);
  expect(said).toEqual(['warn sweep']);
});
