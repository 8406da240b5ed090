/** Rows of the mapping database that nobody should have written. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Knex } from 'knex';
import { ZodError } from 'zod';
import { connect, migrate } from '../../src/db/connection.ts';
import { createKeptBuilds } from '../../src/db/kept-builds.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { readMapping, toEvent, toInstance, toNewRow } from '../../src/db/rows.ts';
import type { NewMapping } from '../../src/domain/mapping.ts';
import { MAPPING_STATES } from '../../src/domain/mapping.ts';
import { createLog } from '../../src/log.ts';
import type { MappingStore } from '../../src/ports.ts';
import { countInputs } from '../support/count-inputs.ts';
import { tried } from '../support/hostile-input.ts';

let db: Knex;
let store: MappingStore;
beforeEach(async () => {
  db = connect('sqlite::memory:');
  await migrate(db);
  store = createMappingStore(db);
});
afterEach(() => store.close());

function aNew(taskId: string): NewMapping {
  return {
    ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', state: 'held', externalId: `${taskId}/0/1` },
    ...{ submissions: 0, collapseKey: null, hasSlot: false, priority: 1, deadline: 1, takenUntil: null },
  };
}

const LEASE = { owner: 'o', leaseUntil: 0, now: 0 };
const cell = fc.oneof(fc.string({ unit: 'binary' }), fc.double(), fc.constant(null), fc.boolean(), fc.integer());

describe('a row of a mapping', () => {
  it('is read, or told from one, whatever is in it', () => {
    const columns = Object.keys(toNewRow(aNew('t'), LEASE));
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom('id', ...columns), cell), (changes) => {
        tried('rows of the mapping database');
        const row = { id: 1, ...toNewRow(aNew('t'), LEASE), ...changes };
        const read = readMapping(row);
        if (read.mapping === undefined) {
          expect(read.error).toBeInstanceOf(ZodError);
        } else {
          expect(MAPPING_STATES).toContain(read.mapping.state);
          expect(Number.isNaN(read.mapping.deadline)).toBe(false);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('that cannot be read does not keep others from being seen to, nor is it taken again at once', async () => {
    const lines: string[] = [];
    const log = createLog({ level: 'info', destination: { write: (line) => void lines.push(line) } });
    const inputs = countInputs();
    const store = createMappingStore(db, { log, inputs });
    for (const taskId of ['a', 'b', 'c']) {
      await store.insert(aNew(taskId), LEASE);
    }
    tried('rows of the mapping database');
    await db('tasks').where({ task_id: 'b' }).update({ state: 'nonsense', taken_until: 'nonsense' });
    expect(await store.overview()).toMatchObject({ byState: { held: 2 }, nearestTakenUntil: null });
    const due = (now: number) => store.leaseDue({ owner: `at ${now}`, leaseUntil: now + 100, now, limit: 10 });
    expect((await due(10)).map(({ taskId }) => taskId)).toEqual(['a', 'c']);
    expect(await due(20)).toEqual([]);
    const row: unknown = await db('tasks').where({ task_id: 'b' }).first('last_error', 'lease_until');
    expect(row).toMatchObject({ last_error: expect.stringContaining('can read'), lease_until: 110 });
    // Every time counted, but said once: whoever hears of its task meets it again and again.
    expect(inputs.counts).toEqual({ 'rejected mapping-row': 1 });
    await expect(store.openMapping('b')).rejects.toMatchObject({ code: 'store-row' });
    expect(inputs.counts).toEqual({ 'rejected mapping-row': 2 });
    expect(lines.map((line): unknown => JSON.parse(line))).toMatchObject([{ taskId: 'b', reason: 'state' }]);
  });

  it('of the trace or of an instance is read, whatever is in it', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom('task_id', 'run_id', 'at', 'services', 'detail'), cell), (row) => {
        tried('rows of the mapping database', 2);
        expect(typeof toEvent(row).detail).toBe('string');
        expect(Array.isArray(toInstance(row).services)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a row of a kept build', () => {
  const build = { buildRequestId: 1, number: 1, master: 'm', startedAt: 0, isFinal: true, properties: {} };

  it('that cannot be read is left out and said once, and others are read', async () => {
    const lines: string[] = [];
    const log = createLog({ level: 'info', destination: { write: (line) => void lines.push(line) } });
    const inputs = countInputs();
    const kept = createKeptBuilds(db, { log, inputs });
    await kept.keep(
      [1, 2, 3].map((number) => ({ ...build, number, logUrl: null, worker: null })),
      0,
    );
    tried('rows of the mapping database');
    await db('kept_builds').where({ number: 2 }).update({ properties: '{"secret' });
    for (let round = 0; round < 3; round += 1) {
      const whole = await Promise.all((await kept.of([1])).map(({ id }) => kept.whole(id)));
      expect(whole.map((one) => one?.number)).toEqual([1, undefined, 3]);
    }
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toContain('secret');
    expect(inputs.counts).toEqual({ 'rejected kept-build-row': 3 });
  });

  it('is read or left out, whatever its properties are', async () => {
    const kept = createKeptBuilds(db);
    await kept.keep([{ ...build, logUrl: null, worker: null }], 0);
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.jsonValue().map((value) => JSON.stringify(value)),
      fc.constantFrom('{"__proto__":[1,"x"]}', '['.repeat(50_000)),
    );
    await fc.assert(
      fc.asyncProperty(text, async (properties) => {
        tried('rows of the mapping database');
        await db('kept_builds').update({ properties: properties.replaceAll('\0', '') });
        const [found] = await kept.of([1]);
        expect(found).toMatchObject({ number: 1 });
        const whole = await kept.whole(found?.id ?? 0);
        expect(whole === undefined || whole.number === 1).toBe(true);
      }),
      { numRuns: 200 },
    );
  });
});

describe('a database that is full', () => {
  it('is said to be, leaves nothing half-written, and goes on when there is room', async () => {
    await store.insert(aNew('first'), LEASE);
    const [size]: { page_count: number }[] = await db.raw('PRAGMA page_count');
    await db.raw(`PRAGMA max_page_count = ${(size?.page_count ?? 0) + 2}`);
    const events = Array.from({ length: 40 }, (_, at) => ({
      ...{ taskId: 'first', runId: 0, at, instance: 'i', what: 'w', detail: 'x'.repeat(4000) },
    }));
    await expect(store.addEvents(events)).rejects.toMatchObject({
      code: 'store-full',
      isTransient: true,
      cause: { message: expect.stringMatching(/full/) },
    });
    expect(await store.eventsOf('first')).toEqual([]);
    expect(await store.openMapping('first')).toMatchObject({ version: 1 });

    let count = 0;
    const fill = async () => {
      for (; count < 1000; count += 1) {
        await store.insert({ ...aNew(`t${count}`), builder: 'b'.repeat(250) }, LEASE);
      }
    };
    await expect(fill()).rejects.toMatchObject({ code: 'store-full' });
    expect(await store.openMapping(`t${count}`)).toBeUndefined();
    await db.raw('PRAGMA max_page_count = 100000');
    await expect(store.insert(aNew(`t${count}`), LEASE)).resolves.toMatchObject({ kind: 'stored' });
    await store.addEvents(events);
    expect(await store.eventsOf('first')).toHaveLength(40);
    expect(await db.raw('PRAGMA integrity_check')).toEqual([{ integrity_check: 'ok' }]);
  });
});
