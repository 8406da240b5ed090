/** What a sweep does about mappings that it finds nothing to do about, on the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import type { RequestView } from '../../src/domain/build.ts';
import { LegacyCiError } from '../../src/errors.ts';
import type { Clock, MappingStore, Seen } from '../../src/ports.ts';
import { sweep } from '../../src/reflector/sweep.ts';
import { aRequest, aTask, MINUTE, NOW, pending } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock, type ManualClock, newTaskId } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const AWAY = new LegacyCiError('legacy-ci-unavailable', 'Buildbot is away', { isTransient: true });

let store: MappingStore;
let clock: ManualClock;
let request: Seen<RequestView>;
/** How long a batch takes that is asked of Buildbot. */
let answerMs: number;
/** How many mappings Buildbot was asked about, from one call to the next. */
let batches: number[];
/** What happens while it is asked about many. */
let onAsked: () => Promise<void>;
beforeEach(async () => {
  clock = createManualClock(NOW);
  answerMs = 0;
  batches = [];
  onAsked = async () => undefined;
  store = await openMemoryStore();
});
afterEach(() => store.close());

const someMappings = (count: number) => Promise.all(Array.from({ length: count }, () => aMapping('submitted')));
const attemptsOf = (taskIds: readonly string[]) =>
  Promise.all(taskIds.map(async (taskId) => (await store.openMapping(taskId))?.attempts));

async function aMapping(state: 'intended' | 'submitted'): Promise<string> {
  const taskId = newTaskId();
  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', externalId: `${taskId}/0/1`, takenUntil: null },
      ...{ state: 'intended', submissions: 1, collapseKey: null, hasSlot: false, priority: 2 },
      deadline: NOW + 600 * MINUTE,
    },
    { owner: 'test', leaseUntil: NOW, now: NOW },
  );
  if (stored.kind === 'stored') {
    await store.release(
      stored.mapping,
      {
        state,
        buildRequestId: state === 'intended' ? null : 17,
        attempts: 3,
        lastError: 'as it was',
        nextCheckAt: NOW,
      },
      NOW,
    );
  }
  return taskId;
}

/** More batches than any of these sweeps should have: it would go on without end. */
const ENDLESS = 50;

interface Circumstances {
  readonly batchSize?: number;
  readonly shown?: Clock;
  /** Told to stop when Buildbot is asked for the so-manyth time. */
  readonly stopAt?: number;
}

async function sweepOnce({ batchSize = 100, shown = clock, stopAt = ENDLESS }: Circumstances = {}) {
  clock.advance(2 * MINUTE);
  const stop = new AbortController();
  const queue = aQueue({
    statuses: async (taskIds) =>
      new Map(
        taskIds.map((taskId) => [
          taskId,
          { kind: 'present', value: { ...aTask([pending()], { deadline: NOW + 600 * MINUTE }), taskId } },
        ]),
      ),
  });
  function asked(count: number): void {
    batches.push(count);
    if (batches.length >= stopAt) {
      stop.abort();
    }
    clock.advance(answerMs);
  }
  const ci = aLegacyCi({
    async readMany(ids) {
      asked(ids.length);
      await onAsked();
      return new Map(ids.map((id) => [id, request]));
    },
    async findByExternalId() {
      asked(1);
      throw AWAY;
    },
  });
  const reconciler = aReconciler({ queue, ci, store, clock: shown });
  const limits = {
    leaseMs: 90_000,
    recheckMs: 0.9 * MINUTE,
    reclaimThresholdMs: 10 * MINUTE,
    batchSize,
    concurrency: 1,
  };
  const log = pino({ level: 'silent' });
  return sweep({ store, queue, ci, clock: shown, log, reconciler, instance: 'test', ...limits }, stop.signal);
}

