import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import type { Knex } from 'knex';
import { type AdoptContext, adopt } from '../../src/adopt/adopt.ts';
import { connect } from '../../src/db/connection.ts';
import { readFirstBridge } from '../../src/db/first-bridge.ts';
import { StoreError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';
import { MINUTE, requestBuilding, requestPending } from '../support/builders.ts';
import { clientOf } from '../support/queue-client.ts';
import { newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';
import { mariadb } from '../support/services/index.ts';
import { addOldRows, createFakeCi, createOldTable, type OldRow, reconcilerOn, tasksOf } from './adopt-support.ts';
import { ENGINES, type Opened, openStore } from './mapping-store-support.ts';

jest.setTimeout(60_000);

let queue: QueueFixture;
let old: { readonly url: string; drop(): Promise<void> };
let oldDb: Knex;

beforeAll(async () => {
  queue = await startQueue();
  old = await mariadb().createDatabase();
  oldDb = connect(old.url);
  await createOldTable(oldDb);
});
afterAll(async () => {
  await oldDb?.destroy();
  await old?.drop();
  await queue?.stop();
});
beforeEach(() => oldDb('tasks').delete());

/** What was reported, sorted, since tasks are looked at together. */
async function adoptAll(store: MappingStore, more: Partial<AdoptContext> = {}): Promise<string[]> {
  const lines: string[] = [];
  await adopt(await readFirstBridge(oldDb), {
    queue: clientOf(queue.emulator.rootUrl),
    store,
    isIgnored: (builder) => builder.startsWith('theirs'),
    now: () => queue.clock.now(),
    report: (outcome, text) => lines.push(`${outcome}: ${text}`),
    ...more,
  });
  return lines.sort();
}

describe.each(ENGINES)("adopting the first bridge's rows into $name", (engine) => {
  let opened: Opened;
  let store: MappingStore;
  beforeEach(async () => {
    opened = await openStore(engine);
    store = opened.store;
  });
  afterEach(() => opened?.drop());

  it('takes over pending and running tasks as the queue has them', async () => {
    const { pending, running } = tasksOf(queue);
    const [waiting, building] = [await pending({ priority: 'high' }), await running()];
    await addOldRows(oldDb, [
      // Left from before a RETRY: the run is pending, whatever the row says.
      { buildrequestId: 21, taskId: waiting, runId: 0, takenUntil: 1_790_000_000 },
      { buildrequestId: 22, taskId: building, runId: 0, takenUntil: null },
    ]);
    expect(await adoptAll(store)).toEqual(
      [
        `adopted: task ${waiting}, run 0, build request 21: its build request is followed; run 0 is pending`,
        `adopted: task ${building}, run 0, build request 22: its build request is followed; run 0 is running`,
      ].sort(),
    );
    const now = queue.clock.now();
    expect(await store.openMapping(waiting)).toMatchObject({
      ...{ runId: 0, state: 'submitted', buildRequestId: 21, builder: 'runtests', submissions: 1 },
      ...{ externalId: `taskId:${waiting}`, taskGroupId: waiting, priority: 4, takenUntil: null },
      ...{ deadline: now + 60 * MINUTE, nextCheckAt: now, leaseOwner: null, leaseUntil: 0, hasSlot: false },
    });
    expect(await store.openMapping(building)).toMatchObject({ buildRequestId: 22, takenUntil: now + 20 * MINUTE });
    expect(await store.eventsOf(building)).toMatchObject([{ what: 'takeOver', runId: 0, instance: 'migrate' }]);
    expect(await store.leaseDue({ owner: 'a', leaseUntil: now + 1, now, limit: 9 })).toHaveLength(2);
  });

  it('finds nothing new the second time, nor when the tasks are over', async () => {
    const { pending } = tasksOf(queue);
    const taskIds = await Promise.all([pending(), pending(), pending()]);
    await addOldRows(oldDb, [
      ...taskIds.map((taskId, at) => ({ buildrequestId: at === 0 ? null : 30 + at, taskId, runId: 0 })),
      { buildrequestId: null, taskId: newTaskId(), runId: 0 },
    ]);
    expect((await adoptAll(store)).every((line) => line.startsWith('adopted'))).toBe(true);
    const before = await opened.db('tasks').orderBy('id');
    const again = await adoptAll(store);
    expect(again).toHaveLength(4);
    expect(again.every((line) => line.endsWith('the bridge has it already') && line.startsWith('known'))).toBe(true);
    for (const [taskId] of (await opened.db('tasks').select('task_id')).map((row) => [row.task_id])) {
      const mapping = await store.openMapping(taskId);
      await store.release(mapping ?? fail(), { state: 'closed', resolved: 1 }, 1);
    }
    const late = await adoptAll(store);
    expect(late.every((line) => line.endsWith('has seen it to its end already'))).toBe(true);
    expect(await opened.db('tasks')).toHaveLength(before.length);
  });

  it('goes by the highest run that has a build request, and tells of the other rows', async () => {
    const { running, retried } = tasksOf(queue);
    const taskId = await running();
    await retried(taskId);
    await addOldRows(oldDb, [
      { buildrequestId: 41, taskId, runId: 0 },
      { buildrequestId: 42, taskId, runId: 1 },
      { buildrequestId: null, taskId, runId: 2 },
    ]);
    const best = 'the row of run 1, build request 42, counts';
    expect(await adoptAll(store)).toEqual([
      `adopted: task ${taskId}, run 1, build request 42: its build request is followed; run 1 is pending`,
      `merged: task ${taskId}, run 0, build request 41: ${best}; nobody follows build request 41: cancel it in Buildbot if it is still open`,
      `merged: task ${taskId}, run 2, no build request: ${best}`,
    ]);
    expect(await store.mappingsOf(taskId)).toMatchObject([{ runId: 1, buildRequestId: 42, retriesReported: 1 }]);
  });

  it('skips what no bridge could follow, and says why', async () => {
    const { pending, running } = tasksOf(queue);
    const [elsewhere, theirs] = [
      await pending({ taskQueueId: 'other/queue' }),
      await pending({ payload: { buildername: 'theirs' } }),
    ];
    const claimed = await running({ workerGroup: 'bbb', workerId: 'bbb' });
    const negative = await pending();
    await addOldRows(oldDb, [
      { buildrequestId: 51, taskId: elsewhere, runId: 0 },
      { buildrequestId: 52, taskId: theirs, runId: 0 },
      { buildrequestId: 53, taskId: claimed, runId: 0 },
      { buildrequestId: 54, taskId: negative, runId: -1 },
      { buildrequestId: 0, taskId: negative, runId: 0 },
      { buildrequestId: 55, taskId: 'no slugid\nat all', runId: 0 },
      { buildrequestId: 56, taskId: '', runId: 0 },
    ]);
    const lines = await adoptAll(store);
    expect(lines).toHaveLength(7);
    for (const expected of [
      `skipped: task ${elsewhere}, run 0, build request 51: its task is for the task queue other/queue`,
      `skipped: task ${theirs}, run 0, build request 52: its builder "theirs" is among builders.ignored`,
      `skipped: task ${claimed}, run 0, build request 53: run 0 is claimed by the worker bbb/bbb`,
      `skipped: task "${negative}", run -1, build request 54: its runId is negative`,
      `skipped: task "${negative}", run 0, build request 0: its buildrequestId is not positive`,
      'skipped: task "no slugid\\nat all", run 0, build request 55: its taskId is no slugid',
      'skipped: task "", run 0, build request 56: its taskId is no slugid',
    ]) {
      expect(lines).toContainEqual(expect.stringContaining(expected));
    }
    expect(await opened.db('tasks')).toEqual([]);
  });

  it('tells of each row in one line, whatever its task asks for', async () => {
    const { pending } = tasksOf(queue);
    const buildername = `theirs\u001b]0;x\u0007\nadopted: task ${'A'.repeat(22)}\u202e${'x'.repeat(1000)}`;
    await addOldRows(oldDb, [{ buildrequestId: 57, taskId: await pending({ payload: { buildername } }), runId: 0 }]);
    const [line = '', ...more] = await adoptAll(store);
    expect(more).toEqual([]);
    expect(line).toContain('its builder "theirs\\u001b]0;x\\u0007\\u000aadopted');
    expect(line).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    expect(line.length).toBeLessThan(400);
  });

  it('reports what could not be read or written, and has it the next time', async () => {
    const { pending } = tasksOf(queue);
    const rows: OldRow[] = [
      { buildrequestId: 61, taskId: await pending(), runId: 0 },
      { buildrequestId: 62, taskId: await pending(), runId: 0 },
    ];
    await addOldRows(oldDb, rows);
    const unreachable = clientOf('http://127.0.0.1:1', { retries: 0, timeoutMs: 500 });
    const deaf = await adoptAll(store, { queue: unreachable });
    expect(deaf.map((line) => line.split(':')[0])).toEqual(['failed', 'failed']);

    let tries = 0;
    const broken: MappingStore = {
      ...asPlain(store),
      async adopt() {
        tries += 1;
        await new Promise((resolve) => setTimeout(resolve, 20));
        throw new StoreError('store-unavailable', 'the database failed', { isTransient: true });
      },
    };
    await addOldRows(oldDb, await Promise.all(Array.from({ length: 30 }, async () => oldRow(await pending()))));
    const lines = await adoptAll(broken);
    expect(lines).toHaveLength(32);
    expect(lines.every((line) => line.startsWith('failed') && line.endsWith('the database failed'))).toBe(true);
    // Those under way together; the rest is not even tried.
    expect(tries).toBeLessThanOrEqual(8);
    expect((await adoptAll(store)).filter((line) => line.startsWith('adopted'))).toHaveLength(32);
  });

  it('adopts a task once, whoever else adopts it at the same time', async () => {
    const { pending } = tasksOf(queue);
    const taskIds = await Promise.all(Array.from({ length: 20 }, () => pending()));
    await addOldRows(oldDb, taskIds.map(oldRow));
    const said = (await Promise.all([adoptAll(store), adoptAll(opened.another())])).flat();
    expect(said.filter((line) => line.startsWith('adopted'))).toHaveLength(20);
    expect(said.filter((line) => line.startsWith('known'))).toHaveLength(20);
    expect(await opened.db('tasks')).toHaveLength(20);
  });

  describe('and then', () => {
    /** Adopts, then looks at the task often enough for graces to pass. */
    async function goOn(taskId: string, fake: ReturnType<typeof createFakeCi>, rounds = 3) {
      const client = clientOf(queue.emulator.rootUrl, { clock: queue.clock });
      expect(await adoptAll(store)).toContainEqual(expect.stringMatching(/^adopted/));
      const reconciler = reconcilerOn(store, client, fake.ci, queue.clock);
      for (let round = 0; round < rounds; round += 1) {
        expect(await reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
        queue.clock.advance(3 * MINUTE);
      }
      const [mapping] = await store.mappingsOf(taskId);
      return mapping ?? fail();
    }

    it('cancels an open request whose task is gone', async () => {
      const taskId = newTaskId();
      const fake = createFakeCi(['runtests']);
      fake.requests.set(71, { ...requestPending(), buildRequestId: 71 });
      await addOldRows(oldDb, [{ buildrequestId: 71, taskId, runId: 2, takenUntil: 1_790_000_000 }]);
      expect(await goOn(taskId, fake)).toMatchObject({ state: 'closed', runId: 2, taskGroupId: taskId });
      expect(fake.calls).toEqual(['cancel 71']);
    });

    it('cancels an open request whose task is resolved, also one whose id was never noted', async () => {
      for (const buildrequestId of [72, null]) {
        const taskId = await tasksOf(queue).pending();
        await queue.ok('cancelTask', taskId);
        const fake = createFakeCi(['runtests']);
        fake.requests.set(72, { ...requestPending(), buildRequestId: 72 });
        fake.known.set(`taskId:${taskId}`, 72);
        await oldDb('tasks').delete();
        await addOldRows(oldDb, [{ buildrequestId, taskId, runId: 0 }]);
        expect(await goOn(taskId, fake)).toMatchObject({ state: 'closed', resolution: 'canceled' });
        expect(fake.calls).toEqual(['cancel 72']);
      }
    });

    it('finds the request that the first bridge made and never noted', async () => {
      const taskId = await tasksOf(queue).pending();
      const fake = createFakeCi(['runtests']);
      fake.requests.set(73, { ...requestBuilding(), buildRequestId: 73 });
      fake.known.set(`taskId:${taskId}`, 73);
      // All run ids of such rows were changed when any of them was.
      await addOldRows(oldDb, [{ buildrequestId: null, taskId, runId: 3 }]);
      expect(await goOn(taskId, fake)).toMatchObject({ state: 'submitted', runId: 0, buildRequestId: 73 });
      expect(fake.calls).toEqual([]);
      expect(queue.emulator.tasks.get(taskId)?.status.runs).toMatchObject([{ state: 'running' }]);
    });

    it('makes a request, under an id of its own, where the first bridge made none', async () => {
      const taskId = await tasksOf(queue).pending();
      const fake = createFakeCi(['runtests']);
      await addOldRows(oldDb, [{ buildrequestId: null, taskId, runId: 0 }]);
      const mapping = await goOn(taskId, fake);
      expect(mapping).toMatchObject({ state: 'submitted', submissions: 1, externalId: `${taskId}/0/1` });
      expect(fake.calls).toEqual([`submit ${taskId}/0/1`]);
    });

    it('goes on with the build of a run that followed a RETRY, known to the row or not', async () => {
      for (const runId of [0, 1]) {
        const { running, retried, claim } = tasksOf(queue);
        const taskId = await running();
        await retried(taskId);
        await claim(taskId, 1);
        const fake = createFakeCi(['runtests']);
        const [retry] = requestBuilding().builds;
        fake.requests.set(74, {
          ...requestBuilding({ ...(retry ?? fail()), isComplete: true, results: 'RETRY' }),
          buildRequestId: 74,
        });
        await oldDb('tasks').delete();
        await addOldRows(oldDb, [{ buildrequestId: 74, taskId, runId }]);
        expect(await goOn(taskId, fake, 5)).toMatchObject({ state: 'submitted', runId: 1, retriesReported: 1 });
        expect(fake.calls).toEqual([]);
        // The RETRY is not reported again, and the claim is kept alive.
        const runs = queue.emulator.tasks.get(taskId)?.status.runs;
        expect(runs).toMatchObject([{ state: 'exception' }, { state: 'running' }]);
        expect(Date.parse(runs?.[1]?.takenUntil ?? '')).toBeGreaterThan(queue.clock.now() + 10 * MINUTE);
      }
    });
  });
});

it("never writes to another bridge's database", async () => {
  for (const engine of ENGINES) {
    const { url, drop } = await engine.create();
    const writer = connect(url);
    await createOldTable(writer);
    await addOldRows(writer, [oldRow(newTaskId())]);
    const reader = connect(url, { isReadOnly: true });
    expect(await readFirstBridge(reader)).toHaveLength(1);
    await expect(reader('tasks').delete()).rejects.toThrow();
    await expect(reader.schema.createTable('more', (table) => table.increments())).rejects.toThrow();
    expect(await writer('tasks')).toHaveLength(1);
    await Promise.all([reader.destroy(), writer.destroy()]);
    await drop();
  }
});

it('reads many rows, in few calls', async () => {
  const opened = await openStore(ENGINES[0] ?? fail());
  const taskIds = Array.from({ length: 1200 }, newTaskId);
  await queue.ok('createTask', taskIds[0], taskAt(queue.clock.now()));
  for (let start = 0; start < taskIds.length; start += 300) {
    await addOldRows(oldDb, taskIds.slice(start, start + 300).map(oldRow));
  }
  const client = clientOf(queue.emulator.rootUrl);
  const asked: number[] = [];
  const counting = {
    ...client,
    statuses: (ids: readonly string[]) => {
      asked.push(ids.length);
      return client.statuses(ids);
    },
  };
  const lines = await adoptAll(opened.store, { queue: counting });
  expect(lines.filter((line) => line.startsWith('adopted'))).toHaveLength(1200);
  expect(asked).toEqual([500, 500, 200]);
  await opened.drop();
});

function oldRow(taskId: string): OldRow {
  return { buildrequestId: 99, taskId, runId: 0 };
}

function fail(): never {
  throw new Error('something is missing');
}

/** The store's methods one by one: it is a proxy, of which a spread takes the bare ones. */
function asPlain(store: MappingStore): MappingStore {
  return { ...store };
}
