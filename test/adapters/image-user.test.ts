/** The built program as it runs in its image: as a user of no rights, in a folder that it cannot write. */
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { afterEach, beforeEach, expect, it } from '@jest/globals';

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');
/** Owns nothing anywhere. */
const NOBODY = 65_534;

let readOnly: string;
let writable: string;
beforeEach(() => {
  readOnly = mkdtempSync(path.join(tmpdir(), 'bbb-image-'));
  writable = mkdtempSync(path.join(tmpdir(), 'bbb-image-data-'));
});
afterEach(() => {
  rmSync(readOnly, { recursive: true, force: true });
  rmSync(writable, { recursive: true, force: true });
});

/** Whether everybody may come to a file and read it. */
function isOpenToAll(file: string): boolean {
  const folders: string[] = [];
  for (let folder = path.dirname(file); !folders.includes(folder); folder = path.dirname(folder)) {
    folders.push(folder);
  }
  return (statSync(file).mode & 0o004) > 0 && folders.every((folder) => (statSync(folder).mode & 0o001) > 0);
}

it('migrates a database in a folder given to it, and leaves nothing where it was started', () => {
  // Only root can become another; who is not root has no more rights than nobody in a read-only folder.
  const canChange = process.getuid?.() === 0 && [CLI, process.execPath].every(isOpenToAll);
  const identity = canChange ? { uid: NOBODY, gid: NOBODY } : {};
  chmodSync(readOnly, 0o555);
  if (canChange) {
    chownSync(writable, NOBODY, NOBODY);
  }
  const run = (...args: readonly string[]) =>
    spawnSync(process.execPath, [...args], {
      ...identity,
      cwd: readOnly,
      encoding: 'utf8',
      env: { DATABASE_URL: `sqlite:${path.join(writable, 'bridge.db')}`, HOME: readOnly, TMPDIR: readOnly },
    });
  if (canChange || process.getuid?.() !== 0) {
    expect(run('-e', "require('fs').writeFileSync('x', '')").stderr).toContain('EACCES');
  }
  expect(run(CLI, 'migrate')).toMatchObject({ status: 0, stderr: '' });
  expect(run(CLI, 'tasks')).toMatchObject({ status: 0 });
  expect(readdirSync(readOnly)).toEqual([]);
  expect(readdirSync(writable)).toContain('bridge.db');
  if (canChange) {
    expect(statSync(path.join(writable, 'bridge.db')).uid).toBe(NOBODY);
  }
});
