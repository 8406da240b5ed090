import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import slugid from 'slugid';
import type { Mapping } from '../../src/domain/mapping.ts';
import {
  addReleased,
  aNewMapping,
  type Engine,
  LATER,
  LEASE,
  MINUTE,
  NOW,
  type Opened,
  openStore,
  stored,
} from './mapping-store-support.ts';

const HOSTILE = [
  "Robert'); DROP TABLE tasks;--",
  '\\\' OR 1=1 -- \\"',
  '%_\\%',
  '🦊𝒳 zażółć — 漢字 \u202e',
  'nul:\u0000.',
  'half:\ud83e.',
  '?:name ?? $1 {0}',
  'two\r\nlines\t\u001b[31m',
];

/** One mapping at a time: what is stored is what is read, and only what was read is changed. */
export function describeRows(engine: Engine): void {
  let opened: Opened;
  beforeAll(async () => {
    opened = await openStore(engine);
  });
  beforeEach(() => opened.clear());
  afterAll(() => opened?.drop());

  describe('insert', () => {
    it('stores a leased mapping, and reads it with numbers for numbers', async () => {
      const given = aNewMapping({ takenUntil: NOW + 1, priority: 6, collapseKey: 'k', hasSlot: true });
      const mapping = stored(await opened.store.insert(given, LEASE));
      const expected: Omit<Mapping, 'id'> = {
        ...given,
        version: 1,
        buildRequestId: null,
        retriesReported: 0,
        reruns: 0,
        cancels: 0,
        nextCheckAt: NOW,
        absentSince: null,
        requestAbsentSince: null,
        reclaimAt: null,
        leaseOwner: 'a#1',
        leaseUntil: NOW + MINUTE,
        attempts: 0,
        lastError: null,
        created: NOW,
        updated: NOW,
        resolved: null,
        resolution: null,
      };
      expect(mapping).toEqual({ ...expected, id: expect.any(Number) });
      expect(await opened.store.openMapping(given.taskId)).toEqual(mapping);
    });

    it('refuses a second open mapping of a task', async () => {
      const given = aNewMapping();
      await opened.store.insert(given, LEASE);
      expect(await opened.store.insert({ ...given, runId: 1 }, { ...LEASE, owner: 'b#1' })).toEqual({
        kind: 'conflict',
      });
      // The slot is taken as well, by the task's own open mapping: that is no reason to wait for it.
      const other = aNewMapping({ collapseKey: 'k', hasSlot: true });
      await opened.store.insert(other, LEASE);
      expect(await opened.store.insert(other, LEASE)).toEqual({ kind: 'conflict' });
    });

    it('refuses a second mapping in a slot, but not one that is held back', async () => {
      await opened.store.insert(aNewMapping({ collapseKey: 'k', hasSlot: true }), LEASE);
      const second = aNewMapping({ collapseKey: 'k', hasSlot: true });
      expect(await opened.store.insert(second, LEASE)).toEqual({ kind: 'slot-taken' });
      expect(await opened.store.openMapping(second.taskId)).toBeUndefined();
      const held = stored(await opened.store.insert({ ...second, state: 'held', hasSlot: false }, LEASE));
      expect(held).toMatchObject({ state: 'held', hasSlot: false, collapseKey: 'k' });
    });

    it('accepts a task again when its mapping is closed', async () => {
      const given = aNewMapping();
      const first = stored(await opened.store.insert(given, LEASE));
      await opened.store.release(first, { state: 'closed', resolved: NOW, resolution: 'failed' }, NOW);
      expect(await opened.store.openMapping(given.taskId)).toBeUndefined();
      const second = stored(await opened.store.insert({ ...given, runId: 1 }, LEASE));
      expect(await opened.store.openMapping(given.taskId)).toEqual(second);
      expect((await opened.store.mappingsOf(given.taskId)).map(({ runId }) => runId)).toEqual([1, 0]);
    });

    it('tells taskIds apart that differ in case only', async () => {
      const lower = `a${slugid.nice().slice(1)}`;
      const upper = `A${lower.slice(1)}`;
      const first = stored(await opened.store.insert(aNewMapping({ taskId: lower }), LEASE));
      const second = stored(await opened.store.insert(aNewMapping({ taskId: upper }), LEASE));
      expect(second.id).not.toBe(first.id);
      expect(await opened.store.openMapping(lower)).toEqual(first);
      expect(await opened.store.mappingsOf(upper)).toEqual([second]);
      expect(await opened.store.openAmong([lower])).toEqual(new Set([lower]));
    });

    it('keeps a collapse key of any length, in one slot', async () => {
      const key = `${'long/'.repeat(200)}🦊`;
      const mapping = stored(await opened.store.insert(aNewMapping({ collapseKey: key, hasSlot: true }), LEASE));
      const rival = { collapseKey: key, hasSlot: true };
      expect(await opened.store.insert(aNewMapping(rival), LEASE)).toEqual({ kind: 'slot-taken' });
      const similar = aNewMapping({ ...rival, collapseKey: `${key}!` });
      expect((await opened.store.insert(similar, LEASE)).kind).toBe('stored');
      for (const asked of [key, mapping.collapseKey ?? '']) {
        expect(await opened.store.hasUnclaimed(asked, null)).toBe(true);
        expect(await opened.store.hasUnclaimed(asked, mapping.id)).toBe(false);
      }
    });
  });

  describe('compare-and-set', () => {
    it('changes every field that may change, and answers the row as it is', async () => {
      const before = stored(await opened.store.insert(aNewMapping({ collapseKey: 'k' }), LEASE));
      const changes = {
        runId: 3,
        state: 'submitted',
        externalId: 'x/3/2',
        submissions: 2,
        buildRequestId: 2_147_483_650,
        hasSlot: true,
        retriesReported: 1,
        reruns: 2,
        cancels: 3,
        takenUntil: NOW + 5,
        reclaimAt: NOW + 4,
        priority: 6,
        nextCheckAt: NOW + 6,
        absentSince: NOW + 7,
        requestAbsentSince: NOW + 8,
        attempts: 4,
        lastError: 'why',
        resolved: NOW + 8,
        resolution: 'failed',
      } as const;
      const after = stored(await opened.store.update(before, changes, NOW + 9));
      expect(after).toEqual({ ...before, ...changes, version: before.version + 1, updated: NOW + 9 });
      expect(await opened.store.openMapping(before.taskId)).toEqual(after);
    });

    it('changes nothing of what somebody else has moved', async () => {
      const old = stored(await opened.store.insert(aNewMapping(), LEASE));
      const moved = stored(await opened.store.update(old, { runId: 1 }, NOW));
      const late = NOW + 10;
      expect(await opened.store.update(old, { runId: 2 }, late)).toEqual({ kind: 'conflict' });
      expect(await opened.store.release(old, { state: 'closed' }, late)).toEqual({ kind: 'conflict' });
      expect(await opened.store.renewLease(old, late, late)).toEqual({ kind: 'conflict' });
      expect(await opened.store.openMapping(old.taskId)).toEqual(moved);
    });

    it('lets one of many updates of the same version through', async () => {
      const old = stored(await opened.store.insert(aNewMapping(), LEASE));
      const stores = [opened.store, opened.another()];
      const outcomes = await Promise.all(
        Array.from({ length: 20 }, (_, at) => stores[at % 2]?.update(old, { attempts: at + 1 }, NOW)),
      );
      const won = outcomes.flatMap((outcome) => (outcome?.kind === 'stored' ? [outcome.mapping] : []));
      expect(won).toHaveLength(1);
      expect(await opened.store.openMapping(old.taskId)).toEqual(won[0]);
      expect(outcomes.filter((outcome) => outcome?.kind === 'conflict')).toHaveLength(19);
    });

    it('says so when the slot of a change is taken, and changes nothing', async () => {
      const first = stored(await opened.store.insert(aNewMapping({ collapseKey: 'k', hasSlot: true }), LEASE));
      const held = stored(await opened.store.insert(aNewMapping({ collapseKey: 'k', state: 'held' }), LEASE));
      const take = { state: 'intended', hasSlot: true } as const;
      expect(await opened.store.update(held, take, NOW)).toEqual({ kind: 'slot-taken' });
      expect(await opened.store.openMapping(held.taskId)).toEqual(held);
      await opened.store.update(first, { hasSlot: false }, NOW);
      expect(stored(await opened.store.update(held, take, NOW)).hasSlot).toBe(true);
    });

    it('release lets the lease go, update and renewLease keep it', async () => {
      const mapping = stored(await opened.store.insert(aNewMapping(), LEASE));
      const updated = stored(await opened.store.update(mapping, { attempts: 1 }, NOW));
      expect(updated).toMatchObject({ leaseOwner: 'a#1', leaseUntil: LEASE.leaseUntil });
      const renewed = stored(await opened.store.renewLease(updated, LATER + MINUTE, NOW));
      expect(renewed).toMatchObject({ leaseOwner: 'a#1', leaseUntil: LATER + MINUTE });
      const lease = { owner: 'b#1', leaseUntil: LATER + MINUTE, now: LATER };
      expect(await opened.store.lease(mapping.taskId, lease)).toEqual({ kind: 'busy' });
      const released = stored(await opened.store.release(renewed, { nextCheckAt: LATER }, LATER));
      expect(released).toMatchObject({ leaseOwner: null, leaseUntil: 0 });
      expect(await opened.store.openMapping(mapping.taskId)).toEqual(released);
      expect((await opened.store.lease(mapping.taskId, lease)).kind).toBe('leased');
    });

    it('frees task and slot on close, and is never due again', async () => {
      const mapping = await addReleased(opened.store, { collapseKey: 'k', hasSlot: true });
      const closed = stored(await opened.store.update(mapping, { state: 'closed', resolved: NOW }, NOW));
      expect(closed).toMatchObject({ state: 'closed', hasSlot: false });
      expect(await opened.store.mappingsOf(mapping.taskId)).toEqual([closed]);
      const far = { owner: 'b#1', leaseUntil: NOW * 2 + MINUTE, now: NOW * 2, limit: 10 };
      expect(await opened.store.leaseDue(far)).toEqual([]);
      expect(await opened.store.makeAllDue(NOW)).toBe(0);
    });

    it('rounds times that a backoff left between two milliseconds', async () => {
      const mapping = stored(await opened.store.insert(aNewMapping(), LEASE));
      const released = stored(await opened.store.release(mapping, { nextCheckAt: NOW + 1.5 }, NOW));
      expect(Number.isInteger(released.nextCheckAt)).toBe(true);
      expect(await opened.store.openMapping(mapping.taskId)).toEqual(released);
    });
  });

  describe('text', () => {
    it.each(HOSTILE)('survives %j', async (text) => {
      const mapping = stored(await opened.store.insert(aNewMapping({ builder: text }), LEASE));
      const after = stored(await opened.store.update(mapping, { lastError: text }, NOW));
      await opened.store.addEvents([
        { taskId: mapping.taskId, runId: null, at: NOW, instance: text, what: 'claimRun', detail: text },
      ]);
      const clean = text.replaceAll('\u0000', '\ufffd').replaceAll('\ud83e.', '\ufffd.');
      expect(after).toMatchObject({ lastError: clean });
      expect(await opened.store.openMapping(mapping.taskId)).toEqual({ ...after, builder: clean });
      expect(await opened.store.eventsOf(mapping.taskId)).toMatchObject([{ instance: clean, detail: clean }]);
    });

    it('is clipped to its column, never inside a character', async () => {
      const huge = '🦊'.repeat(100_000);
      const mapping = stored(await opened.store.insert(aNewMapping({ builder: huge }), LEASE));
      const after = stored(await opened.store.update(mapping, { lastError: huge, resolution: huge }, NOW));
      expect(await opened.store.openMapping(mapping.taskId)).toEqual(after);
      const detail = `x${huge}`;
      const event = { taskId: mapping.taskId, runId: 0, at: NOW, instance: detail, what: detail, detail };
      await opened.store.addEvents([event]);
      await opened.store.heartbeat({ instance: huge, version: huge, services: [huge], started: NOW, heartbeat: NOW });
      const [read] = await opened.store.eventsOf(mapping.taskId);
      for (const text of [after.builder, after.lastError, after.resolution, read?.detail, read?.what]) {
        expect(text).toMatch(/^x?🦊{3,}$/u);
      }
      expect([...(read?.detail ?? '')].length).toBeGreaterThanOrEqual(4000);
      expect([...after.builder]).toHaveLength(255);
    });

    it('of a builder can have 255 characters', async () => {
      const builder = '漢'.repeat(255);
      expect(stored(await opened.store.insert(aNewMapping({ builder }), LEASE)).builder).toBe(builder);
    });
  });
}
