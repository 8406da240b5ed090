import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import slugid from 'slugid';
import { connect } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import type { MappingStore } from '../../src/ports.ts';
import {
  addMany,
  addReleased,
  aNewMapping,
  countStatements,
  type Engine,
  LATER,
  LEASE,
  MINUTE,
  NOW,
  type Opened,
  openStore,
  stored,
} from './mapping-store-support.ts';

/** Many passes, here and elsewhere: each mapping belongs to one of them at a time. */
export function describeLeases(engine: Engine): void {
  let opened: Opened;
  let stores: readonly MappingStore[];
  beforeAll(async () => {
    opened = await openStore(engine);
    stores = [opened.store, opened.another()];
  });
  beforeEach(() => opened.clear());
  afterAll(() => opened?.drop());

  /** Calls `work` on both stores in turn, all at once. */
  const together = <T>(count: number, work: (store: MappingStore, at: number) => Promise<T>): Promise<T[]> =>
    Promise.all(Array.from({ length: count }, (_, at) => work(stores[at % 2] ?? opened.store, at)));

  describe('lease', () => {
    it('is had by one at a time, until it is let go or runs out', async () => {
      const { taskId, version } = await addReleased(opened.store);
      const lease = { owner: 'b#1', leaseUntil: NOW + MINUTE, now: NOW };
      const leased = await opened.store.lease(taskId, lease);
      expect(leased).toMatchObject({
        kind: 'leased',
        mapping: { leaseOwner: 'b#1', leaseUntil: NOW + MINUTE, version: version + 1 },
      });
      expect(await opened.store.lease(taskId, { ...lease, owner: 'c#1' })).toEqual({ kind: 'busy' });
      const after = { owner: 'c#1', leaseUntil: LATER + MINUTE, now: LATER };
      expect(await opened.store.lease(taskId, after)).toMatchObject({ kind: 'leased', mapping: { leaseOwner: 'c#1' } });
      // Whoever held it before can change nothing any more.
      const late = leased.kind === 'leased' ? await opened.store.update(leased.mapping, { attempts: 1 }, LATER) : null;
      expect(late).toEqual({ kind: 'conflict' });
    });

    it('is none where there is no open mapping', async () => {
      expect(await opened.store.lease(slugid.nice(), LEASE)).toEqual({ kind: 'none' });
      const closed = await addReleased(opened.store, {}, { state: 'closed', resolved: NOW });
      expect(await opened.store.lease(closed.taskId, LEASE)).toEqual({ kind: 'none' });
    });

    it('goes to exactly one of many that want it at once', async () => {
      const { taskId } = await addReleased(opened.store);
      const all = await together(40, (store, at) => store.lease(taskId, { ...LEASE, owner: `p#${at}` }));
      expect(all.filter(({ kind }) => kind === 'leased')).toHaveLength(1);
      expect(all.filter(({ kind }) => kind === 'busy')).toHaveLength(39);
    });
  });

  describe('uniqueness, with many at once', () => {
    it('lets one of them open a mapping of a task', async () => {
      const taskId = slugid.nice();
      const all = await together(30, (store, at) =>
        store.insert(aNewMapping({ taskId }), { ...LEASE, owner: `p#${at}` }),
      );
      expect(all.map(({ kind }) => kind).sort()).toEqual([...Array(29).fill('conflict'), 'stored']);
      expect(await opened.store.mappingsOf(taskId)).toEqual(
        all.flatMap((outcome) => (outcome.kind === 'stored' ? [outcome.mapping] : [])),
      );
    });

    it('lets one task into a slot', async () => {
      const all = await together(30, (store) => store.insert(aNewMapping({ collapseKey: 'k', hasSlot: true }), LEASE));
      expect(all.map(({ kind }) => kind).sort()).toEqual([...Array(29).fill('slot-taken'), 'stored']);
    });

    it('lets one of those held back into a slot', async () => {
      const held = await together(20, (store) => addReleased(store, { collapseKey: 'k', state: 'held' }));
      const all = await together(20, (store, at) =>
        store.update(held[at] ?? aMissing(), { state: 'intended', hasSlot: true }, NOW),
      );
      expect(all.map(({ kind }) => kind).sort()).toEqual([...Array(19).fill('slot-taken'), 'stored']);
    });
  });

  describe('leaseDue', () => {
    const due = (limit: number) => ({ owner: 's#1', leaseUntil: NOW + MINUTE, now: NOW, limit });

    it('takes what is due, the most urgent first, up to the limit', async () => {
      const recent = await addReleased(opened.store, {}, { nextCheckAt: NOW });
      const old = await addReleased(opened.store, {}, { nextCheckAt: NOW - 9 });
      const far = await addReleased(opened.store, { takenUntil: NOW + 20 });
      const near = await addReleased(opened.store, { takenUntil: NOW + 10 });
      await addReleased(opened.store, {}, { nextCheckAt: NOW + 1 });
      stored(await opened.store.insert(aNewMapping(), LEASE));
      const taken = await opened.store.leaseDue(due(3));
      expect(taken.map(({ id }) => id)).toEqual([near.id, far.id, old.id]);
      expect(taken[0]).toEqual({ ...near, leaseOwner: 's#1', leaseUntil: NOW + MINUTE, version: near.version + 1 });
      const rest = await opened.store.leaseDue({ ...due(3), owner: 's#2' });
      expect(rest.map(({ id }) => id)).toEqual([recent.id]);
      expect(await opened.store.leaseDue({ ...due(3), owner: 's#3' })).toEqual([]);
    });

    it('takes a claim that is not to be renewed yet when it has waited longest', async () => {
      const claim = async (reclaimAt: number, nextCheckAt: number) =>
        (await addReleased(opened.store, { takenUntil: NOW + 10 }, { reclaimAt, nextCheckAt })).id;
      const late = await claim(NOW + 1, NOW - 1);
      const { id: old } = await addReleased(opened.store, {}, { nextCheckAt: NOW - 2 });
      const early = await claim(NOW + 1, NOW - 3);
      const urgent = await claim(NOW, NOW);
      expect((await opened.store.leaseDue(due(9))).map(({ id }) => id)).toEqual([urgent, early, old, late]);
    });

    it('leaves alone what became due later than is asked for', async () => {
      const old = await addReleased(opened.store, {}, { nextCheckAt: NOW - 5 });
      await addReleased(opened.store, { takenUntil: NOW + 10 }, { nextCheckAt: NOW - 4 });
      const taken = await opened.store.leaseDue({ ...due(9), dueBy: NOW - 5 });
      expect(taken.map(({ id }) => id)).toEqual([old.id]);
    });

    it('takes for urgent nothing that is cancelled, whatever claim it had', async () => {
      const claim = async (state: 'submitted' | 'cancelling', takenUntil: number) =>
        (await addReleased(opened.store, { takenUntil }, { state, reclaimAt: NOW - 1, nextCheckAt: NOW })).id;
      const cancelled = await claim('cancelling', NOW - 10);
      const old = await addReleased(opened.store, {}, { nextCheckAt: NOW - 1 });
      const urgent = await claim('submitted', NOW + 10);
      expect((await opened.store.leaseDue(due(9))).map(({ id }) => id)).toEqual([urgent, old.id, cancelled]);
    });

    it('gives no mapping to two of several sweeps at once', async () => {
      await addMany(opened.db, 300);
      const batches = await together(8, (store, at) => store.leaseDue({ ...due(100), owner: `s#${at}` }));
      const ids = batches.flat().map(({ id }) => id);
      expect(new Set(ids).size).toBe(ids.length);
      // Who finds that others were quicker chooses anew.
      expect(ids).toHaveLength(300);
      for (const [at, batch] of batches.entries()) {
        expect(batch.every(({ leaseOwner }) => leaseOwner === `s#${at}`)).toBe(true);
      }
      // Between them they come to the end, however often they met.
      for (let round = 0; ids.length < 300 && round < 20; round += 1) {
        ids.push(...(await opened.store.leaseDue({ ...due(100), owner: `r#${round}` })).map(({ id }) => id));
      }
      expect(new Set(ids).size).toBe(300);
    });

    it('takes nothing that was leased, or settled, between its statements', async () => {
      const left = await addReleased(opened.store);
      const kept = await addReleased(opened.store);
      const settled = await addReleased(opened.store);
      const slow = connect(opened.url);
      const { atUpdate, goOn } = holdUpdates(slow);
      try {
        const sweep = createMappingStore(slow).leaseDue(due(10));
        await atUpdate;
        await opened.store.lease(kept.taskId, { ...LEASE, owner: 'p#1' });
        const other = await opened.store.lease(settled.taskId, { ...LEASE, owner: 'p#2' });
        await opened.store.release(
          other.kind === 'leased' ? other.mapping : aMissing(),
          { nextCheckAt: LATER, lastError: null },
          NOW,
        );
        goOn();
        expect((await sweep).map(({ id }) => id)).toEqual([left.id]);
        expect((await opened.store.openMapping(kept.taskId))?.leaseOwner).toBe('p#1');
      } finally {
        await slow.destroy();
      }
    });

    it('sweeps a thousand rows in a bounded number of statements', async () => {
      await addMany(opened.db, 1000);
      let taken: readonly Mapping[] = [];
      const leasing = await countStatements(opened.db, async () => {
        taken = await opened.store.leaseDue(due(1000));
      });
      expect(taken).toHaveLength(1000);
      const ids = taken.map(({ buildRequestId }) => buildRequestId ?? 0);
      const finding = await countStatements(opened.db, () => opened.store.tasksOfRequests(ids));
      const releasing = await countStatements(opened.db, () =>
        opened.store.releaseMany(taken, { nextCheckAt: LATER, lastError: null }, NOW),
      );
      expect({ leasing, finding, releasing }).toEqual({ leasing: 3, finding: 2, releasing: 2 });
      expect(await opened.store.leaseDue(due(1))).toEqual([]);
      expect(await opened.store.leaseDue({ ...due(1000), leaseUntil: LATER + 1, now: LATER })).toHaveLength(1000);
    });
  });

  describe('mendTimes', () => {
    const MOST = { leaseMs: 90_000, waitMs: 10 * MINUTE, graceMs: 30_000 };

    it('takes fractions of milliseconds, as a third of a lease has them', async () => {
      const now = await opened.store.now();
      const { taskId } = await addReleased(opened.store, {}, { state: 'intended', nextCheckAt: now + 60 * MINUTE });
      const third = 100_000 / 3;
      expect(await opened.store.mendTimes({ leaseMs: third, waitMs: third, graceMs: third })).toBe(1);
      expect(await opened.store.openMapping(taskId)).toMatchObject({ nextCheckAt: expect.any(Number) });
    });

    it('lets nothing wait or be leased for longer than it can by the database’s time', async () => {
      const now = await opened.store.now();
      const far = { nextCheckAt: now + 60 * MINUTE };
      const waiting = await addReleased(opened.store, {}, { ...far, state: 'submitted', buildRequestId: 17 });
      const intended = await addReleased(opened.store, {}, { ...far, state: 'intended', buildRequestId: null });
      const cancelling = await addReleased(opened.store, {}, { ...far, state: 'cancelling', buildRequestId: 18 });
      const leased = await addReleased(opened.store, {}, { nextCheckAt: now });
      await opened.store.lease(leased.taskId, { owner: 'o', leaseUntil: now + 60 * MINUTE, now });
      expect(await opened.store.mendTimes(MOST)).toBe(4);
      const after = await opened.store.now();
      const isNear = (time: number | undefined, ms: number) =>
        expect([(time ?? 0) >= now + ms, (time ?? 0) <= after + ms]).toEqual([true, true]);
      isNear((await opened.store.openMapping(waiting.taskId))?.nextCheckAt, 0);
      isNear((await opened.store.openMapping(intended.taskId))?.nextCheckAt, MOST.graceMs);
      isNear((await opened.store.openMapping(cancelling.taskId))?.nextCheckAt, 0);
      const mended = await opened.store.openMapping(leased.taskId);
      isNear(mended?.leaseUntil, MOST.leaseMs);
      expect(mended).toMatchObject({ leaseOwner: 'o', nextCheckAt: now });
    });

    it('leaves alone what can be, and what is closed', async () => {
      const now = await opened.store.now();
      const waiting = await addReleased(opened.store, {}, { state: 'submitted', nextCheckAt: now + MOST.waitMs });
      const closed = await addReleased(opened.store, {}, { state: 'closed', resolved: NOW, resolution: 'completed' });
      const leased = await addReleased(opened.store, {}, { nextCheckAt: now });
      await opened.store.lease(leased.taskId, { owner: 'o', leaseUntil: now + MOST.leaseMs, now });
      const before = await opened.db('tasks').orderBy('id');
      expect(before).toHaveLength(3);
      expect(await countStatements(opened.db, async () => void (await opened.store.mendTimes(MOST)))).toBe(1);
      expect(await opened.db('tasks').orderBy('id')).toEqual(before);
      expect((await opened.store.mappingsOf(closed.taskId))[0]).toEqual(closed);
      expect((await opened.store.openMapping(waiting.taskId))?.nextCheckAt).toBe(now + MOST.waitMs);
    });
  });

  describe('keepLeased', () => {
    it('keeps leases for longer, and leaves the mappings as they were read', async () => {
      const lease = { owner: 's#1', leaseUntil: NOW + 1, now: NOW, limit: 2 };
      await addReleased(opened.store, {}, { nextCheckAt: NOW });
      const lost = await addReleased(opened.store, {}, { nextCheckAt: NOW });
      const leased = await opened.store.leaseDue(lease);
      await opened.db('tasks').where({ id: lost.id }).update({ lease_owner: 's#2' });
      await opened.store.keepLeased(leased, LATER);
      const taken = await opened.store.leaseDue({ ...lease, owner: 's#3', now: NOW + 2, leaseUntil: NOW + 3 });
      expect(taken.map(({ id }) => id)).toEqual([lost.id]);
      const [kept = lost] = leased.filter(({ id }) => id !== lost.id);
      expect(await opened.store.openMapping(kept.taskId)).toEqual({ ...kept, leaseUntil: LATER });
      stored(await opened.store.release(kept, {}, NOW));
    });
  });

  describe('keepLeased, late', () => {
    it('does not shorten a lease that was renewed since', async () => {
      await addReleased(opened.store, {}, { nextCheckAt: NOW });
      const leased = await opened.store.leaseDue({ owner: 's#1', leaseUntil: NOW + 1, now: NOW, limit: 2 });
      const [mapping] = leased;
      stored(await opened.store.renewLease(mapping ?? aMissing(), LATER + 1, NOW));
      await opened.store.keepLeased(leased, LATER);
      expect(await opened.store.openMapping(mapping?.taskId ?? '')).toMatchObject({ leaseUntil: LATER + 1 });
    });
  });

  describe('giveBack', () => {
    it('lets leases go, and leaves all else as it is', async () => {
      const lease = { owner: 's#1', leaseUntil: LATER, now: NOW, limit: 2 };
      const rest = { attempts: 3, lastError: 'away', nextCheckAt: NOW - 1 };
      await addReleased(opened.store, {}, rest);
      const lost = await addReleased(opened.store, {}, rest);
      const leased = await opened.store.leaseDue(lease);
      // Another has it since.
      await opened.db('tasks').where({ id: lost.id }).update({ lease_owner: 's#2' });
      await opened.store.giveBack(leased);
      const [again, ...others] = await opened.store.leaseDue({ ...lease, owner: 's#3' });
      expect(again).toMatchObject({ ...rest, leaseOwner: 's#3' });
      expect(others).toEqual([]);
      expect(await opened.store.openMapping(lost.taskId)).toMatchObject({ leaseOwner: 's#2', leaseUntil: LATER });
    });
  });

  describe('releaseMany', () => {
    it('lets go of what is still leased as it was, and of nothing else', async () => {
      const failed = { attempts: 2, lastError: 'was away' };
      await addReleased(opened.store, {}, failed);
      await addReleased(opened.store, {}, failed);
      const lease = { owner: 's#1', leaseUntil: NOW + MINUTE, now: NOW, limit: 10 };
      const [first, second] = await opened.store.leaseDue(lease);
      const [again] = await opened.store.leaseDue({
        ...lease,
        owner: 's#2',
        leaseUntil: LATER + 1,
        now: LATER,
        limit: 1,
      });
      const [mine, lost] = first?.id === again?.id ? [second, first] : [first, second];
      await opened.store.releaseMany(
        [mine ?? aMissing(), lost ?? aMissing()],
        { nextCheckAt: LATER + 5, lastError: null },
        NOW + 3,
      );
      expect(await opened.store.openMapping(mine?.taskId ?? '')).toEqual({
        ...mine,
        ...{ leaseOwner: null, leaseUntil: 0, nextCheckAt: LATER + 5, attempts: 0, lastError: null },
        ...{ version: (mine?.version ?? 0) + 1, updated: NOW + 3 },
      });
      expect(await opened.store.openMapping(lost?.taskId ?? '')).toEqual(again);
      const later = await opened.store.leaseDue({ ...lease, owner: 's#3', now: LATER + 5, leaseUntil: 2 * LATER });
      const away = 'is away'.padEnd(3000, '!');
      await opened.store.releaseMany(later, { nextCheckAt: LATER + 9, lastError: away }, NOW + 4);
      expect(await opened.store.openMapping(mine?.taskId ?? '')).toMatchObject({
        ...{ attempts: 1, lastError: away.slice(0, 2000), nextCheckAt: LATER + 9, leaseOwner: null },
      });
      await opened.store.releaseMany([], { nextCheckAt: LATER, lastError: null }, NOW);
    });

    it('does not make due what was closed under the lease', async () => {
      await addReleased(opened.store);
      const lease = { owner: 's#1', leaseUntil: NOW + MINUTE, now: NOW, limit: 10 };
      const leased = await opened.store.leaseDue(lease);
      await opened.store.update(leased[0] ?? aMissing(), { state: 'closed', resolved: NOW }, NOW);
      await opened.store.releaseMany(leased, { nextCheckAt: NOW, lastError: null }, NOW);
      expect(await opened.store.leaseDue({ ...lease, now: LATER })).toEqual([]);
    });
  });
}

/** Lets no update of a pool reach the database before `goOn`; `atUpdate` resolves when one wants to. */
function holdUpdates(db: Knex): { readonly atUpdate: Promise<void>; goOn(): void } {
  let goOn = (): void => undefined;
  let reached = (): void => undefined;
  const mayGo = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const atUpdate = new Promise<void>((resolve) => {
    reached = resolve;
  });
  const query: (connection: unknown, statement: { sql: string }) => Promise<unknown> = db.client.query.bind(db.client);
  db.client.query = async (connection: unknown, statement: { sql: string }) => {
    if (statement.sql.startsWith('update')) {
      reached();
      await mayGo;
    }
    return query(connection, statement);
  };
  return { atUpdate, goOn };
}

function aMissing(): Mapping {
  throw new Error('a mapping is missing');
}
