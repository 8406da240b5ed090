/** JSON as Python writes it: a step of Buildbot's may set a property to a number that JSON does not have. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { propertiesAnswer } from '../../src/buildbot/data-api/answers.ts';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { parseEvent } from '../../src/buildbot/scheduler-db/messages.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { parseJson, parsePythonJson } from '../../src/json.ts';
import { type HostileServer, startHostileServer } from '../support/hostile-server.ts';

/** As `json.dumps` writes it, with one of its numbers wherever there is null. */
function python(value: unknown, special: string): string {
  if (Array.isArray(value)) {
    return `[${value.map((one) => python(one, special)).join(', ')}]`;
  }
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${python(one, special)}`);
    return `{${members.join(', ')}}`;
  }
  return value === null ? special : JSON.stringify(value);
}

const special = fc.constantFrom('NaN', 'Infinity', '-Infinity');
/** With strings that look like what is replaced, and such as end in odd places. */
const text = fc.oneof(fc.string(), fc.constantFrom('NaN', '"NaN', '\\', '\\"', '-Infinity, NaN', '": NaN, "'));
const value = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(fc.constant(null), text, fc.integer(), fc.boolean()),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(text, tie('value'), { maxKeys: 4 }),
  ),
})).value;

describe('JSON of Python’s', () => {
  it('is read with null for each number that JSON does not have, and with no string changed', () => {
    fc.assert(
      fc.property(value, special, (given, number) => {
        expect(parsePythonJson(python(given, number))).toEqual(JSON.parse(JSON.stringify(given)));
      }),
    );
  });

  it.each(['', 'NaNa', '[Infinite]', '{"a": NaN', '"NaN', 'nan', '+Infinity', '[NaN NaN]', '"\\'])(
    'is not everything: %j',
    (given) => {
      expect(() => parsePythonJson(given)).toThrow(SyntaxError);
      expect(parseJson(given)).toBeUndefined();
    },
  );
});

describe('a property that is no number of JSON’s keeps nothing else from being read', () => {
  let server: HostileServer;
  beforeAll(async () => {
    server = await startHostileServer('answers of a Data API, a web status or Self-serve');
  });
  afterAll(() => server.stop());

  it('of the Data API', async () => {
    server.does = () => ({ kind: 'says', body: '{"properties": [{"ratio": [NaN, "step"], "a": ["NaN", "step"]}]}' });
    const session = createSession(server.url);
    const rest = createRestClient({ url: server.url, session, retries: 0 });
    const [read] = (await rest.get('builds/1/properties', propertiesAnswer)).properties;
    expect(read).toEqual({ ratio: [null, 'step'], a: ['NaN', 'step'] });
    rest.close();
  });

  it('of a master’s page', async () => {
    server.does = () => ({ kind: 'says', body: '{"5": {"number": 5, "properties": [["ratio", Infinity, "step"]]}}' });
    const master = createWebStatus({ url: server.url }, { retries: 0 });
    expect((await master.builds('b', [5])).get(5)).toMatchObject({ properties: [['ratio', null, 'step']] });
    master.close();
  });

  it('of an event', () => {
    const body = '{"payload": {"build": {"number": 7, "properties": [["ratio", -Infinity, "step"]]}}}';
    expect(parseEvent('build.b.7.finished', Buffer.from(body))).toMatchObject({
      build: { properties: { ratio: [null, 'step'] } },
    });
  });
});
