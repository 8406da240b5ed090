/** What a request is made by and found by, with absurd things in it: each is read or unreadable, and none ends in a crash. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { reasonOf } from '../../src/buildbot/data-api/force-parameters.ts';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import { createBuilders } from '../../src/buildbot/scheduler-db/builders.ts';
import { createSchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { createMasters } from '../../src/buildbot/scheduler-db/masters.ts';
import { createSelfServe } from '../../src/buildbot/scheduler-db/self-serve.ts';
import { systemClock } from '../../src/clock.ts';
import { connect } from '../../src/db/connection.ts';
import { BridgeError } from '../../src/errors.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { text as anyText, value } from '../support/absurd.ts';
import { NOW, TASK_ID } from '../support/builders.ts';
import { countInputs } from '../support/count-inputs.ts';
import { type HostileServer, startHostileServer } from '../support/hostile-server.ts';

let server: HostileServer;
beforeAll(async () => {
  server = await startHostileServer('answers of a Data API, a web status or Self-serve');
});
afterAll(() => server.stop());

const SPEC: BuildSpec = {
  ...{ taskId: TASK_ID, runId: 0, externalId: `${TASK_ID}/0/1`, builder: 'b', priority: 'low' },
  ...{ branch: 'main', revision: null, repository: null, project: null, scheduled: NOW },
  properties: { product: 'widget', count: 1, isNightly: true },
};
const REASON = reasonOf(SPEC);

const text = fc.oneof({ weight: 4, arbitrary: anyText }, { weight: 1, arbitrary: fc.constantFrom('f', 'b') });
/** Now and then not what it ought to be. */
const mostly = <T>(good: fc.Arbitrary<T>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 40, arbitrary: good as fc.Arbitrary<unknown> }, { weight: 1, arbitrary: value });

const name = fc.oneof(text, fc.constantFrom('branch', 'revision', 'name', 'value', 'priority', 'product', 'count'));
const { field } = fc.letrec((tie) => ({
  field: fc.oneof(
    { maxDepth: 3 },
    fc.record({
      name,
      fullName: fc.oneof(name, fc.constant(null)),
      type: fc.oneof(fc.constantFrom('text', 'int', 'bool', 'fixed', 'list', 'username'), text),
      default: value,
      multiple: fc.boolean(),
    }),
    fc.record({
      ...{ name, fullName: fc.constant(null), type: fc.constantFrom('nested', 'any', 'codebase') },
      fields: fc.array(tie('field'), { maxLength: 3 }),
    }),
  ),
}));
const slot = {
  ...{ name: 'slot', fullName: 'slot', type: 'any' },
  fields: ['name', 'value'].map((one) => ({ name: one, fullName: `slot_${one}`, type: 'text' })),
};
const declared = [
  { name: 'reason', fullName: 'reason', type: 'text' },
  { name: 'taskId', fullName: 'taskId', type: 'text' },
  { name: 'branch', fullName: 'branch', type: 'text' },
];
const scheduler = fc.record({
  name: fc.oneof({ weight: 5, arbitrary: fc.constant('f') }, { weight: 1, arbitrary: text }),
  builder_names: mostly(fc.array(fc.oneof(text, fc.constant('b')), { maxLength: 3 })),
  all_fields: mostly(
    fc
      .tuple(fc.array(field, { maxLength: 4 }), fc.boolean())
      .map(([fields, isRoomy]) => [...declared, ...fields, ...(isRoomy ? [slot, slot, slot] : [])]),
  ),
});
const schedulers = mostly(fc.record({ forceschedulers: mostly(fc.array(scheduler, { minLength: 1, maxLength: 2 })) }));
const requestId = fc.oneof(fc.integer({ min: 1, max: 9 }), value);
const forced = mostly(
  fc.record({ result: mostly(fc.tuple(fc.integer(), fc.dictionary(text, requestId, { minKeys: 1, maxKeys: 2 }))) }),
);

/** What came of it; anything but an error of the bridge's own fails the test. */
async function typed<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    expect(error).toBeInstanceOf(BridgeError);
    expect(String(error).length).toBeLessThan(3000);
    return undefined;
  }
}

it('ForceSchedulers, and what a force call answers', async () => {
  let submitted = 0;
  let refused = 0;
  let unread = 0;
  await fc.assert(
    fc.asyncProperty(schedulers, forced, async (given, answer) => {
      server.does = (line) => ({ kind: 'says', body: JSON.stringify(line.startsWith('POST') ? answer : given) });
      const inputs = countInputs();
      const api = createDataApi({
        ...{ url: server.url, forceScheduler: 'f', collapseGuard: true, clock: systemClock, inputs },
      });
      await typed(api.check());
      const builders = await typed(api.builders('b'));
      const problems = await typed(api.problems(SPEC));
      for (const { where, what, mend } of problems ?? []) {
        expect([where, what, mend]).not.toContain('');
      }
      const before = server.calls.length;
      const id = await typed(api.submit(SPEC));
      const isAsked = server.calls.slice(before).some((line) => line.startsWith('POST'));
      expect(id === undefined || Number.isSafeInteger(id)).toBe(true);
      // Nothing is asked for that could not be carried whole, or by what could not be read.
      expect(isAsked && problems?.length !== 0).toBe(false);
      submitted += id === undefined ? 0 : 1;
      refused += (problems?.length ?? 0) > 0 ? 1 : 0;
      unread += inputs.counts['rejected legacy-ci-answer'] !== undefined ? 1 : 0;
      expect(builders === undefined || builders instanceof Set).toBe(true);
      await api.close();
    }),
    { numRuns: 500 },
  );
  expect(submitted).toBeGreaterThan(30);
  expect(refused).toBeGreaterThan(30);
  expect(unread).toBeGreaterThan(30);
}, 60_000);

