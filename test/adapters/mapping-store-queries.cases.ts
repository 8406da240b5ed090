import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import slugid from 'slugid';
import type { ListWish, NewMapping, TraceEvent } from '../../src/domain/mapping.ts';
import { addMany, addReleased, type Engine, LEASE, NOW, type Opened, openStore } from './mapping-store-support.ts';

const event = (taskId: string, more: Partial<TraceEvent> = {}): TraceEvent => ({
  ...{ taskId, runId: 0, at: NOW, instance: 'i', what: 'claimRun', detail: 'the build has started' },
  ...more,
});

/** Questions about many mappings, traces, instances, and what is pruned. */
export function describeQueries(engine: Engine): void {
  let opened: Opened;
  beforeAll(async () => {
    opened = await openStore(engine);
  });
  beforeEach(() => opened.clear());
  afterAll(() => opened?.drop());

  it('finds the open mappings of requests and of tasks, however many are asked for', async () => {
    const open = await addReleased(opened.store, {}, { state: 'submitted', buildRequestId: 17 });
    const closed = await addReleased(opened.store, {}, { state: 'closed', buildRequestId: 18, resolved: NOW });
    const requests = Array.from({ length: 2500 }, (_, at) => at);
    expect(await opened.store.tasksOfRequests(requests)).toEqual([open.taskId]);
    expect(await opened.store.tasksOfRequests([])).toEqual([]);
    const tasks = [...Array.from({ length: 2500 }, () => slugid.nice()), open.taskId, closed.taskId];
    expect(await opened.store.openAmong(tasks)).toEqual(new Set([open.taskId]));
    expect(await opened.store.openAmong([])).toEqual(new Set());
  });

  it('tells which build requests nobody wants any more', async () => {
    await addReleased(opened.store, {}, { state: 'submitted', buildRequestId: 17 });
    await addReleased(opened.store, {}, { state: 'cancelling', buildRequestId: 18 });
    await addReleased(opened.store, {}, { state: 'closed', buildRequestId: 19, resolved: NOW });
    expect(await opened.store.unwantedAmong([17, 18, 19, 20])).toEqual(new Set([18]));
    expect(await opened.store.unwantedAmong([])).toEqual(new Set());
    expect(await opened.store.ownAmong([17, 18, 19, 20])).toEqual(new Set([17, 18]));
    expect(await opened.store.ownAmong([])).toEqual(new Set());
  });

  it('makes all open mappings due', async () => {
    await addReleased(opened.store, {}, { state: 'submitted', nextCheckAt: NOW + 50 });
    await addReleased(opened.store, {}, { state: 'held', nextCheckAt: NOW + 60 });
    await addReleased(opened.store, {}, { state: 'submitted', nextCheckAt: NOW - 5 });
    await addReleased(opened.store, {}, { state: 'closed', resolved: NOW });
    // A submission or a cancel that may still take effect is not to be looked at before its time.
    await addReleased(opened.store, {}, { state: 'intended', nextCheckAt: NOW + 50 });
    await addReleased(opened.store, {}, { state: 'cancelling', nextCheckAt: NOW + 50 });
    expect(await opened.store.makeAllDue(NOW)).toBe(2);
    expect(await opened.store.leaseDue({ ...LEASE, limit: 10 })).toHaveLength(3);
  });

  it('leaves the version of what it makes due, so that passes under way go on', async () => {
    const mapping = await addReleased(opened.store, {}, { state: 'submitted', nextCheckAt: NOW + 50 });
    await opened.store.makeAllDue(NOW);
    expect((await opened.store.update(mapping, { attempts: 1 }, NOW)).kind).toBe('stored');
  });

  it.each<[string, Partial<NewMapping>, boolean]>([
    ['an intended one', { state: 'intended' }, true],
    ['a submitted one that nothing has claimed', { state: 'submitted' }, true],
    ['a submitted one that is claimed', { state: 'submitted', takenUntil: NOW }, false],
    ['one that is held back', { state: 'held' }, false],
    ['one that is refused', { state: 'refusing' }, false],
    ['one of another key', { collapseKey: 'K' }, false],
  ])('hasUnclaimed: %s', async (_what, more, expected) => {
    const mapping = await addReleased(opened.store, { collapseKey: 'k', ...more });
    expect(await opened.store.hasUnclaimed('k', null)).toBe(expected);
    expect(await opened.store.hasUnclaimed('k', mapping.id)).toBe(false);
    expect(await opened.store.hasUnclaimed('k', mapping.id + 1)).toBe(expected);
    await opened.store.update(mapping, { state: 'closed', resolved: NOW }, NOW);
    expect(await opened.store.hasUnclaimed('k', null)).toBe(false);
  });

  it('nextHeld: one that is claimed, then the highest priority, then the oldest', async () => {
    expect(await opened.store.nextHeld('k')).toBeUndefined();
    const held = { collapseKey: 'k', state: 'held' } as const;
    const old = await addReleased(opened.store, held);
    await addReleased(opened.store, held);
    expect(await opened.store.nextHeld('k')).toBe(old.taskId);
    const urgent = await addReleased(opened.store, { ...held, priority: 6 });
    await addReleased(opened.store, { ...held, priority: 6 });
    await addReleased(opened.store, { ...held, collapseKey: 'K', priority: 7 });
    expect(await opened.store.nextHeld('k')).toBe(urgent.taskId);
    const claimed = await addReleased(opened.store, { ...held, takenUntil: NOW });
    await addReleased(opened.store, { ...held, takenUntil: NOW });
    expect(await opened.store.nextHeld('k')).toBe(claimed.taskId);
  });

  it('overview: open mappings by state, those that fail, and the claim that ends first', async () => {
    const byState = { refusing: 0, held: 0, intended: 0, submitted: 0, cancelling: 0 };
    expect(await opened.store.overview()).toEqual({ byState, failing: 0, nearestTakenUntil: null });
    await addReleased(opened.store, { state: 'refusing' }, { attempts: 5 });
    await addReleased(opened.store, { state: 'held' }, { attempts: 4 });
    await addReleased(opened.store, { state: 'held' }, { attempts: 9 });
    await addReleased(opened.store, { state: 'submitted' }, { takenUntil: NOW + 2000 });
    await addReleased(opened.store, { state: 'submitted' }, { takenUntil: NOW + 1000 });
    // What is cancelled or closed only remembers its claim.
    await addReleased(opened.store, {}, { state: 'cancelling', takenUntil: NOW - 1 });
    await addReleased(opened.store, {}, { state: 'closed', resolved: NOW, attempts: 9, takenUntil: NOW });
    expect(await opened.store.overview()).toEqual({
      byState: { refusing: 1, held: 2, intended: 0, submitted: 2, cancelling: 1 },
      failing: 2,
      nearestTakenUntil: NOW + 1000,
    });
  });

  describe('list', () => {
    const everything = { state: undefined, isFailing: false, limit: 10 };
    const shown = async (wish: ListWish) =>
      (await opened.store.list(wish)).map((listed) =>
        listed.kind === 'mapping' ? listed.mapping.taskId : `${listed.id} ${listed.taskId}`,
      );

    it('has open mappings, those that fail first, and of these the one that failed most often', async () => {
      const fine = await addReleased(opened.store, {}, { state: 'submitted' });
      const once = await addReleased(opened.store, {}, { state: 'held', attempts: 1 });
      const often = await addReleased(opened.store, {}, { state: 'submitted', attempts: 12, lastError: 'away' });
      const told = await addReleased(opened.store, {}, { state: 'cancelling', lastError: 'odd' });
      await addReleased(opened.store, {}, { state: 'closed', resolved: NOW, attempts: 20, lastError: 'over' });
      const [a, b, c, d] = [often, once, told, fine].map(({ taskId }) => taskId);
      expect(await shown(everything)).toEqual([a, b, c, d]);
      expect(await shown({ ...everything, isFailing: true })).toEqual([a, b, c]);
      expect(await shown({ ...everything, state: 'submitted' })).toEqual([a, d]);
      expect(await shown({ ...everything, state: 'submitted', isFailing: true })).toEqual([a]);
      expect(await shown({ ...everything, state: 'refusing' })).toEqual([]);
      expect(await shown({ ...everything, limit: 2 })).toEqual([a, b]);
      expect(await opened.store.list({ ...everything, limit: 1 })).toEqual([{ kind: 'mapping', mapping: often }]);
    });

    it('has all mappings of one task, newest first', async () => {
      const first = await addReleased(opened.store, {}, { state: 'closed', resolved: NOW });
      const second = await addReleased(opened.store, { taskId: first.taskId, runId: 1 });
      await addReleased(opened.store);
      const { taskId } = first;
      const listed = [second, first].map((mapping) => ({ kind: 'mapping', mapping }));
      expect(await opened.store.list({ taskId, limit: 10 })).toEqual(listed);
      expect(await opened.store.list({ taskId, limit: 1 })).toEqual(listed.slice(0, 1));
      expect(await opened.store.list({ taskId: slugid.nice(), limit: 10 })).toEqual([]);
    });

    it('tells a row that cannot be read from the others', async () => {
      const { id, taskId } = await addReleased(opened.store);
      const other = await addReleased(opened.store);
      await opened.db('tasks').where({ id }).update({ state: 'nonsense', attempts: 1 });
      expect(await shown(everything)).toEqual([`${id} ${taskId}`, other.taskId]);
      expect(await opened.store.list({ taskId, limit: 10 })).toEqual([{ kind: 'unreadable', id, taskId }]);
    });
  });

  it('keeps the trace of a task in the order in which it was written', async () => {
    const taskId = slugid.nice();
    const written = [event(taskId, { at: NOW + 1 }), event(taskId, { runId: null, at: NOW, what: 'closeMapping' })];
    await opened.store.addEvents(written);
    await opened.store.addEvents([event(slugid.nice())]);
    await opened.store.addEvents([]);
    expect(await opened.store.eventsOf(taskId)).toEqual(written);
    // Reading changes nothing.
    expect(await opened.store.eventsOf(taskId)).toEqual(written);
    expect(await opened.store.eventsOf(slugid.nice())).toEqual([]);
    expect(await opened.store.eventsOf(taskId, 2)).toEqual(written);
    expect(await opened.store.eventsOf(taskId, 1)).toEqual(written.slice(1));
  });

  it('remembers each instance by its last heartbeat', async () => {
    const first = { instance: 'a', version: '1', services: ['reflector', 'http'], started: NOW, heartbeat: NOW };
    const second = { ...first, instance: 'A', services: [] };
    await opened.store.heartbeat(first);
    await opened.store.heartbeat(second);
    await opened.store.heartbeat({ ...first, heartbeat: NOW + 5, version: '2' });
    const known = [...(await opened.store.instances())].sort((one) => (one.instance === 'A' ? -1 : 1));
    expect(known).toEqual([second, { ...first, heartbeat: NOW + 5, version: '2' }]);
  });

  it("tells the time by its server's clock", async () => {
    const before = Date.now();
    const now = await opened.store.now();
    expect(Number.isInteger(now)).toBe(true);
    // The same machine's, to the millisecond.
    expect(now).toBeGreaterThanOrEqual(before - 1);
    expect(now).toBeLessThanOrEqual(Date.now() + 1);
  });

  describe('prune', () => {
    it('removes what was resolved before, with its events, oldest first and up to the limit', async () => {
      const closed: string[] = [];
      for (const resolved of [NOW - 1, NOW - 3, NOW - 2, NOW]) {
        const { taskId } = await addReleased(opened.store, {}, { state: 'closed', resolved });
        await opened.store.addEvents([event(taskId)]);
        closed.push(taskId);
      }
      const open = await addReleased(opened.store, {}, { resolved: NOW - 9 });
      await opened.store.addEvents([event(open.taskId)]);
      const left = async () => {
        const events = await Promise.all([...closed, open.taskId].map((taskId) => opened.store.eventsOf(taskId)));
        const rows = await Promise.all([...closed, open.taskId].map((taskId) => opened.store.mappingsOf(taskId)));
        expect(events.map(({ length }) => length)).toEqual(rows.map(({ length }) => length));
        return rows.map(({ length }) => length);
      };
      expect(await opened.store.prune(NOW, 2)).toBe(2);
      expect(await left()).toEqual([1, 0, 0, 1, 1]);
      expect(await opened.store.prune(NOW, 2)).toBe(1);
      expect(await opened.store.prune(NOW, 2)).toBe(0);
      expect(await left()).toEqual([0, 0, 0, 1, 1]);
    });

    it('keeps the trace of a task as long as it has any mapping', async () => {
      const old = await addReleased(opened.store, {}, { state: 'closed', resolved: NOW - 1 });
      await addReleased(opened.store, { taskId: old.taskId, runId: 1 });
      await opened.store.addEvents([event(old.taskId)]);
      expect(await opened.store.prune(NOW, 10)).toBe(1);
      expect(await opened.store.eventsOf(old.taskId)).toHaveLength(1);
    });

    it('removes what is as old of tasks that never had a mapping', async () => {
      const mapped = await addReleased(opened.store);
      const at = (taskId: string, when: number) => ({ ...event(taskId), at: when });
      await opened.store.addEvents([at(mapped.taskId, NOW - 2), at('old', NOW - 1), at('new', NOW)]);
      expect(await opened.store.prune(NOW, 10)).toBe(0);
      const left = await Promise.all([mapped.taskId, 'old', 'new'].map((taskId) => opened.store.eventsOf(taskId)));
      expect(left.map(({ length }) => length)).toEqual([1, 0, 1]);
    });

    it('comes to them behind any number of lines of tasks that are under way', async () => {
      const mapped = await addReleased(opened.store);
      const at = (taskId: string, when: number) => ({ ...event(taskId), at: when });
      const lines = Array.from({ length: 7 }, () => at(mapped.taskId, NOW - 2));
      await opened.store.addEvents([...lines, at('old', NOW - 1), at('new', NOW)]);
      for (let times = 0; times < 5; times += 1) {
        await opened.store.prune(NOW, 2);
      }
      expect(await opened.store.eventsOf('old')).toEqual([]);
      expect(await opened.store.eventsOf('new')).toHaveLength(1);
      expect(await opened.store.eventsOf(mapped.taskId)).toHaveLength(7);
      await opened.store.addEvents([at('older', NOW - 3)]);
      await opened.store.prune(NOW + 1, 20);
      await opened.store.prune(NOW + 1, 20);
      expect(await opened.store.eventsOf('older')).toEqual([]);
    });

    it('forgets instances not heard of since', async () => {
      const one = { instance: 'a', version: '1', services: [], started: NOW, heartbeat: NOW - 1 };
      await opened.store.heartbeat(one);
      await opened.store.heartbeat({ ...one, instance: 'b', heartbeat: NOW });
      await opened.store.prune(NOW, 10);
      expect((await opened.store.instances()).map(({ instance }) => instance)).toEqual(['b']);
    });

    it('takes many at once, also from two instances', async () => {
      await addMany(opened.db, 1200);
      await opened.db('tasks').update({ state: 'closed', open_task_id: null, resolved: NOW - 1 });
      const other = opened.another();
      await Promise.all([opened.store.prune(NOW, 1000), other.prune(NOW, 1000)]);
      await opened.store.prune(NOW, 1000);
      expect(await opened.db('tasks').count({ count: '*' }).first()).toEqual({ count: expect.anything() });
      expect(await opened.db('tasks').first()).toBeUndefined();
    });
  });
}
