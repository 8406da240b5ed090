/** Strings that somebody hopes are taken for something else, from a payload to everywhere they go. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { RE2JS } from 're2js';
import { forceSchedulersAnswer } from '../../src/buildbot/data-api/answers.ts';
import { forceParameters } from '../../src/buildbot/data-api/force-parameters.ts';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import type { Schema } from '../../src/buildbot/scheduler-db/schema.ts';
import { encoded, propertiesOf, submissionProblems } from '../../src/buildbot/scheduler-db/submission.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { systemClock } from '../../src/clock.ts';
import type { TaskDefinition } from '../../src/domain/task.ts';
import type { BuildSpec, LegacyCi } from '../../src/ports.ts';
import { builderProblems, parsePayload, refusalText, scopesForBuilder } from '../../src/reflector/admission.ts';
import { statusJson } from '../../src/reflector/outcome.ts';
import { type BuildbotEmulator, createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import { describeScheduler, type ForceSchedulerOptions } from '../../src/sandbox/buildbot/force.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { rulesOf } from '../../src/settings.ts';
import { aRequest, NOW, TASK_ID } from '../support/builders.ts';
import { tried } from '../support/hostile-input.ts';
import { startHostileServer } from '../support/hostile-server.ts';

const HOSTILE = [
  `'; DROP TABLE tasks; --`,
  `" onload="alert(1)`,
  '<script>alert(1)</script>',
  'a\nb',
  '\r\nX-Injected: yes\r\n\r\n',
  '../../../../etc/passwd',
  '%00%0a%2e%2e%2f',
  '$(touch /tmp/owned) `id` ; rm -rf / | cat & $HOME',
  '\u202egnirts\u2066',
  '\u001b[2J\u009b31m\u0007',
  '{"level":60,"msg":"fake"}',
  '?x=1#y&z=/',
  '%s %d {0} %(prop:x)s',
  'constructor',
  '\u{1f389}é\u0301',
  'a\0b',
  '\ud800',
] as const;
const hostile = fc.oneof(fc.constantFrom(...HOSTILE), fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }));

const TASK = { taskId: TASK_ID, runId: 0, externalId: `${TASK_ID}/0/1`, scheduled: NOW };
function definition(payload: unknown): TaskDefinition {
  return {
    ...{ taskQueueId: 'buildbot/bridge', schedulerId: 's', taskGroupId: TASK_ID, priority: 'low' },
    ...{ deadline: NOW, expires: NOW, scopes: [], payload },
  };
}

function admitted(payload: unknown): BuildSpec | undefined {
  tried('payloads');
  const parsed = parsePayload(TASK, definition(payload));
  return 'spec' in parsed ? parsed.spec : undefined;
}

const CONTROLS = /[\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]|(?!\n)\p{Cc}/u;
const SCHEDULER: ForceSchedulerOptions = {
  name: 'bridge/../x?y#z',
  builderNames: ['success', ...HOSTILE],
  parameters: [{ name: 'taskId' }, { name: 'text' }],
};

describe('on a Buildbot with a Data API', () => {
  let buildbot: BuildbotEmulator;
  let ci: LegacyCi;
  beforeAll(async () => {
    buildbot = createBuildbotEmulator({
      clock: systemClock,
      version: '3.7',
      builders: SCHEDULER.builderNames.map((name) => ({ name, workers: [], attempts: [], collapse: false })),
      forceSchedulers: [SCHEDULER],
      faults: createFaults(),
    });
    await buildbot.start();
    const options = { url: buildbot.url, forceScheduler: SCHEDULER.name, collapseGuard: true, clock: systemClock };
    ci = createDataApi(options);
  });
  afterAll(async () => {
    await ci.close();
    await buildbot.stop();
  });

  it('every string of a payload arrives as it is, or is refused', async () => {
    let arrived = 0;
    await fc.assert(
      fc.asyncProperty(hostile, hostile, fc.constantFrom('success', ...HOSTILE), async (branch, text, builder) => {
        const payload = { buildername: builder, sourcestamp: { branch, revision: text }, properties: { text } };
        const spec = admitted(payload);
        if (spec === undefined || (await ci.problems(spec)).length > 0) {
          return;
        }
        tried('payloads that arrived at an emulated Buildbot');
        const id = await ci.submit(spec);
        const { state } = buildbot.master;
        const request = state.requests.find(({ buildrequestid }) => buildrequestid === id);
        const buildset = state.buildsets.find(({ bsid }) => bsid === request?.buildsetid);
        expect(SCHEDULER.builderNames[(request?.builderid ?? 0) - 1]).toBe(builder);
        expect(buildset?.sourcestamps[0]).toMatchObject({ branch: spec.branch, revision: text });
        expect(state.buildsetProperties.get(buildset?.bsid ?? 0)?.text?.[0]).toBe(text);
        arrived += 1;
      }),
      { numRuns: 150 },
    );
    expect(arrived).toBeGreaterThan(50);
  });

  it('an external id finds its own request only, whatever it looks like', async () => {
    await fc.assert(
      fc.asyncProperty(hostile, async (text) => {
        // The bridge's own ids are ASCII; half a character could not even be asked for.
        const externalId = text.replace(/\p{Surrogate}/gu, '_');
        expect(await ci.findByExternalId({ taskId: TASK_ID, externalId, deadline: NOW })).toEqual({ kind: 'absent' });
      }),
      { numRuns: 60 },
    );
  });

  it.each([
    ['a value', { text: 'x'.repeat(60_000) }, 'properties.text: it is too long: 60002 bytes'],
    ['a value that Python escapes', { text: 'é'.repeat(10_000) }, 'it is too long: 60002 bytes'],
    ['an object', { text: { a: ['x'.repeat(60_000)] } }, 'it is too long'],
    ['a name', { ['x'.repeat(256)]: 1 }, 'its name is too long'],
    ['a name with a NUL', { 'a\0b': 1 }, 'its name holds a NUL'],
  ])('%s beyond what Buildbot can store is refused', async (_what, properties, words) => {
    const spec = admitted({ buildername: 'success', properties });
    const problems = spec ? await ci.problems(spec) : [];
    const text = refusalText('success', problems);
    expect(text).toContain(words);
    expect(text.length).toBeLessThan(3000);
  });

  it('a value just as large as Buildbot can store travels', async () => {
    const spec = admitted({ buildername: 'success', properties: { text: 'x'.repeat(59_998) } });
    expect(spec && (await ci.problems(spec))).toEqual([]);
  });
});

it('parameters that are declared under a strange name are set, and nothing else is', () => {
  const names = ['constructor', 'toString', '__proto__', 'a b', '\u202e'];
  const described = describeScheduler({ ...SCHEDULER, parameters: names.map((name) => ({ name })) }, false);
  const [scheduler] = forceSchedulersAnswer.parse({ forceschedulers: [described] }).forceschedulers.read;
  const spec = admitted({ buildername: 'b', properties: Object.fromEntries(names.map((name) => [name, 'v'])) });
  expect(spec).toBeUndefined();
  const without = admitted({ buildername: 'b', properties: { constructor: 'v', toString: 'v', 'a b': 'v' } });
  expect(scheduler && without && forceParameters(without, scheduler)).toMatchObject({
    problems: [],
    parameters: { constructor: 'v', toString: 'v', 'a b': 'v' },
  });
});

describe('in the scheduler database', () => {
  const limit = { length: 1024, unit: 'characters' } as const;
  const schema: Schema = { kind: 'A', limits: new Map([['buildset_properties.property_value', limit]]) };

  it('a property is ASCII, and the same when it is read', () => {
    fc.assert(
      fc.property(fc.oneof(hostile, fc.jsonValue()), (value) => {
        tried('properties for the scheduler database');
        const text = encoded(value);
        expect(text).toMatch(/^[\x20-\x7e]*$/);
        expect(JSON.parse(text)).toEqual([JSON.parse(JSON.stringify(value)), 'bbb']);
      }),
      { numRuns: 1000 },
    );
  });

  it('no payload chooses its taskId, and what the columns cannot hold is refused', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.oneof(hostile, fc.constantFrom('taskId', 'bbb_external_id')), hostile),
        (properties) => {
          const spec = admitted({ buildername: 'b', properties: { ...properties, product: 'p' } });
          if (spec === undefined) {
            expect(Object.hasOwn(properties, '__proto__')).toBe(true);
            return;
          }
          const rows = new Map(propertiesOf(spec));
          expect(rows.get('taskId')).toBe(encoded(TASK_ID));
          expect(rows.get('bbb_external_id')).toBe(encoded(TASK.externalId));
          const problems = submissionProblems(spec, schema);
          for (const name of Object.keys(properties).filter((key) => /[\0\p{Surrogate}]/u.test(key))) {
            expect(problems.some(({ where }) => where === `payload.properties.${name}`)).toBe(true);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('in what people and programs read', () => {
  it('a refusal is short lines of text, whatever the payload', () => {
    const payload = fc.dictionary(hostile, fc.oneof(hostile, fc.jsonValue()));
    fc.assert(
      fc.property(payload, hostile, (given, builder) => {
        tried('payloads');
        const parsed = parsePayload(TASK, definition({ ...given, buildername: builder, sourcestamp: given }));
        const problems = [
          ...('problems' in parsed ? parsed.problems : []),
          ...builderProblems(builder, { isIgnored: () => false, isRestricted: () => true }, [], new Set([builder])),
        ];
        const text = refusalText(builder, problems);
        expect(text).not.toMatch(CONTROLS);
        // Two lines a problem, and no line that a payload has made.
        expect(text.split('\n')).toHaveLength(5 + 2 * problems.length);
      }),
      { numRuns: 500 },
    );
  });

  it('a refusal stays short, however much is wrong', () => {
    const given = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`key ${i} ${'x'.repeat(20)}`, i]));
    const parsed = parsePayload(TASK, definition({ buildername: 'x'.repeat(100_000), ...given }));
    expect(refusalText('x'.repeat(100_000), 'problems' in parsed ? parsed.problems : []).length).toBeLessThan(10_000);
  });

  it('status.json is JSON that says the same, whatever the builder and the numbers', () => {
    const build = fc.record({
      ...{ buildId: fc.integer(), number: fc.integer(), isComplete: fc.boolean(), stateText: hostile },
      ...{ startedAt: fc.double({ noNaN: true }), completedAt: fc.double({ noNaN: true }) },
    });
    fc.assert(
      fc.property(hostile, fc.array(build, { maxLength: 3 }), (builder, builds) => {
        const request = aRequest({ builder, builds });
        const resolution = { state: 'completed' } as const;
        const status = statusJson({ taskId: TASK_ID, runId: 0, builder, request, resolution, results: 'SUCCESS' });
        expect(JSON.parse(JSON.stringify(status))).toMatchObject({ builder });
      }),
      { numRuns: 500 },
    );
  });
});

describe('a restricted builder', () => {
  const NAMES = ['release-linux64', 'releaſe-x', 'Ünïcode-build', 'linux64-build'];
  const config = (restricted: readonly string[]) => ({
    builders: { ignored: [], restricted: restricted.map((pattern) => RE2JS.compile(pattern)) },
  });
  const spelled = fc
    .tuple(
      fc.constantFrom(...NAMES),
      fc.constantFrom(
        (name: string) => name,
        (name: string) => name.toUpperCase(),
        (name: string) => name.normalize('NFD'),
        (name: string) => name.normalize('NFKC'),
        (name: string) => `${name} `,
        (name: string) => ` ${name}`,
        (name: string) => `${name}\n`,
        (name: string) => `\u200b${name}`,
        (name: string) => `${name}\u202e`,
        (name: string) => name.replace('e', 'е'),
        (name: string) => name.replace('-', '\u2010'),
        (name: string) => encodeURIComponent(name),
        (name: string) => `${name}\ufeff`,
      ),
      fc.oneof(fc.constant(''), hostile),
    )
    .map(([name, change, more]) => `${change(name)}${more}`);

  it('cannot be reached by any spelling without its scope', () => {
    const rules = rulesOf(config(['^release-.*$', '^releaſe', '(?i)^ünï']));
    const scope = fc.constantFrom(...NAMES, 'x').chain((name) => fc.constantFrom(...scopesForBuilder(name)));
    fc.assert(
      fc.property(spelled, fc.array(scope, { maxLength: 2 }), (builder, scopes) => {
        tried('spellings of a restricted builder');
        if (builderProblems(builder, rules, scopes, new Set(NAMES)).length > 0) {
          return;
        }
        // What is let through is, to the letter, a builder that there is, and its own scope is there if it needs one.
        expect(NAMES).toContain(builder);
        expect(builder === 'linux64-build' || scopesForBuilder(builder).some((one) => scopes.includes(one))).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it.each(['(a+)+$', '(a|aa)+$', '(.*)*x', '([a-z]+)*=', '(?:a?){50}a{50}'])(
    'whose pattern %s would backtrack is told in no time',
    (pattern) => {
      const { isRestricted } = rulesOf(config([pattern]));
      const began = Date.now();
      isRestricted(`${'a'.repeat(20_000)}!`);
      expect(Date.now() - began).toBeLessThan(3000);
    },
  );
});

describe('the log of a build on a web status', () => {
  it.each([
    ['of another server', 'http://169.254.169.254/latest/builders/b/builds/1/steps/s/logs/stdio', true],
    ['with user and password', 'http://u:p@evil/builders/b/builds/1/steps/s/logs/stdio', true],
    ['that is not a log', 'http://x/builders/b/builds/1/stop', false],
    ['that climbs', 'http://x/builders/b/builds/1/steps/s/logs/../../../../../../admin', false],
    ['that climbs in disguise', 'http://x/builders/b/builds/1/steps/%2e%2E/logs/x', false],
    ['with backslashes', 'http://x/builders/b/builds/1/steps/..\\..\\x/logs/x', false],
    ['that climbs over tabs', `http://x/builders/b/builds/1/steps/s/logs/a${'/.\t.'.repeat(8)}/admin`, false],
    ['that climbs over line breaks', `http://x/builders/b/builds/1/steps/s/logs/.\n.${'/.\r.'.repeat(8)}/admin`, false],
    [
      'that climbs in disguise over tabs',
      `http://x/builders/b/builds/1/steps/s/logs/a${'/%2e\t%2E'.repeat(8)}/z`,
      false,
    ],
    ['that climbs to another log', 'http://x/builders/b/builds/1/steps/s/logs/a/../b', false],
    ['with a query', 'http://x/builders/b/builds/1/steps/s/logs/x?y', false],
    ['that is a file', 'file:///etc/passwd', false],
    ['that is long', `http://x${'/builders/b'.repeat(200_000)}`, false],
  ])('%s is read from the master itself or not at all', async (_what, url, isRead) => {
    tried('URLs of logs');
    const server = await startHostileServer('answers of a Data API, a web status or Self-serve', () => ({
      kind: 'says',
      body: 'log',
    }));
    const master = createWebStatus({ url: `${server.url}/buildbot` });
    const chunks: string[] = [];
    const read = async () => {
      for await (const chunk of master.logText(url)) {
        chunks.push(chunk.toString());
      }
    };
    await (isRead ? read() : expect(read()).rejects.toMatchObject({ code: 'legacy-ci-protocol' }));
    expect(server.calls).toEqual(isRead ? ['GET /buildbot/builders/b/builds/1/steps/s/logs/stdio/text'] : []);
    expect(chunks.join('')).toBe(isRead ? 'log' : '');
    master.close();
    await server.stop();
  });
});

it('only what asks the configured servers makes connections', () => {
  const root = path.resolve(import.meta.dirname, '../../src');
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const connects =
    /from '(?:got|ws|amqplib|undici|mysql2|pg|node:(?:net|tls|dgram|http2))'|\bfetch\(|\bhttps?\.(?:get|request)\(/;
  const found = files.filter((file) => {
    const text = readFileSync(path.join(root, file), 'utf8');
    return connects.test(text.replace(/import type [^;]+;/g, ''));
  });
  // Whoever adds to these shows first that no URL which a task or a build supplies is ever fetched.
  expect(found.filter((file) => !file.startsWith('sandbox')).sort()).toEqual([
    // The master's URL in the configuration, and ids that are numbers.
    'buildbot/data-api/rest-client.ts',
    'buildbot/data-api/session.ts',
    'buildbot/data-api/watch.ts',
    // The URL in the configuration.
    'buildbot/scheduler-db/builders.ts',
    // The URL in the configuration, and a branch that is escaped.
    'buildbot/scheduler-db/self-serve.ts',
    // The same; of a log's URL no more than its path (see above).
    'buildbot/scheduler-db/web-status.ts',
    // Long answers, for the Data API's client and the web status's: a URL that these have made.
    'foreign-answer.ts',
    'listeners/pulse-broker.ts',
    // Where the queue says that an artifact's content goes.
    'taskcluster/artifacts.ts',
    'taskcluster/services.ts',
  ]);
});

it('no certificate goes unverified, and no shell is ever started', () => {
  const root = path.resolve(import.meta.dirname, '../../src');
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const forbidden =
    /rejectUnauthorized(?!: (?:true|z\.literal\(true\)))|NODE_TLS_REJECT_UNAUTHORIZED(?!: '0', PGSSLMODE)|checkServerIdentity|secureProtocol|child_process|insecureHTTPParser|\beval\(|new Function\b/;
  const wrong = files.filter((file) => forbidden.test(readFileSync(path.join(root, file), 'utf8')));
  expect(files.length).toBeGreaterThan(50);
  expect(wrong.filter((file) => !file.startsWith('sandbox'))).toEqual([]);
});
