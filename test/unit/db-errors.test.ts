import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { connect, migrate } from '../../src/db/connection.ts';
import { toStoreError, withStoreErrors } from '../../src/db/errors.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { clip, toKey } from '../../src/db/rows.ts';
import { StoreError } from '../../src/errors.ts';
import type { MappingStore } from '../../src/ports.ts';

/** A store whose `prune` is `work`; nothing else of it is called. */
function storeOf(work: () => Promise<number>, options: Parameters<typeof withStoreErrors>[1] = {}): MappingStore {
  return withStoreErrors({ ...createMappingStore(connect('sqlite::memory:')), prune: work }, options);
}

const coded = (code: string, message = 'no') => Object.assign(new Error(message), { code });

describe('a statement that fails', () => {
  it.each(['ER_LOCK_DEADLOCK', 'ER_LOCK_WAIT_TIMEOUT', '40001', '40P01', '55P03', 'SQLITE_BUSY'])(
    'with %s is repeated',
    async (code) => {
      let calls = 0;
      const store = storeOf(async () => {
        calls += 1;
        if (calls < 3) {
          throw coded(code);
        }
        return 7;
      });
      expect(await store.prune(0, 1)).toBe(7);
      expect(calls).toBe(3);
    },
  );

  it('is not repeated for ever, nor for another reason', async () => {
    const calls: string[] = [];
    for (const code of ['40P01', 'ECONNRESET']) {
      const store = storeOf(async () => {
        calls.push(code);
        throw coded(code);
      });
      const error = await store.prune(0, 1).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'store-unavailable', isTransient: true, context: { code } });
    }
    expect(calls).toEqual([...Array(5).fill('40P01'), 'ECONNRESET']);
  });

  it('is given up when nothing answers', async () => {
    const store = storeOf(() => new Promise(() => undefined), { answerMs: 20 });
    await expect(store.prune(0, 1)).rejects.toMatchObject({ code: 'store-unavailable', isTransient: true });
  });

  it('keeps its reason as the cause, but neither the statement nor its values', () => {
    const failure = Object.assign(new Error("insert into `tasks` values ('hunter2') - Server has gone away"), {
      code: 'ECONNRESET',
      sql: "insert into `tasks` values ('hunter2')",
    });
    const error = toStoreError('insert', failure);
    expect(error).toBeInstanceOf(StoreError);
    expect(error.cause).toMatchObject({ message: 'Server has gone away', code: 'ECONNRESET' });
    const cause = error.cause instanceof Error ? error.cause : new Error();
    expect(cause.stack).toContain('db-errors.test.ts');
    expect(`${cause.stack} ${JSON.stringify(cause)} ${error.stack}`).not.toContain('hunter2');
  });

  it('names the first reason of several', () => {
    const failure = new AggregateError([new Error('connect ECONNREFUSED ::1:3306'), new Error('and')], '');
    expect(toStoreError('lease', failure).cause).toMatchObject({ message: 'connect ECONNREFUSED ::1:3306' });
  });

  it('because of a row that this version cannot read is a matter of that row', async () => {
    const db = connect('sqlite::memory:');
    await migrate(db);
    const store = createMappingStore(db);
    const mapping = { taskId: 't', runId: 0, taskGroupId: 't', builder: 'b', state: 'held', externalId: 'e' } as const;
    const more = { collapseKey: null, hasSlot: false, priority: 1, deadline: 1, submissions: 0, takenUntil: null };
    await store.insert({ ...mapping, ...more }, { owner: 'o', leaseUntil: 1, now: 0 });
    await db('tasks').update({ state: 'of another version' });
    await expect(store.openMapping('t')).rejects.toMatchObject({ code: 'store-row', isTransient: false });
    await store.close();
  });
});

describe('clip', () => {
  it('leaves at most so many whole characters, from the beginning', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.nat(20), (text, length) => {
        const points = [...text.replaceAll('\0', '\ufffd')];
        expect(clip(text, length)).toBe(points.slice(0, length).join(''));
      }),
    );
  });

  it('leaves nothing that an engine would refuse or change', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(0xffff)), fc.nat(20), (units, length) => {
        const clipped = clip(String.fromCharCode(...units), length);
        expect(Buffer.from(clipped, 'utf8').toString('utf8')).toBe(clipped);
        expect(clipped).not.toContain('\0');
        expect([...clipped].length).toBeLessThanOrEqual(length);
      }),
    );
  });
});

describe('toKey', () => {
  it('is the same of what was stored already', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), (key) => {
        expect(toKey(key).length).toBeLessThanOrEqual(64);
        expect(toKey(toKey(key))).toBe(toKey(key));
      }),
    );
  });
});