describe('a sweep', () => {
  it('keeps what is wrong with a task of which it could not find out anything', async () => {
    const taskId = await aMapping('submitted');
    request = { kind: 'unreadable', error: AWAY };
    await sweepOnce();
    expect(await store.openMapping(taskId)).toMatchObject({ attempts: 4, lastError: 'Buildbot is away' });
    for (let round = 0; round < 40; round += 1) {
      await sweepOnce();
    }
    // As many as an operator is told of, and not so many that an upload would be given up at its first try.
    expect(await store.openMapping(taskId)).toMatchObject({ attempts: 5 });
  });

  it('forgets what was wrong when all is well', async () => {
    const taskId = await aMapping('submitted');
    request = { kind: 'present', value: aRequest({ buildRequestId: 17 }) };
    await sweepOnce();
    expect(await store.openMapping(taskId)).toMatchObject({ attempts: 0, lastError: null });
  });

  it('ends where what it has let go is due again before it has come to the others', async () => {
    request = { kind: 'unreadable', error: AWAY };
    await someMappings(6);
    answerMs = 30_000;
    expect(await sweepOnce({ batchSize: 2 })).toMatchObject({ due: 6, isCut: false });
    expect(batches).toEqual([2, 2, 2]);
  });

  it('ends although the clock is set back meanwhile', async () => {
    request = { kind: 'unreadable', error: AWAY };
    await someMappings(6);
    answerMs = 30_000;
    // As soon as the first batch is read.
    const shown = { ...clock, now: () => clock.now() - (batches.length > 0 ? 1.5 * MINUTE : 0) };
    await sweepOnce({ batchSize: 2, shown });
    expect(batches).toEqual([2, 2, 2]);
  });

  it('leaves to the next one what it does not come to in two minutes, which begins with that', async () => {
    request = { kind: 'unreadable', error: AWAY };
    const taskIds = await someMappings(6);
    answerMs = MINUTE;
    expect(await sweepOnce({ batchSize: 2 })).toMatchObject({ due: 4, isCut: true });
    const left = await attemptsOf(taskIds);
    expect(left.filter((attempts) => attempts === 3)).toHaveLength(2);
    expect(await sweepOnce({ batchSize: 2 })).toMatchObject({ due: 4 });
    expect(await attemptsOf(taskIds)).not.toContain(3);
  });

  it('begins no more passes then', async () => {
    await Promise.all(Array.from({ length: 6 }, () => aMapping('intended')));
    answerMs = MINUTE;
    expect(await sweepOnce()).toMatchObject({ due: 6, passes: 2, failed: 2, isCut: true });
    // What was left is due as before, and anybody may have it.
    const left = await store.leaseDue({ owner: 'another', leaseUntil: clock.now(), now: clock.now(), limit: 9 });
    expect(left.filter(({ attempts }) => attempts === 3)).toHaveLength(4);
    clock.advance(MINUTE);
    answerMs = 0;
    expect(await sweepOnce()).toMatchObject({ due: 6, passes: 6, isCut: false });
  });

  it('does something about a batch, however long it took to read', async () => {
    request = { kind: 'unreadable', error: AWAY };
    await Promise.all([aMapping('submitted'), aMapping('intended'), aMapping('intended')]);
    answerMs = 3 * MINUTE;
    expect(await sweepOnce()).toMatchObject({ due: 3, passes: 1, isCut: true });
  });

  it('begins no more passes when it is to stop, and gives back what it has', async () => {
    const taskIds = await Promise.all(Array.from({ length: 6 }, () => aMapping('intended')));
    expect(await sweepOnce({ stopAt: 1 })).toMatchObject({ due: 6, passes: 1, isCut: false });
    const open = await Promise.all(taskIds.map((taskId) => store.openMapping(taskId)));
    expect(open.map((mapping) => mapping?.leaseOwner)).toEqual(Array(6).fill(null));
    expect(open.filter((mapping) => mapping?.attempts === 3)).toHaveLength(5);
  });

  it('keeps what it reads, however long that takes', async () => {
    request = { kind: 'unreadable', error: AWAY };
    const [taskId = ''] = await someMappings(1);
    const taken: number[] = [];
    // Longer than a lease lasts, while another instance sweeps, too.
    onAsked = async () => {
      for (let part = 0; part < 5; part += 1) {
        clock.advance(MINUTE / 2);
        await eventually(async () => ((await store.openMapping(taskId))?.leaseUntil ?? 0) > clock.now() + MINUTE);
        const now = clock.now();
        taken.push((await store.leaseDue({ owner: 'another', leaseUntil: now + MINUTE, now, limit: 9 })).length);
      }
    };
    expect(await sweepOnce()).toMatchObject({ due: 1, isCut: false });
    expect(taken).toEqual([0, 0, 0, 0, 0]);
    expect(await store.openMapping(taskId)).toMatchObject({ leaseOwner: null, attempts: 4 });
  });
});