const id = fc.integer({ min: 1, max: 4 });
const buildset = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      bsid: id,
      reason: fc.oneof(
        text,
        fc.constantFrom(REASON, `A build was forced by 'x': ${REASON}`, `${REASON}, says x`, REASON.slice(0, -1)),
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ bsid: mostly(id), reason: fc.oneof(value, fc.constant(REASON)) }) },
  { weight: 1, arbitrary: value },
);
const request = fc.record({
  ...{ buildrequestid: mostly(id), buildsetid: mostly(id), builderid: mostly(id), complete: mostly(fc.boolean()) },
  results: mostly(fc.integer({ min: -1, max: 6 })),
});
const found = fc.record({
  buildsets: mostly(fc.array(buildset, { maxLength: 4 })),
  buildrequests: mostly(fc.array(request, { maxLength: 4 })),
  ...{ builds: mostly(fc.constant([])), builders: mostly(fc.constant([])), workers: mostly(fc.constant([])) },
});

it('buildsets that a request is looked for among: none is absent that may be there', async () => {
  const counts = { present: 0, absent: 0, unreadable: 0 };
  const api = createDataApi({ url: server.url, forceScheduler: 'f', collapseGuard: true, clock: systemClock });
  await fc.assert(
    fc.asyncProperty(found, async (given) => {
      server.does = () => ({ kind: 'says', body: JSON.stringify(given) });
      const seen = await api.findByExternalId({ ...SPEC, deadline: NOW });
      counts[seen.kind] += 1;
      const { buildsets } = given;
      const hasOwn = Array.isArray(buildsets) && buildsets.some((one) => hasReason(one));
      expect([seen.kind, hasOwn]).not.toEqual(['absent', true]);
      if (seen.kind === 'present') {
        expect(hasOwn).toBe(true);
        expect(() => JSON.stringify(seen.value)).not.toThrow();
      } else if (seen.kind === 'unreadable') {
        expect(seen.error).toBeInstanceOf(BridgeError);
        expect(seen.error.message.length).toBeLessThan(1200);
      }
    }),
    { numRuns: 1000 },
  );
  expect(Math.min(...Object.values(counts))).toBeGreaterThan(50);
  await api.close();
}, 60_000);

function hasReason(one: unknown): boolean {
  const reason = typeof one === 'object' && one !== null && 'reason' in one ? one.reason : undefined;
  return typeof reason === 'string' && reason.includes(REASON);
}

it('the list of builders', async () => {
  const database = createSchedulerDb(connect('sqlite::memory:'));
  const masters = createMasters(undefined);
  const list = mostly(fc.record({ builders: mostly(fc.dictionary(text, value)) }));
  let read = 0;
  await fc.assert(
    fc.asyncProperty(list, async (given) => {
      server.does = () => ({ kind: 'says', body: JSON.stringify(given) });
      const builders = createBuilders({ url: server.url, masters, database, clock: systemClock, log: undefined });
      const names = await typed(builders('b'));
      read += names === undefined ? 0 : 1;
    }),
    { numRuns: 300 },
  );
  expect(read).toBeGreaterThan(100);
  await database.close();
}, 60_000);

it('what Self-serve answers', async () => {
  const branches = mostly(fc.dictionary(fc.constantFrom('main', '__proto__', 'x'), value));
  const answer = mostly(fc.record({ request_id: mostly(fc.integer()) }));
  const kinds = { queued: 0, 'not-found': 0, 'unknown-branch': 0 };
  await fc.assert(
    fc.asyncProperty(branches, answer, fc.constantFrom(200, 202, 202, 404), async (known, job, status) => {
      server.does = (line) => ({
        ...{ kind: 'says', body: JSON.stringify(line.startsWith('DELETE') ? job : known) },
        status: line.startsWith('DELETE') ? status : 200,
      });
      const selfServe = createSelfServe(server.url, systemClock, { retries: 0, timeoutMs: 5000 });
      const said = await typed(selfServe.cancelRequest('main', 1));
      if (said !== undefined) {
        kinds[said.kind] += 1;
      }
      expect(said?.kind !== 'queued' || Number.isSafeInteger(said.jobId)).toBe(true);
      selfServe.close();
    }),
    { numRuns: 300 },
  );
  expect(Math.min(...Object.values(kinds))).toBeGreaterThan(10);
}, 60_000);
