/** A build request too many: made by a pass that was overtaken between its call and its record. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import pino from 'pino';
import type { RequestView } from '../../src/domain/build.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import { LegacyCiError, StoreError } from '../../src/errors.ts';
import type { Clock, MappingStore, Seen } from '../../src/ports.ts';
import { createWithdrawals } from '../../src/reflector/apply/withdrawals.ts';
import { aRequest, aTask, MINUTE, NOW, pending, requestComplete, TASK_ID } from '../support/builders.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aReconciler } from '../support/reconciler.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const OURS = 17;
const THEIRS = 18;

let store: MappingStore;
beforeEach(async () => {
  store = await openMemoryStore();
});
afterEach(() => store.close());

/** Another pass takes the mapping over, and does this to it. */
async function overtake(change: (mapping: Mapping) => Promise<unknown>): Promise<void> {
  const now = NOW + 10 * MINUTE;
  const leased = await store.lease(TASK_ID, { owner: 'other', leaseUntil: now + MINUTE, now });
  if (leased.kind === 'leased') {
    await change(leased.mapping);
  }
}

interface Story {
  /** While the request is made. */
  readonly meanwhile: () => Promise<void>;
  readonly found?: number;
  readonly theirs?: RequestView;
  /** How many cancels come to nothing. */
  readonly lostCancels?: number;
  /** Why a cancel is impossible. */
  readonly impossible?: string;
  /** How often 17 cannot be read. */
  readonly unread?: number;
  /** Requests that the build of 17 serves, too. */
  readonly sharedWith?: readonly number[];
  /** The bridge is stopped right after the pass. At once, and without a stop, unless given. */
  readonly sleep?: Clock['sleep'];
  /** What happens between two tries to withdraw it. */
  readonly sleepBetween?: () => Promise<void>;
  /** In place of the store's own, for the withdrawal. */
  readonly openMapping?: MappingStore['openMapping'];
  /** In place of the store's own, for the pass. */
  readonly update?: MappingStore['update'];
}

/** One pass that makes request 17; answers which requests were cancelled, how often one was made, and what people are told. */
async function pass(story: Story) {
  const { meanwhile, found, theirs = aRequest({ buildRequestId: THEIRS }), lostCancels = 0, sharedWith = [] } = story;
  let { unread = 0 } = story;
  const cancelled: number[] = [];
  let submitted = 0;
  const ours = () =>
    cancelled.length > lostCancels
      ? { ...requestComplete('CANCELLED'), buildRequestId: OURS }
      : aRequest({ buildRequestId: OURS, sharedWith });
  const view = (id: number): Seen<RequestView> => ({ kind: 'present', value: id === OURS ? ours() : theirs });
  const queue = aQueue({
    status: async () => ({ kind: 'present', value: aTask([pending()]) }),
    task: async () => ({ kind: 'present', value: { ...aTask([]), scopes: [], payload: { buildername: 'b' } } }),
  });
  const ci = aLegacyCi({
    builders: async (wanted) => new Set([wanted]),
    problems: async () => [],
    collapseKey: () => null,
    async submit() {
      submitted += 1;
      await meanwhile();
      return OURS;
    },
    findByExternalId: async () => (found === undefined ? { kind: 'absent' } : view(found)),
    async readMany(ids) {
      unread -= 1;
      const error = new LegacyCiError('legacy-ci-protocol', 'nonsense', { isTransient: true });
      return new Map(ids.map((id) => [id, unread >= 0 ? { kind: 'unreadable', error } : view(id)]));
    },
    async cancel({ buildRequestId }) {
      cancelled.push(buildRequestId);
      return story.impossible === undefined ? { kind: 'asked' } : { kind: 'impossible', why: story.impossible };
    },
  });
  const { sleep = story.sleepBetween ?? (async () => undefined), openMapping = store.openMapping } = story;
  const said: string[] = [];
  const log = pino({ level: 'warn' }, { write: (line: string) => void said.push(line) });
  const clock = { ...createManualClock(NOW), sleep };
  const withdrawals = createWithdrawals({ ci, store: { ...store, openMapping }, clock, log });
  const own = { ...store, update: story.update ?? store.update };
  const result = await aReconciler({ queue, ci, store: own, clock, log, withdrawals }).reconcile(TASK_ID);
  await (story.sleep ? withdrawals.stop() : withdrawals.settled());
  const failures = said.filter((line) => line.includes('nonsense')).length;
  return {
    cancelled,
    submitted,
    result,
    failures,
    said,
    isToBeCancelledByHand: said.some((line) => line.includes('by hand')),
  };
}

const recordTheirs = () =>
  overtake((mapping) => store.release(mapping, { state: 'submitted', buildRequestId: THEIRS }, NOW));
const onlyLease = () => overtake(async () => undefined);

it('is withdrawn where the task has another one', async () => {
  expect(await pass({ meanwhile: recordTheirs })).toMatchObject({ cancelled: [OURS], submitted: 1 });
  expect(await store.openMapping(TASK_ID)).toMatchObject({ buildRequestId: THEIRS });
});

it('is withdrawn where the task is no longer wanted', async () => {
  const close = () => overtake((mapping) => store.release(mapping, { state: 'closed', resolved: NOW }, NOW));
  expect(await pass({ meanwhile: close })).toMatchObject({ cancelled: [OURS] });
});

