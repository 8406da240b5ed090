/** Rows of a scheduler database as no master writes them: SQLite keeps anything in any column. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Knex } from 'knex';
import type { SchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { createMasters } from '../../src/buildbot/scheduler-db/masters.ts';
import { createRequestReader, type RequestReader } from '../../src/buildbot/scheduler-db/requests.ts';
import { connect } from '../../src/db/connection.ts';
import { LegacyCiError } from '../../src/errors.ts';
import { statusJson } from '../../src/reflector/outcome.ts';
import { TASK_ID } from '../support/builders.ts';
import { countInputs } from '../support/count-inputs.ts';
import { tried } from '../support/hostile-input.ts';

const NOW = 1_767_600_000;
const GOOD = {
  ...{ id: 1, buildername: 'b', complete: 0, results: -1, complete_at: null, submitted_at: NOW - 100 },
  ...{ claimed_at: NOW - 50, claimed_by_name: 'm' },
};
const BUILD = { brid: 1, number: 7, start_time: NOW - 40, finish_time: null };

let db: Knex;
let reader: RequestReader;
let inputs: ReturnType<typeof countInputs>;
beforeEach(async () => {
  db = connect('sqlite::memory:');
  await db.raw(`CREATE TABLE buildrequests (id INTEGER PRIMARY KEY, ${Object.keys(GOOD).slice(1).join(', ')})`);
  await db.raw(`CREATE TABLE builds (id INTEGER PRIMARY KEY, ${Object.keys(BUILD).join(', ')})`);
  inputs = countInputs();
  const time: unknown = async () => [[{ now: NOW }]];
  // The one thing that SQLite does not know.
  const ownTime = new Proxy(db, { get: (target, key) => (key === 'raw' ? time : Reflect.get(target, key)) });
  const database: SchedulerDb = { run: (_what, work) => work(ownTime), inputs, close: () => db.destroy() };
  reader = createRequestReader({
    ...{ database, schema: async () => ({ kind: 'A', limits: new Map() }), masters: createMasters(undefined) },
    ...{ kept: undefined, outcomeWaitMs: 600_000, log: undefined },
  });
});
afterEach(() => db.destroy());

const cell = fc.oneof(
  fc.constantFrom(null, '', 'never', '2x', '\u0000', '__proto__', -1, 1.5, 2 ** 31, 2 ** 53, 1e300, -1e300),
  { weight: 6, arbitrary: fc.integer({ min: -3, max: 10 }) },
  fc.string({ unit: 'binary', maxLength: 20 }),
);
const changes = (columns: object) => fc.dictionary(fc.constantFrom(...Object.keys(columns).filter(isFree)), cell);
/** By these rows are found. */
const isFree = (column: string) => column !== 'id' && column !== 'brid';

it('each request is read or unreadable, whatever is in its rows, and the one beside it is read', async () => {
  let present = 0;
  let unreadable = 0;
  await fc.assert(
    fc.asyncProperty(changes(GOOD), fc.array(changes(BUILD), { maxLength: 3 }), async (request, builds) => {
      tried('rows of a scheduler database', 1 + builds.length);
      await db('builds').delete();
      await db('buildrequests').delete();
      await db('buildrequests').insert([GOOD, { ...GOOD, id: 2, ...request }]);
      await db('builds').insert([BUILD, ...builds.map((build) => ({ ...BUILD, brid: 2, number: 8, ...build }))]);
      const seen = await reader.readMany([1, 2, 3]);
      expect([...seen.keys()]).toEqual([1, 2, 3]);
      expect(seen.get(3)).toEqual({ kind: 'absent' });
      const bad = seen.get(2);
      if (bad?.kind === 'unreadable') {
        unreadable += 1;
        expect(bad.error).toBeInstanceOf(LegacyCiError);
        expect(bad.error.message.length).toBeLessThan(500);
      } else if (bad?.kind === 'present') {
        present += 1;
        const status = { taskId: TASK_ID, runId: 0, builder: 'b', resolution: { state: 'completed' } } as const;
        expect(() => JSON.stringify(statusJson({ ...status, request: bad.value, results: undefined }))).not.toThrow();
      }
      expect(bad?.kind).not.toBe('absent');
      // Unless a bad row may be of its build, too.
      const mayServe = builds.some((build) => Object.keys(build).some((key) => key !== 'finish_time'));
      if (!mayServe && !('buildername' in request)) {
        expect(seen.get(1)?.kind).toBe('present');
      }
    }),
    { numRuns: 400 },
  );
  expect(Math.min(present, unreadable)).toBeGreaterThan(10);
  expect(inputs.counts['rejected legacy-ci-answer']).toBeGreaterThanOrEqual(unreadable);
}, 60_000);
