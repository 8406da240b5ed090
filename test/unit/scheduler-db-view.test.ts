/** What rows of a scheduler database say: a table, every sequence that a real 0.8.12 wrote, and what holds of any rows. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import {
  type BuildRow,
  openBuild,
  type RequestRow,
  toView,
  type ViewInput,
} from '../../src/buildbot/scheduler-db/view.ts';
import type { RequestView } from '../../src/domain/build.ts';
import { aRow, built, CASES, claimed, T } from './scheduler-db-view.cases.ts';

const base = { schema: 'B' as const, extra: () => ({}), sharedWith: [], builds: [], now: T + 61, outcomeWait: 0 };

/** Such as `complete SUCCESS: RETRY, SUCCESS`. */
function shown({ state, results, cancelledBy, isSettling, builds }: RequestView): string {
  const ends = builds.map((build) => (build.isComplete ? (build.results ?? 'unknown') : 'running'));
  return [
    state,
    results === undefined ? '' : ` ${results}`,
    cancelledBy === undefined ? '' : ` by ${cancelledBy}`,
    isSettling ? ', settling' : '',
    ends.length > 0 ? `: ${ends.join(', ')}` : '',
  ].join('');
}

describe('rows say', () => {
  it.each(CASES)('$name', ({ request, builds = [], extra = {}, now = base.now, more, is }) => {
    expect(shown(toView({ ...base, request, builds, extra: () => extra, now, ...more }))).toBe(is);
  });

  it('which other requests the running build serves, and when and where builds were', () => {
    const extra = (build: BuildRow) => ({ worker: `w${build.id}`, url: `http://bm/${build.number}` });
    const builds = [built(1, T + 10), built(2, T + 30)];
    expect(toView({ ...base, request: claimed(T + 30), builds, extra, sharedWith: [8, 9] })).toEqual({
      ...{ buildRequestId: 7, builder: 'b', state: 'building', sharedWith: [8, 9] },
      builds: [
        {
          ...{ buildId: 1, number: 1, startedAt: (T + 10) * 1000, completedAt: (T + 30) * 1000, isComplete: true },
          ...{ results: 'RETRY', stateText: 'ended RETRY', worker: 'w1', url: 'http://bm/1' },
        },
        {
          ...{ buildId: 2, number: 2, startedAt: (T + 30) * 1000, isComplete: false, stateText: 'building' },
          ...{ worker: 'w2', url: 'http://bm/2' },
        },
      ],
    });
  });
});

describe('the build that can be stopped', () => {
  it('is the newest, while it runs', () => {
    expect(openBuild([built(1, T + 10, null), built(2, T + 30, null)])).toMatchObject({ id: 2 });
  });

  it('is not one that a dead master left open before one that is over', () => {
    expect(openBuild([built(1, T + 10, null), built(2, T + 30, T + 50)])).toBeUndefined();
  });
});

const time = z.number().nullable().optional();
const entry = z.object({
  kind: z.string(),
  ms: z.number(),
  row: z.string().default(''),
  to: z
    .looseObject({ id: z.number().optional(), brid: z.number().optional(), claimed_at: time, finish_time: time })
    .optional(),
});
const requestTo = z.object({ buildername: z.string(), complete: z.number(), results: z.number(), complete_at: time });
const buildTo = z.object({ id: z.number(), number: z.number(), brid: z.number(), start_time: z.number() });

/** What each look of the recorder, every 30 ms, would have shown of each request. */
function recordedViews(): ReadonlyMap<number, readonly string[]> {
  const file = path.resolve(import.meta.dirname, '../fixtures/buildbot-0.8.12-scheduler-db.json');
  const entries = z.array(entry).parse(JSON.parse(readFileSync(file, 'utf8')));
  const [requests, builds] = [new Map<number, RequestRow>(), new Map<number, BuildRow>()];
  const claims = new Map<number, number>();
  const seen = new Map<number, string[]>();
  let now = 0;

  function look(): void {
    for (const request of requests.values()) {
      const claimedAt = claims.get(request.id) ?? null;
      const own = [...builds.values()].filter(({ brid }) => brid === request.id);
      const text = shown(toView({ ...base, request: { ...request, claimedAt }, builds: own, now }));
      const before = seen.get(request.id) ?? [];
      seen.set(request.id, before.at(-1) === text ? before : [...before, text]);
    }
  }

  let last = 0;
  for (const { kind, ms, row, to } of entries.filter(({ row: name }) => name !== '')) {
    if (ms - last > 5) {
      look();
    }
    last = ms;
    const [table = '', key = ''] = row.split(' ');
    const id = Number(key);
    for (const at of [to?.claimed_at, to?.finish_time]) {
      now = Math.max(now, at ?? 0);
    }
    if (table === 'buildrequests') {
      const { buildername, complete, results, complete_at } = requestTo.parse(to);
      const times = { completeAt: complete_at ?? null, submittedAt: T };
      requests.set(id, aRow({ id, builder: buildername, isComplete: complete === 1, results, ...times }));
    } else if (table === 'builds') {
      const { number, brid, start_time } = buildTo.parse(to);
      builds.set(id, { id, number, brid, startTime: start_time, finishTime: to?.finish_time ?? null });
    } else if (table === 'buildrequest_claims' && kind === 'delete') {
      claims.delete(id);
    } else if (table === 'buildrequest_claims') {
      claims.set(id, to?.claimed_at ?? 0);
    }
  }
  look();
  return seen;
}

