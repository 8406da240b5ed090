/** Answers of the right shape with absurd things in them: each is read or unreadable, and none ends in a crash. */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { createCatalogue } from '../../src/buildbot/data-api/catalogue.ts';
import { readOutcome } from '../../src/buildbot/data-api/outcome.ts';
import { createRequestReader } from '../../src/buildbot/data-api/requests.ts';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { createWebStatus, wasInterrupted } from '../../src/buildbot/scheduler-db/web-status.ts';
import { systemClock } from '../../src/clock.ts';
import { BridgeError, LegacyCiError } from '../../src/errors.ts';
import { statusJson } from '../../src/reflector/outcome.ts';
import { text, value } from '../support/absurd.ts';
import { TASK_ID } from '../support/builders.ts';
import { type HostileServer, startHostileServer } from '../support/hostile-server.ts';

let server: HostileServer;
beforeAll(async () => {
  server = await startHostileServer('answers of a Data API, a web status or Self-serve');
});
afterAll(() => server.stop());

const number = fc.oneof(
  { weight: 60, arbitrary: fc.integer({ min: 0, max: 4 }) },
  { weight: 3, arbitrary: fc.integer() },
  fc.constantFrom(-1, 1.5, 2 ** 31, 2 ** 53, 1e300, -1e300, null),
);
const seconds = fc.oneof(
  { weight: 30, arbitrary: fc.integer() },
  { weight: 3, arbitrary: fc.constantFrom(8.64e12, -8.64e12, 0.1) },
  fc.constantFrom(null, 1e300),
);
const isComplete = fc.boolean();

const request = fc.record({
  buildrequestid: number,
  buildsetid: number,
  builderid: number,
  complete: isComplete,
  results: number,
});
const build = fc.record({
  ...{ buildid: number, number, builderid: number, buildrequestid: number, workerid: number, complete: isComplete },
  ...{ results: number, state_string: text, started_at: seconds, complete_at: seconds },
});
const step = fc.record({
  ...{ stepid: number, number, name: text, state_string: text, results: number },
  ...{ started_at: seconds, complete_at: seconds },
});
const answers = fc.record({
  buildrequests: fc.array(request, { maxLength: 4 }),
  builds: fc.array(build, { maxLength: 4 }),
  builders: fc.array(fc.record({ builderid: number, name: text }), { maxLength: 3 }),
  workers: fc.array(fc.record({ workerid: number, name: text }), { maxLength: 3 }),
  properties: fc.array(fc.dictionary(text, fc.tuple(value, text)), { maxLength: 2 }),
  steps: fc.array(step, { maxLength: 3 }),
  logs: fc.array(fc.record({ logid: number, name: text, slug: text }), { maxLength: 2 }),
});

it('of the Data API', async () => {
  const session = createSession(server.url);
  const rest = createRestClient({ url: server.url, session, retries: 0, timeoutMs: 5000 });
  let present = 0;
  await fc.assert(
    fc.asyncProperty(answers, fc.uint8Array({ maxLength: 50 }), async (given, log) => {
      const kinds = Object.keys(given).join('|');
      server.does = (line) => {
        const kind = new RegExp(`/(${kinds})(?:$|\\?)`).exec(line)?.[1];
        return { kind: 'says', body: kind === undefined ? Buffer.from(log).toString('latin1') : JSON.stringify(given) };
      };
      const reader = createRequestReader(rest, createCatalogue(rest, systemClock, 'f'), server.url);
      const seen = await reader.readMany([1, 2, 3]);
      expect([...seen.keys()]).toEqual([1, 2, 3]);
      for (const [id, one] of seen) {
        if (one.kind === 'unreadable') {
          expect(one.error).toBeInstanceOf(BridgeError);
          expect(one.error.message.length).toBeLessThan(1200);
        } else if (one.kind === 'present') {
          present += 1;
          expect(one.value.buildRequestId).toBe(id);
          const resolution = { state: 'completed' } as const;
          const status = { taskId: TASK_ID, runId: 0, builder: 'b', request: one.value, resolution };
          expect(() => JSON.stringify(statusJson({ ...status, results: one.value.results }))).not.toThrow();
          await outcomeIsTyped(readOutcome(rest, one.value, { log: undefined, inputs: undefined }));
        }
      }
    }),
    { numRuns: 500 },
  );
  expect(present).toBeGreaterThan(50);
  rest.close();
}, 60_000);

