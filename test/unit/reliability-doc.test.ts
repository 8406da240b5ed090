/** The tests that docs/reliability.md names are there, by these names. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from '@jest/globals';
import { MUTATIONS } from '../../src/sandbox/simulation/mutations.ts';

const ROOT = path.resolve(import.meta.dirname, '../..');
const [, found = ''] = readFileSync(path.join(ROOT, 'docs/reliability.md'), 'utf8').split(
  '## What was found on the way',
);
const ROWS = [...found.matchAll(/^\| (?!\*\*|found|---)(.+) \| (.+) \|$/gm)].map(
  ([, bug = '', tests = '']) => [bug, tests] as const,
);

it.each(ROWS)('%s', (_bug, tests) => {
  const named = [...tests.matchAll(/simulation: `([^`]+)`/g)].map(([, name]) => name);
  expect(MUTATIONS.map(({ name }) => name)).toEqual(expect.arrayContaining(named));
  const files = [...tests.matchAll(/`([^`]+\.ts)`((?:,? "[^"]+")*)/g)];
  expect(files.length).toBeGreaterThan(0);
  for (const [, file = '', names = ''] of files) {
    const text = readFileSync(path.join(ROOT, 'test', file), 'utf8');
    for (const [, name = ''] of names.matchAll(/"([^"]+)"/g)) {
      expect(text).toContain(name);
      expect(text).not.toMatch(/\b(?:it|describe)\.(?:skip|todo|failing)/);
    }
  }
});

it('every line of the table is one of these rows', () => {
  const lines = found.split('\n').filter((line) => line.startsWith('|') && !/^\| (?:\*\*|found \||---)/.test(line));
  expect(lines.length).toBeGreaterThan(100);
  expect(ROWS.length).toBe(lines.length);
});
