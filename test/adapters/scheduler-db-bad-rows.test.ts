/** One row of the scheduler database that cannot be read, among others that can: it spoils no other request. */
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import type { LegacyCi } from '../../src/ports.ts';
import { type Bench, startBench, type TaskWish } from '../support/classic-bench.ts';
import { countInputs } from '../support/count-inputs.ts';

jest.setTimeout(60_000);

let bench: Bench;
afterEach(() => bench?.stop());

/** A request that was built once, and is to be built again. */
async function built(number: number, wish: TaskWish = {}): Promise<number> {
  const { brid } = await bench.submitted(wish);
  await bench.db('builds').insert({ number, brid, start_time: 1_000_000 + number, finish_time: 1_000_100 });
  return brid;
}

/** Three of them, and an adapter that counts what it cannot read. */
async function threeBuilt(site: 'mozilla' | 'stock') {
  bench = await startBench({ site });
  const brids = [await built(1), await built(2), await built(3)];
  const inputs = countInputs();
  return { brids, ci: bench.another({ ci: { inputs } }).ci, inputs };
}

async function kinds(ci: LegacyCi, brids: readonly number[]): Promise<readonly string[]> {
  return [...(await ci.readMany(brids)).values()].map(({ kind }) => kind);
}
/** What no schema lets in, for what no schema foresees. */
const loosen = (table: string, column: string) =>
  bench.db.raw(`ALTER TABLE ${table} MODIFY ${column} varchar(99) NULL`);
const ONE_REJECTED = { 'rejected legacy-ci-answer': 1 };

describe.each(['mozilla', 'stock'] as const)('on a %s site, among three requests', (site) => {
  it('all can be read', async () => {
    const { brids, ci, inputs } = await threeBuilt(site);
    expect(await kinds(ci, brids)).toEqual(['present', 'present', 'present']);
    expect(inputs.counts).toEqual({});
  });

  it('one bad build makes its request unreadable, which says why, for every call', async () => {
    const { brids, ci, inputs } = await threeBuilt(site);
    const [, brid = 0] = brids;
    const before = (await ci.readMany([brid])).get(brid);
    await loosen('builds', 'finish_time');
    await bench.db('builds').where({ brid }).update({ finish_time: 'never' });
    expect(await kinds(ci, brids)).toEqual(['present', 'unreadable', 'present']);
    expect(inputs.counts).toEqual(ONE_REJECTED);
    const seen = (await ci.readMany(brids)).get(brid);
    const error = { code: 'legacy-ci-protocol', message: expect.stringMatching(`request ${brid} .*finish_time`) };
    expect(seen).toMatchObject({ error });
    if (before?.kind !== 'present') {
      throw new Error('it could not be read before');
    }
    await expect(ci.cancel(before.value, 'why')).rejects.toMatchObject(error);
    await expect(ci.outcome(before.value)).rejects.toMatchObject(error);
  });

  it('one bad request is unreadable, and not absent', async () => {
    const { brids, ci, inputs } = await threeBuilt(site);
    await loosen('buildrequests', 'complete_at');
    await bench.db('buildrequests').where({ id: brids[0] }).update({ complete_at: 'never' });
    expect(await kinds(ci, brids)).toEqual(['unreadable', 'present', 'present']);
    expect(inputs.counts).toEqual(ONE_REJECTED);
  });

  it("a bad row of another's, that the same build may serve, makes that one's request unreadable", async () => {
    const { brids, ci, inputs } = await threeBuilt(site);
    const other = await built(3, { builder: 'other' });
    await loosen('buildrequests', 'buildername');
    await bench.db('buildrequests').where({ id: other }).update({ buildername: null });
    expect(await kinds(ci, brids)).toEqual(['present', 'present', 'unreadable']);
    expect(inputs.counts).toEqual(ONE_REJECTED);
    await bench.db('buildrequests').where({ id: other }).update({ buildername: 'other' });
    expect(await kinds(ci, brids)).toEqual(['present', 'present', 'present']);
  });

  it('a bad row that does not say whose it is is looked for in each singly', async () => {
    const { brids, ci, inputs } = await threeBuilt(site);
    // The database takes `2x` for 2, when it compares.
    if (site === 'stock') {
      await bench.db.raw('ALTER TABLE builds DROP FOREIGN KEY builds_ibfk_1');
    }
    await loosen('builds', 'brid');
    await bench
      .db('builds')
      .where({ number: 2 })
      .update({ brid: `${brids[1]}x`, finish_time: null });
    await loosen('builds', 'start_time');
    await bench.db('builds').where({ number: 2 }).update({ start_time: 'never' });
    expect(await kinds(ci, brids)).toEqual(['present', 'unreadable', 'present']);
    expect(inputs.counts).toEqual(ONE_REJECTED);
  });
});
