import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from '@jest/globals';

const SRC = path.resolve(import.meta.dirname, '../../src');
/** Only the composition roots and the sandbox know both the core and the adapters. */
const ADAPTERS = ['taskcluster', 'buildbot', 'db', 'http', 'sandbox'];
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  domain: ['domain'],
  reflector: ['domain', 'reflector'],
  listeners: ['domain', 'listeners'],
  adopt: ['domain', 'reflector', 'adopt'],
  taskcluster: ['domain', 'taskcluster'],
  buildbot: ['domain', 'buildbot'],
  db: ['domain', 'db'],
  http: ['http'],
};

it('the core knows its ports and no adapter, and no adapter knows another', () => {
  const wrong = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && (file.split(path.sep)[0] ?? '') in ALLOWED)
    .flatMap((file) => {
      const folder = file.split(path.sep)[0] ?? '';
      const imports = [...readFileSync(path.join(SRC, file), 'utf8').matchAll(/from '(\.[^']+)'/g)];
      return imports
        .map(
          ([, target = '']) =>
            path.relative(SRC, path.resolve(SRC, path.dirname(file), target)).split(path.sep)[0] ?? '',
        )
        .filter((target) => !target.endsWith('.ts') && !(ALLOWED[folder] ?? []).includes(target))
        .map((target) => `${file} imports from ${target}`);
    });
  expect(wrong).toEqual([]);
  expect(ADAPTERS.every((name) => name === 'sandbox' || name in ALLOWED)).toBe(true);
});