describe('of a recorded 0.8.12', () => {
  const views = recordedViews();
  const simple = (word: string) => ['pending', 'building: running', `complete ${word}: ${word}`];
  it.each<[number, string, string[]]>([
    [1, 'success', simple('SUCCESS')],
    [2, 'a failure', simple('FAILURE')],
    [3, 'warnings', simple('WARNINGS')],
    [4, 'an exception', simple('EXCEPTION')],
    [5, 'a RETRY, then success', ['pending', 'building: RETRY, running', 'complete SUCCESS: RETRY, SUCCESS']],
    [6, 'a build before merged ones', simple('SUCCESS')],
    [7, 'the first of merged ones', simple('SUCCESS')],
    [8, 'the second of merged ones', simple('SUCCESS')],
    [9, 'a cancel while it waited', ['pending', 'complete CANCELLED by person']],
    // Only its page says that it was stopped.
    [10, 'a stopped build', simple('EXCEPTION')],
    [
      11,
      'a lost slave, then a stopped build',
      [
        'pending',
        'building: running',
        'pending: RETRY',
        'building: RETRY, running',
        'complete EXCEPTION: RETRY, EXCEPTION',
      ],
    ],
    [12, 'a stopped master', ['pending', 'building: running', 'pending: RETRY', 'building: RETRY, running']],
    [13, 'a killed master', ['pending', 'building: running']],
    [14, 'a property that is not JSON', simple('FAILURE')],
    [15, 'an unknown builder', ['pending']],
  ])('request %i: %s', (id, _name, expected) => {
    expect(views.get(id)).toEqual(expected);
  });
  it('has no other requests', () =>
    expect([...views.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 15 }, (_, at) => at + 1)));
});

describe('of any rows', () => {
  const at = fc.integer({ min: T, max: T + 10_000 });
  const orNull = <V>(value: fc.Arbitrary<V>) => fc.option(value, { nil: null });
  const input: fc.Arbitrary<ViewInput> = fc
    .record({
      isComplete: fc.boolean(),
      results: orNull(fc.integer({ min: -2, max: 9 })),
      completeAt: orNull(at),
      claimedAt: orNull(at),
      builds: fc.array(fc.record({ start: at, finish: orNull(at) }), { maxLength: 4 }),
      wasStopped: fc.boolean(),
      isFinal: fc.boolean(),
      now: at,
      outcomeWait: fc.constantFrom(0, 600),
    })
    .map(({ builds, wasStopped, isFinal, now, outcomeWait, ...request }) => ({
      request: aRow({ ...request, claimedBy: request.claimedAt === null ? null : 'm' }),
      builds: builds.map(({ start, finish }, index) => built(index + 1, start, finish)),
      ...{ schema: 'B' as const, sharedWith: [], now, outcomeWait, extra: () => ({ wasStopped, isFinal }) },
    }));

  it('a view says nothing that contradicts itself', () => {
    fc.assert(
      fc.property(input, (given) => {
        const view = toView(given);
        const isLeftOut = view.state === 'pending' && given.builds.at(-1)?.finishTime === null;
        expect(view.builds).toHaveLength(given.builds.length - (isLeftOut ? 1 : 0));
        expect(view.builds.filter(({ isComplete }) => !isComplete)).toHaveLength(view.state === 'building' ? 1 : 0);
        expect(view.builds.slice(0, -1).every(({ results }) => results === 'RETRY')).toBe(true);
        if (view.state !== 'complete') {
          expect(view.results).toBeUndefined();
          expect(view.isSettling).toBeUndefined();
        }
        if (view.state === 'pending') {
          expect(given.request.isComplete).toBe(false);
        }
      }),
    );
  });
});
