/** What messages tell of builds, kept on each engine. */
import { afterAll, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { createKeptBuilds } from '../../src/db/kept-builds.ts';
import { type KeptBuild, matchOf } from '../../src/domain/kept-build.ts';
import { StoreError } from '../../src/errors.ts';
import type { KeptBuilds } from '../../src/ports.ts';
import { countStatements, ENGINES, MINUTE, NOW, type Opened, openStore } from './mapping-store-support.ts';

jest.setTimeout(60_000);

const aBuild = (more: Partial<KeptBuild> = {}): KeptBuild => ({
  ...{ buildRequestId: 17, number: 4, master: 'bm1:/master', startedAt: NOW, isFinal: false },
  ...{ properties: { product: ['widget', 'bbb'] }, logUrl: null, worker: 'w1' },
  ...more,
});
const uploaded = (more: Partial<KeptBuild> = {}) =>
  aBuild({ isFinal: true, logUrl: 'https://logs.example.com/4.txt.gz', ...more });

describe.each(ENGINES)('kept builds on $name', (engine) => {
  let opened: Opened;
  let kept: KeptBuilds;
  beforeAll(async () => {
    opened = await openStore(engine);
    kept = createKeptBuilds(opened.db);
  });
  afterAll(() => opened?.drop());
  beforeEach(() => opened.db('kept_builds').delete());

  /** All that is kept of these requests' builds. */
  async function all(ids: readonly number[]): Promise<readonly (KeptBuild | undefined)[]> {
    return Promise.all((await kept.of(ids)).map(({ id }) => kept.whole(id)));
  }

  it('come back as they were', async () => {
    const builds = [aBuild(), uploaded({ buildRequestId: 18, worker: null, master: '' })];
    await kept.keep(builds, NOW);
    expect(await all([17, 18, 19])).toEqual(builds);
    expect(await all([18])).toEqual([builds[1]]);
    expect(await kept.of([])).toEqual([]);
  });

  it('whatever text is in them', async () => {
    const text = 'é😀\0\ud83d\u2028\\"\'\n%s ?';
    const build = aBuild({ properties: { [text]: [{ deep: [text, null, 1.5] }, text] }, master: 'é', worker: '😀' });
    await kept.keep([build], NOW);
    expect(await all([17])).toEqual([build]);
  });

  it('up to a megabyte of properties', async () => {
    const properties = Object.fromEntries(
      Array.from({ length: 10 }, (_, at) => [`p${at}`, ['é'.repeat(99_000), 'bbb'] as const]),
    );
    await kept.keep([aBuild({ properties })], NOW);
    expect((await all([17]))[0]?.properties).toEqual(properties);
  });

  it('are told of without what they hold, of which a sweep has no use', async () => {
    await kept.keep([aBuild({ properties: { big: ['x'.repeat(500_000), 'bbb'] } })], NOW);
    expect(JSON.stringify(await kept.of([17])).length).toBeLessThan(300);
  });

  it('of one request are not without end: the oldest go', async () => {
    const builds = Array.from({ length: 70 }, (_, at) => aBuild({ number: at + 1 }));
    await kept.keep([aBuild({ buildRequestId: 18 }), ...builds], NOW);
    expect((await kept.of([17])).map(({ number }) => number)).toEqual(builds.slice(20).map(({ number }) => number));
    expect(await kept.of([18])).toHaveLength(1);
    await kept.keep([uploaded({ number: 0 }), ...builds], NOW);
    expect((await kept.of([17])).some(({ number }) => number === 0)).toBe(true);
  });

  it('that are gone by now have nothing left', async () => {
    await kept.keep([aBuild()], NOW);
    const [found] = await kept.of([17]);
    await opened.db('kept_builds').delete();
    expect(await kept.whole(found?.id ?? 0)).toBeUndefined();
  });

  it('replace what was known of the same build, and what is final stays', async () => {
    await kept.keep([aBuild()], NOW);
    await kept.keep([aBuild({ worker: 'w2' })], NOW);
    expect(await kept.of([17])).toMatchObject([{ worker: 'w2', isFinal: false }]);
    await kept.keep([uploaded()], NOW);
    await kept.keep([aBuild({ worker: 'late' })], NOW);
    expect(await all([17])).toEqual([uploaded()]);
    await kept.keep([uploaded({ logUrl: 'https://logs.example.com/again' })], NOW);
    expect(await all([17])).toMatchObject([{ logUrl: 'https://logs.example.com/again' }]);
  });

  it('of one request are as many as it had', async () => {
    const builds = [
      aBuild(),
      aBuild({ number: 5 }),
      aBuild({ master: 'bm2:/master' }),
      // The number comes again after a power cut.
      aBuild({ startedAt: NOW + 10 * MINUTE }),
    ];
    await kept.keep(builds, NOW);
    expect(await all([17])).toEqual(builds);
    const row = { brid: 17, number: 4, startTime: NOW / 1000 + 599 };
    expect(matchOf(row, await kept.of([17]))).toMatchObject({ startedAt: builds[3]?.startedAt });
  });

  it('are kept once, by several instances at once', async () => {
    await Promise.all(Array.from({ length: 8 }, (_, at) => kept.keep([at % 2 ? uploaded() : aBuild()], NOW)));
    expect(await all([17])).toEqual([uploaded()]);
  });

  it('are read in few statements, and found among many', async () => {
    const builds = Array.from({ length: 60 }, (_, at) => aBuild({ buildRequestId: at + 1 }));
    await kept.keep(builds, NOW);
    const ids = Array.from({ length: 1100 }, (_, at) => at + 1);
    expect(await countStatements(opened.db, () => kept.of(ids))).toBe(3);
    expect(await kept.of(ids)).toHaveLength(60);
  });

  it('go when they are old, the oldest first, some at a time', async () => {
    await kept.keep([aBuild({ buildRequestId: 1 })], NOW);
    await kept.keep([aBuild({ buildRequestId: 2 })], NOW + 1);
    await kept.keep([aBuild({ buildRequestId: 3 })], NOW + 2);
    expect(await kept.prune(NOW, 10)).toBe(0);
    expect(await kept.prune(NOW + 2, 1)).toBe(1);
    expect(await kept.of([1, 2, 3])).toMatchObject([{ buildRequestId: 2 }, { buildRequestId: 3 }]);
    expect(await kept.prune(NOW + 2, 10)).toBe(1);
    expect(await kept.of([1, 2, 3])).toMatchObject([{ buildRequestId: 3 }]);
  });

  it('fail as the mapping store does', async () => {
    await opened.db.schema.renameTable('kept_builds', 'away');
    try {
      await expect(kept.of([1])).rejects.toThrow(StoreError);
      await expect(kept.keep([aBuild()], NOW)).rejects.toThrow(StoreError);
    } finally {
      await opened.db.schema.renameTable('away', 'kept_builds');
    }
  });
});

describe('a build and what was kept of it', () => {
  const row = { brid: 17, number: 4, startTime: NOW / 1000 };
  it.each<[string, KeptBuild[], KeptBuild | undefined]>([
    ['nothing', [], undefined],
    ['of another request', [aBuild({ buildRequestId: 18 })], undefined],
    ['of another number', [aBuild({ number: 5 })], undefined],
    ['a minute away', [aBuild({ startedAt: NOW + MINUTE })], undefined],
    ['half a second away', [aBuild({ startedAt: NOW - 500 })], aBuild({ startedAt: NOW - 500 })],
    ['the final one first', [aBuild(), uploaded()], uploaded()],
    [
      'the nearest',
      [aBuild({ startedAt: NOW - 30_000 }), aBuild({ startedAt: NOW + 1000 })],
      aBuild({ startedAt: NOW + 1000 }),
    ],
  ])('%s', (_what, builds, expected) => expect(matchOf(row, builds)).toEqual(expected));
});