it('of the Data API: whatever a record is, those of others beside it are read', async () => {
  const session = createSession(server.url);
  const rest = createRestClient({ url: server.url, session, retries: 0, timeoutMs: 5000 });
  const good = {
    buildrequests: [1, 2].map((id) => ({
      buildrequestid: id,
      buildsetid: id,
      builderid: 1,
      complete: false,
      results: -1,
    })),
    builds: [1, 2].map((id) => ({
      ...{ buildid: id, number: id, builderid: 1, buildrequestid: id, workerid: 1, complete: false, results: null },
      ...{ state_string: 'building', started_at: 1, complete_at: null },
    })),
    builders: [{ builderid: 1, name: 'b' }],
    workers: [{ workerid: 1, name: 'w' }],
  };
  // Of request 3, or of nobody knows whom: what says that it is of another's is believed.
  const bad = fc.oneof(
    value,
    fc.dictionary(fc.constantFrom('name', 'number', 'results', 'state_string'), value),
    fc.record({ buildrequestid: fc.constant(3), state_string: value, started_at: value, complete: value }),
    build.map((one) => ({ ...one, buildrequestid: 3 })),
  );
  const places = fc.constantFrom('buildrequests', 'builds', 'builders', 'workers');
  await fc.assert(
    fc.asyncProperty(places, bad, fc.boolean(), async (place, record, isFirst) => {
      server.does = (line) => {
        const ids = [...line.matchAll(/buildrequestid(?:__\w+)?=(\d+)/g)].map(([, id]) => Number(id));
        if (ids.includes(0)) {
          return { kind: 'says', body: '{"builds":[]}' };
        }
        // As a master does, which finds a record for its request.
        const isFound = !place.startsWith('build') || place === 'builders' || ids.includes(3);
        const list = isFound ? (isFirst ? [record, ...good[place]] : [...good[place], record]) : good[place];
        return { kind: 'says', body: JSON.stringify({ ...good, [place]: list }) };
      };
      const reader = createRequestReader(rest, createCatalogue(rest, systemClock, 'f'), server.url);
      const seen = await reader.readMany([1, 2, 3]);
      expect([seen.get(1)?.kind, seen.get(2)?.kind]).toEqual(['present', 'present']);
    }),
    { numRuns: 300 },
  );
  rest.close();
}, 60_000);

async function outcomeIsTyped(work: ReturnType<typeof readOutcome>): Promise<void> {
  try {
    const { properties, log } = await work;
    expect(() => JSON.stringify(properties)).not.toThrow();
    if (log.kind === 'stream') {
      for await (const chunk of await log.open()) {
        expect(chunk).toBeInstanceOf(Uint8Array);
      }
    }
  } catch (error) {
    expect(error).toBeInstanceOf(BridgeError);
  }
}

it('of a web status', async () => {
  const page = fc.record(
    {
      ...{ number, results: number, slave: text, text: fc.array(text), times: fc.array(seconds) },
      properties: fc.array(fc.tuple(text, value, value), { maxLength: 3 }),
      steps: fc.array(
        fc.record({ name: text, text: fc.array(text), results: value, logs: fc.array(fc.tuple(text, text)) }),
        {
          maxLength: 3,
        },
      ),
    },
    { requiredKeys: ['number'] },
  );
  const master = createWebStatus({ url: server.url }, { retries: 0, timeoutMs: 5000 });
  let read = 0;
  await fc.assert(
    fc.asyncProperty(fc.dictionary(fc.constantFrom('0', '1', '2', '__proto__'), page), async (given) => {
      server.does = () => ({ kind: 'says', body: JSON.stringify(given) });
      const builds = await master.builds('../b\r\n', [0, 1, 2]);
      for (const [at, one] of builds) {
        if (one instanceof LegacyCiError) {
          throw one;
        }
        read += 1;
        expect(one.number).toBe(at);
        expect(typeof wasInterrupted(one)).toBe('boolean');
      }
    }),
    { numRuns: 500 },
  );
  expect(read).toBeGreaterThan(20);
  expect(new Set(server.calls.filter((line) => line.includes('json')))).toEqual(
    new Set(['GET /json/builders/..%2Fb%0D%0A/builds?select=0&select=1&select=2']),
  );
  master.close();
}, 60_000);