it('is not withdrawn where its build serves others, too, nor is anybody asked to', async () => {
  const done = await pass({ meanwhile: recordTheirs, sharedWith: [4000] });
  expect(done).toMatchObject({ cancelled: [], isToBeCancelledByHand: false });
});

it('is to be cancelled by hand where no cancel has an effect', async () => {
  const done = await pass({ meanwhile: recordTheirs, lostCancels: 100 });
  expect(done).toMatchObject({ isToBeCancelledByHand: true });
});

it('is to be cancelled by hand where its build has begun and nothing can stop it', async () => {
  const why = 'there is no web status';
  const done = await pass({ meanwhile: recordTheirs, impossible: why, lostCancels: 100 });
  expect(done).toMatchObject({ cancelled: [OURS], isToBeCancelledByHand: true });
  expect(done.said.filter((line) => line.includes('build request withdrawn'))).toEqual([]);
  expect(done.said.filter((line) => line.includes(why))).toHaveLength(1);
});

it('is asked to be cancelled again until it is', async () => {
  const done = await pass({ meanwhile: recordTheirs, lostCancels: 2 });
  expect(done).toMatchObject({ cancelled: [OURS, OURS, OURS] });
  expect(done.said.filter((line) => line.includes('build request withdrawn'))).toHaveLength(1);
});

it.each([
  [2, { cancelled: [OURS], failures: 2, isToBeCancelledByHand: false }],
  // It may be the mapping's: who cancelled that by hand would cancel the task.
  [100, { cancelled: [], failures: 8, isToBeCancelledByHand: false }],
])('is said once for each try not to be readable, %i times', async (unread, done) => {
  expect(await pass({ meanwhile: recordTheirs, unread })).toMatchObject(done);
});

it('is kept where the one that has taken over will find it', async () => {
  expect(await pass({ meanwhile: onlyLease, found: OURS })).toMatchObject({ cancelled: [] });
});

it('is withdrawn where the one that has taken over will find another', async () => {
  expect(await pass({ meanwhile: onlyLease, found: THEIRS })).toMatchObject({ cancelled: [OURS] });
});

it('is kept as long as the record of it may still take effect, and where it has', async () => {
  let takeEffect = async () => undefined as unknown;
  const done = await pass({
    meanwhile: async () => undefined,
    // As where a process that slept has made one for the same submission.
    found: THEIRS,
    async update(mapping, changes, now) {
      if (changes.buildRequestId !== OURS) {
        return store.update(mapping, changes, now);
      }
      takeEffect = () => store.update(mapping, changes, now);
      throw new StoreError('store-unavailable', 'no answer', { isTransient: true });
    },
    sleepBetween: async () => void (await takeEffect()),
  });
  expect(done.cancelled).toEqual([]);
  expect(await store.openMapping(TASK_ID)).toMatchObject({ state: 'submitted', buildRequestId: OURS });
});

it('is kept where the other one was collapsed into it', async () => {
  const theirs = { ...requestComplete('SKIPPED'), buildRequestId: THEIRS };
  expect(await pass({ meanwhile: recordTheirs, theirs })).toMatchObject({ cancelled: [] });
});

it('is withdrawn where another pass has looked before, and is about to make one', async () => {
  let tries = 0;
  const done = await pass({
    meanwhile: onlyLease,
    found: OURS,
    async sleepBetween() {
      tries += 1;
      const open = await store.openMapping(TASK_ID);
      if (tries === 2 && open) {
        await store.release(open, { state: 'submitted', buildRequestId: THEIRS }, NOW);
      }
    },
  });
  expect(done).toMatchObject({ cancelled: [OURS], isToBeCancelledByHand: false });
});

it('is not to be cancelled by hand where nobody can tell whether it is too many: its task may want it', async () => {
  const away = new StoreError('store-unavailable', 'away', { isTransient: true });
  const done = await pass({ meanwhile: onlyLease, openMapping: () => Promise.reject(away) });
  expect(done).toMatchObject({ cancelled: [], isToBeCancelledByHand: false });
  expect(done.said.filter((line) => line.includes('it is not known'))).toHaveLength(1);
});

it('is followed, and none is made in its place, where the mapping’s own was collapsed into it', async () => {
  await pass({ meanwhile: recordTheirs });
  const theirs = { ...requestComplete('SKIPPED'), buildRequestId: THEIRS };
  const later = await pass({ meanwhile: async () => undefined, theirs, found: OURS });
  expect(later).toMatchObject({ cancelled: [], submitted: 0 });
  expect(await store.openMapping(TASK_ID)).toMatchObject({ state: 'submitted', buildRequestId: OURS });
});

it('holds up neither its pass nor a stop, which asks once more', async () => {
  const sleep: Clock['sleep'] = (_ms, signal) =>
    new Promise((resolve) => {
      signal?.addEventListener('abort', () => resolve(), { once: true });
      if (signal?.aborted) {
        resolve();
      }
    });
  const { result, cancelled } = await pass({ meanwhile: recordTheirs, lostCancels: 100, sleep });
  expect(result).toEqual({ kind: 'busy' });
  expect(cancelled).toEqual([OURS, OURS]);
});
