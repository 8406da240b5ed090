/** A round of the reflector: what a part of it that fails does to the others, and how loudly it is said. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { type BridgeError, QueueError, StoreError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import type { MappingStore } from '../../src/ports.ts';
import { createReflector, type Reflector } from '../../src/reflector/reflector.ts';
import { MINUTE, NOW } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock, type ManualClock } from '../support/queue-emulator.ts';
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
      return { due: 0, passes: 0, failed: 0, isCut: false };
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

describe('a round that takes longer than the interval', () => {
  let store: MappingStore;
  let clock: ManualClock;
  let reflector: Reflector;
  let tick: () => Promise<void>;
  /** Each ends a sweep that was begun. */
  let ends: ((isCut: boolean) => void)[];
  let idleMsBefore: number;
  beforeEach(async () => {
    store = await openMemoryStore();
    clock = createManualClock(NOW - MINUTE);
    ends = [];
    async function* nothing(): AsyncGenerator<readonly string[]> {}
    reflector = createReflector({
      ...{ store, log: createLog({ level: 'silent' }), clock },
      queue: aQueue({ listPending: nothing, listClaimed: nothing }),
      ...{ isObserving: false, schedule: '* * * * * *', jitterMs: 0, retentionMs: MINUTE, random: () => 0 },
      ...{ hint: () => undefined, isKnownForeign: () => false },
      heartbeat: async () => undefined,
      keepClaims: async () => undefined,
      timer(_schedule, onTick) {
        tick = onTick;
        return { destroy: () => undefined };
      },
      sweep: () =>
        new Promise((resolve) => {
          ends.push((isCut) => resolve({ due: 0, passes: 0, failed: 0, isCut }));
        }),
    });
    // What it needs may be waited for before it is started.
    clock.advance(MINUTE);
    idleMsBefore = reflector.idleMs();
    reflector.start();
    await eventually(() => ends.length === 1);
  });
  afterEach(async () => {
    const stopped = reflector.stop();
    for (const end of ends) {
      end(false);
    }
    await stopped;
    await store.close();
  });

  it('counts as idle from its start on, and not from before', () => {
    expect(idleMsBefore).toBe(0);
    clock.advance(5);
    expect(reflector.idleMs()).toBe(5);
  });

  it('is followed by one more at once, however many turns it took', async () => {
    const ticks = [tick(), tick()];
    clock.advance(1);
    await Promise.all(ticks);
    ends[0]?.(false);
    await eventually(() => ends.length === 2);
    clock.advance(1);
    ends[1]?.(false);
    // It has ended, and none has followed.
    await eventually(() => reflector.report()?.endedAt === NOW + 2);
    await reflector.stop();
    expect(ends).toHaveLength(2);
  });

  it('is followed by another at once where its sweep was cut', async () => {
    ends[0]?.(true);
    await eventually(() => ends.length === 2);
  });
});

describe('a list of the queue', () => {
  let store: MappingStore;
  let clock: ManualClock;
  let hinted: string[];
  /** How long it takes to have a page. */
  let pageMs: number;
  beforeEach(async () => {
    store = await openMemoryStore();
    clock = createManualClock(NOW);
    hinted = [];
    pageMs = 40_000;
  });
  afterEach(() => store.close());

  function reflectorOf(taskIds: readonly string[], openAmong = store.openAmong): Reflector {
    async function* pages(): AsyncGenerator<readonly string[]> {
      for (const taskId of taskIds) {
        clock.advance(pageMs);
        yield [taskId];
      }
    }
    async function* nothing(): AsyncGenerator<readonly string[]> {}
    return createReflector({
      ...{ store: { ...store, openAmong }, log: createLog({ level: 'silent' }), clock },
      queue: aQueue({ listPending: pages, listClaimed: nothing }),
      ...{ isObserving: false, schedule: '* * * * * *', jitterMs: 0, retentionMs: MINUTE, random: () => 0 },
      ...{ hint: (taskId) => hinted.push(taskId), isKnownForeign: () => false },
      heartbeat: async () => undefined,
      keepClaims: async () => undefined,
      sweep: async () => ({ due: 0, passes: 0, failed: 0, isCut: false }),
    });
  }

  it('that is long is gone on with in the next round, and begun anew when that is through', async () => {
    const reflector = reflectorOf(['a', 'b', 'c']);
    await reflector.runOnce();
    expect(hinted).toEqual(['a', 'b']);
    await reflector.runOnce();
    expect(hinted).toEqual(['a', 'b', 'c']);
    await reflector.runOnce();
    expect(hinted).toEqual(['a', 'b', 'c', 'a', 'b']);
  });

  it('of which a round has had the last page is begun anew in the next one', async () => {
    const reflector = reflectorOf(['a', 'b']);
    await reflector.runOnce();
    await reflector.runOnce();
    expect(hinted).toEqual(['a', 'b', 'a', 'b']);
  });

  it('is begun anew where a page could not be dealt with', async () => {
    pageMs = 1;
    let isAway = true;
    const reflector = reflectorOf(['a', 'b'], async (taskIds) => {
      if (isAway) {
        throw new StoreError('store-unavailable', 'away', { isTransient: true });
      }
      return store.openAmong(taskIds);
    });
    await reflector.runOnce();
    isAway = false;
    await reflector.runOnce();
    expect(hinted).toEqual(['a', 'b']);
  });
});
