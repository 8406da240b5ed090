/** Lists and records out of foreign JSON are read to their first bad element, and no further. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { buildsAnswer, propertiesAnswer, requestsAnswer, stepsAnswer } from '../../src/buildbot/data-api/answers.ts';
import { errorsOf } from '../../src/buildbot/unreadable.ts';
import { anyList, anyRecord, listOf, recordOf } from '../../src/lists.ts';
import { createAnswerReader, scopesAnswer, statusesAnswer, taskPageAnswer } from '../../src/taskcluster/answers.ts';
import { countInputs } from '../support/count-inputs.ts';
import { tried } from '../support/hostile-input.ts';

const SRC = path.resolve(import.meta.dirname, '../../src');
/** Where what others send is read. */
const EDGES = ['taskcluster', 'buildbot', 'listeners'];

it('nothing at the edges reads them in a way that tells of every bad element', () => {
  const wrong = EDGES.flatMap((edge) =>
    readdirSync(path.join(SRC, edge), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => path.join(edge, file)),
  ).filter((file) => /\bz\s*\.(?:array|record|map|set)\(|\.array\(\)/.test(readFileSync(path.join(SRC, file), 'utf8')));
  expect(wrong).toEqual([]);
});

/** Counts how many elements are looked at. */
function counted() {
  const seen = { count: 0 };
  const element = z.unknown().transform((value, context) => {
    seen.count += 1;
    if (value !== 'good') {
      context.addIssue({ code: 'custom', message: 'not good' });
    }
    return String(value);
  });
  return { seen, element };
}

type Schema = (element: z.ZodType, max?: number) => z.ZodType;
describe.each([
  ['a list', listOf, (values: readonly unknown[]): unknown => values],
  ['a record', recordOf, (values: readonly unknown[]): unknown => ({ ...values })],
] as readonly (readonly [string, Schema, (values: readonly unknown[]) => unknown])[])('%s', (_what, schemaOf, from) => {
  it('is what its elements are', () => {
    expect(schemaOf(z.string().transform((text) => text.length)).parse(from(['a', 'bb']))).toEqual(from([1, 2]));
    expect(schemaOf(z.string()).parse(from([]))).toEqual(from([]));
  });

  it('is looked at up to its first bad element, which is told with its place', () => {
    const { seen, element } = counted();
    const parsed = z.object({ all: schemaOf(element) }).safeParse({ all: from(['good', 'bad', 'bad', 'bad']) });
    expect(seen.count).toBe(2);
    expect(parsed.error?.issues.map((issue) => [issue.path.map(String), issue.message])).toEqual([
      [['all', '1'], 'not good'],
    ]);
  });

  it('of such lists stops as early', () => {
    const { seen, element } = counted();
    const parsed = schemaOf(schemaOf(element)).safeParse(from([from(['good']), from(['bad', 'bad']), from(['bad'])]));
    expect(seen.count).toBe(2);
    expect(parsed.error?.issues.map((issue) => issue.path.map(String))).toEqual([['1', '0']]);
  });

  it('that has too many elements is not looked at', () => {
    const { seen, element } = counted();
    const parsed = schemaOf(element, 3).safeParse(from(['good', 'good', 'good', 'good']));
    expect(seen.count).toBe(0);
    expect(parsed.error?.issues).toMatchObject([{ message: '4 are too many' }]);
    expect(schemaOf(element, 3).safeParse(from(['good', 'good', 'good'])).success).toBe(true);
  });

  it.each([null, undefined, 7, 'text'])('is not %p', (given) => {
    expect(schemaOf(z.unknown()).safeParse(given).error?.issues).toHaveLength(1);
  });
});

it('a list is no record, and a record no list', () => {
  expect(anyList.safeParse({}).success).toBe(false);
  expect(anyRecord.safeParse([]).success).toBe(false);
});

const many = (value: unknown) => Array.from({ length: 5000 }, () => value);

const BAD: readonly [string, z.ZodType, unknown][] = [
  ['steps', stepsAnswer, { steps: many(0) }],
  ['steps without anything', stepsAnswer, { steps: many({}) }],
  ['properties', propertiesAnswer, { properties: many(0) }],
  ['properties of one', propertiesAnswer, { properties: [{ ...many(0) }] }],
  ['pending tasks', taskPageAnswer, { tasks: many(0) }],
  ['statuses', statusesAnswer, { statuses: many({}) }],
  ['scopes', scopesAnswer, { scopes: many(0) }],
];

it.each(BAD)('an answer of nothing but bad %s has few issues', (_what, schema, answer) => {
  tried('answers of a Data API, a web status or Self-serve');
  const { error } = schema.safeParse(answer);
  expect(error?.issues.length).toBeGreaterThan(0);
  expect(error?.issues.length).toBeLessThan(10);
});

it('very many statuses of the same task are not looked at one by one', () => {
  const { error } = statusesAnswer.safeParse({ statuses: many({ taskId: 't', status: 0 }) });
  expect(error?.issues).toMatchObject([{ path: ['statuses'], message: '5000 are too many' }]);
});

it('a status of very many runs is not looked at', () => {
  const run = { runId: 0, state: 'pending', reasonCreated: 'scheduled', scheduled: '2026-01-01T00:00:00Z' };
  const time = '2026-01-01T00:00:00Z';
  const status = {
    ...{ taskId: 't', taskQueueId: 'a/b', schedulerId: 's', taskGroupId: 'g', priority: 'low', deadline: time },
    ...{ expires: time, retriesLeft: 5, runs: many(0).map((_, runId) => ({ ...run, runId })) },
  };
  expect(() => createAnswerReader().statusAnswer({ status }, 't')).toThrow('5000 are too many');
});

describe.each([
  ['requests', requestsAnswer, 'buildrequests'],
  ['builds', buildsAnswer, 'builds'],
] as const)('an answer of nothing but bad %s', (_what, schema, key) => {
  const parsed: Readonly<Record<string, { readonly bad: readonly { readonly owner: number | undefined }[] }>> =
    schema.parse({ [key]: many(0) });
  const bad = parsed[key]?.bad ?? [];

  it('is looked at up to its thousandth; the rest may be anybody’s', () => {
    expect(bad).toHaveLength(1001);
    expect(bad.at(-1)).toMatchObject({ owner: undefined, reason: expect.stringContaining('too many') });
  });

  it('counts once', () => {
    const inputs = countInputs();
    errorsOf(inputs, 'build request', parsed[key]?.bad as Parameters<typeof errorsOf>[2]);
    expect(inputs.counts).toEqual({ 'rejected legacy-ci-answer': 1 });
  });
});
