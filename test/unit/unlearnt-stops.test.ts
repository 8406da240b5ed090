/** A classic master's page tells whether a build that ended EXCEPTION was stopped. Where it cannot be read, that is waited for. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import type { SchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { createRequestReader } from '../../src/buildbot/scheduler-db/requests.ts';
import type { WebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { connect } from '../../src/db/connection.ts';
import type { RequestView } from '../../src/domain/build.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import { LegacyCiError } from '../../src/errors.ts';
import { decide } from '../../src/reflector/decide.ts';
import { aMapping, aTask, MINUTE, NOW, ours, POLICY } from '../support/builders.ts';

const NOW_S = Math.floor(NOW / 1000);
const ENDED_S = NOW_S - 600;
const HOUR_S = 3600;

let db: Knex;
beforeEach(async () => {
  db = connect('sqlite::memory:');
  const request = { id: 9, buildername: 'b', complete: 1, results: 4, complete_at: ENDED_S, submitted_at: NOW_S - 900 };
  const claim = { claimed_at: NOW_S - 800, claimed_by_name: 'm' };
  const build = { brid: 9, number: 5, start_time: NOW_S - 800, finish_time: ENDED_S };
  await db.raw(`CREATE TABLE buildrequests (${Object.keys({ ...request, ...claim }).join(', ')})`);
  await db.raw(`CREATE TABLE builds (id INTEGER PRIMARY KEY, ${Object.keys(build).join(', ')})`);
  await db('buildrequests').insert({ ...request, ...claim });
  await db('builds').insert(build);
});
afterEach(() => db.destroy());

const AWAY = new LegacyCiError('legacy-ci-unavailable', 'the master is away', { isTransient: true });

/** As it is read so many seconds later. @param builds what the master's pages say */
async function read(afterS: number, builds: WebStatus['builds']): Promise<RequestView> {
  const time: unknown = async () => [[{ now: NOW_S + afterS }]];
  // The one thing that SQLite does not know.
  const ownTime = new Proxy(db, { get: (target, key) => (key === 'raw' ? time : Reflect.get(target, key)) });
  const database: SchedulerDb = { run: (_what, work) => work(ownTime), inputs: undefined, close: () => db.destroy() };
  const page: Pick<WebStatus, 'builds' | 'pageOf'> = { builds, pageOf: () => 'http://master.example.com/5' };
  const reader = createRequestReader({
    ...{ database, schema: async () => ({ kind: 'A', limits: new Map() }) },
    masters: { all: [page as WebStatus], of: () => page as WebStatus },
    ...{ kept: undefined, outcomeWaitMs: 0, log: undefined },
  });
  const seen = (await reader.readMany([9])).get(9);
  if (seen?.kind !== 'present') {
    throw new Error(`it is ${seen?.kind}`);
  }
  return seen.value;
}

const isAway = () => Promise.reject(AWAY);

describe('a build that ended EXCEPTION, and whose master is away', () => {
  it('may have been stopped: that is waited for', async () => {
    expect(await read(0, isAway)).toMatchObject({ state: 'complete', results: 'EXCEPTION', isSettling: true });
  });

  it('for an hour', async () => {
    expect((await read(HOUR_S - 601, isAway)).isSettling).toBe(true);
    expect((await read(HOUR_S - 600, isAway)).isSettling).toBeUndefined();
  });

  it('is stopped where the page says so when it is back', async () => {
    const page = { number: 5, text: ['exception', 'interrupted'], times: [NOW_S - 800, ENDED_S], ...NOTHING };
    const view = await read(60, async () => new Map([[5, page]]));
    expect(view).toMatchObject({ state: 'complete', results: 'CANCELLED', cancelledBy: 'person' });
    expect(view.isSettling).toBeUndefined();
  });

  it.each<[string, number, readonly string[]]>([
    ['with time left waits', 30 * MINUTE, ['lookAgain']],
    ['whose deadline is near is told of all the same', 2 * MINUTE, ['uploadOutcome', 'resolveRun']],
  ])('%s', async (_what, leftMs, expected) => {
    const mapping: Mapping = aMapping({
      ...{ state: 'submitted', buildRequestId: 9, deadline: NOW + leftMs, takenUntil: NOW + 20 * MINUTE },
    });
    const task = aTask([ours()], { deadline: NOW + leftMs });
    const request = { kind: 'present', value: await read(0, isAway) } as const;
    const actions = decide({ mapping, task: { kind: 'present', value: task }, request, admission: null }, POLICY, NOW);
    expect(actions.map((action) => action.do).filter((what) => what !== 'reclaimRun')).toEqual(expected);
  });
});

const NOTHING = { properties: [], steps: [] };
