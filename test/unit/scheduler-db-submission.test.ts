/** What is written into a scheduler database, and what it could not hold. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Limit, Schema } from '../../src/buildbot/scheduler-db/schema.ts';
import {
  encoded,
  priorityOf,
  propertiesOf,
  reasonOf,
  sourcestampOf,
  submissionProblems,
} from '../../src/buildbot/scheduler-db/submission.ts';
import { firstBridgeExternalId } from '../../src/domain/first-bridge.ts';
import { PRIORITIES } from '../../src/domain/task.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { NOW, TASK_ID } from '../support/builders.ts';

const aSpec = (more: Partial<BuildSpec> = {}): BuildSpec => ({
  ...{ taskId: TASK_ID, runId: 0, externalId: `${TASK_ID}/0/1`, scheduled: NOW, priority: 'low', builder: 'b' },
  ...{ branch: 'integration/main', revision: 'abc', repository: null, project: null },
  properties: { product: 'widget' },
  ...more,
});
const schemaOf = (kind: Schema['kind'], limits: Record<string, Limit>): Schema => ({
  kind,
  limits: new Map(Object.entries(limits)),
});
const characters = (length: number): Limit => ({ length, unit: 'characters' });
const A = schemaOf('A', {
  'buildrequests.buildername': characters(256),
  'sourcestamps.branch': characters(256),
  'sourcestamps.revision': characters(256),
  'sourcestamps.repository': { length: 65_535, unit: 'bytes' },
  'buildset_properties.property_name': characters(256),
  'buildset_properties.property_value': characters(1024),
});
const places = (more: Partial<BuildSpec>, schema = A) =>
  submissionProblems(aSpec(more), schema).map(({ where, what }) => `${where}: ${what}`);

describe('a value', () => {
  it.each([
    ['a text', 'firefox', '["firefox","bbb"]'],
    ['a number', 7, '[7,"bbb"]'],
    ['null', null, '[null,"bbb"]'],
    ['an object', { a: [1] }, '[{"a":[1]},"bbb"]'],
    ['more than ASCII', 'é€', '["\\u00e9\\u20ac","bbb"]'],
    ['more than three bytes of UTF-8', '😀', '["\\ud83d\\ude00","bbb"]'],
    ['half a character', '\ud83d', '["\\ud83d","bbb"]'],
    ['control characters', '\0\u007f\n', '["\\u0000\\u007f\\n","bbb"]'],
    ['quotes and backslashes', '\'"\\', '["\'\\"\\\\","bbb"]'],
  ])('%s is written as Python would', (_what, value, text) => expect(encoded(value)).toBe(text));

  it('of any kind is ASCII, and comes back as it was', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const text = encoded(value);
        expect(/^[\x20-\x7e]*$/.test(text)).toBe(true);
        expect(JSON.parse(text)).toEqual([JSON.parse(JSON.stringify(value)), 'bbb']);
      }),
    );
  });
});

describe('a request', () => {
  it("has the first bridge's names", () => {
    expect([firstBridgeExternalId(TASK_ID), reasonOf(TASK_ID)]).toEqual([
      `taskId:${TASK_ID}`,
      `Created by BBB for task ${TASK_ID}`,
    ]);
  });

  it('has ranks for priorities above normal', () => {
    expect(PRIORITIES.map(priorityOf)).toEqual([3, 2, 1, 0, 0, 0, 0]);
  });

  it('has ids that a payload cannot choose', () => {
    const properties = { product: 'w', taskId: 'mine', bbb_external_id: 'mine' };
    expect(Object.fromEntries(propertiesOf(aSpec({ properties })))).toEqual({
      product: '["w","bbb"]',
      taskId: `["${TASK_ID}","bbb"]`,
      bbb_external_id: `["${TASK_ID}/0/1","bbb"]`,
    });
  });

  it('has empty texts where the schema has no nulls', () => {
    expect(sourcestampOf(aSpec({ branch: null, revision: null }))).toEqual({
      ...{ branch: null, revision: null, repository: '', project: '' },
    });
  });
});

describe('what a database could not hold', () => {
  it('is nothing, of most requests', () => expect(places({})).toEqual([]));

  it.each([{}, { product: '' }, { product: 7 }, { product: null }])('a product that is %j', (properties) => {
    expect(places({ properties })).toEqual([
      'payload.properties.product: it is missing, and the masters need it to upload the log',
    ]);
  });

  it.each<[string, Partial<BuildSpec>, Partial<BuildSpec>, string]>([
    ['a builder', { builder: 'b'.repeat(256) }, { builder: 'b'.repeat(257) }, 'payload.buildername'],
    ['a branch', { branch: 'é'.repeat(256) }, { branch: 'é'.repeat(257) }, 'payload.sourcestamp.branch'],
    ['a revision', { revision: 'r'.repeat(256) }, { revision: 'r'.repeat(257) }, 'payload.sourcestamp.revision'],
    [
      'a repository, in bytes',
      { repository: `${'é'.repeat(32_767)}r` },
      { repository: 'é'.repeat(32_768) },
      'payload.sourcestamp.repository',
    ],
    [
      "a property's name",
      { properties: { product: 'w', ['n'.repeat(256)]: 1 } },
      { properties: { product: 'w', ['n'.repeat(257)]: 1 } },
      `payload.properties.${'n'.repeat(257)}`,
    ],
    [
      "a property's value, as it is written",
      { properties: { product: 'w', p: 'x'.repeat(1014) } },
      { properties: { product: 'w', p: 'x'.repeat(1015) } },
      'payload.properties.p',
    ],
    [
      'a value that is longer when it is written',
      { properties: { product: 'w', p: 'é'.repeat(169) } },
      { properties: { product: 'w', p: 'é'.repeat(170) } },
      'payload.properties.p',
    ],
  ])('%s that is one too long', (_what, longest, tooLong, where) => {
    expect(places(longest)).toEqual([]);
    expect(places(tooLong)).toEqual([expect.stringContaining(`${where}: it is too long`)]);
  });

  it('a column without a limit holds anything', () => {
    const schema = schemaOf('B', {});
    expect(places({ builder: 'b'.repeat(10_000) }, schema)).toEqual([]);
  });

  it.each([
    ['an emoji', 'b😀'],
    ['half a character', 'b\ud83d'],
    ['a NUL', 'b\0'],
  ])('%s in a name or a source', (_what, text) => {
    expect(places({ builder: text })).toHaveLength(1);
    expect(places({ branch: text })).toHaveLength(1);
    expect(places({ properties: { product: 'w', [text]: 1 } })).toHaveLength(1);
    // In a value it is escaped.
    expect(places({ properties: { product: 'w', p: text } })).toEqual([]);
  });

  it('every problem says how to mend it', () => {
    const problems = submissionProblems(aSpec({ builder: 'x'.repeat(300), properties: {} }), A);
    expect(problems.every(({ mend }) => mend.length > 10)).toBe(true);
  });
});
