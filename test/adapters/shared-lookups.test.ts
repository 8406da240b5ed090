/** That the program looks a host's name up once at a time, whatever in it asks. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from '@jest/globals';

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');

it('the program shares its lookups', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-lookups-'));
  const hook = path.join(folder, 'hook.cjs');
  writeFileSync(
    hook,
    `const dns = require('node:dns');
     const before = dns.lookup;
     process.on('exit', () => process.stderr.write(dns.lookup === before ? 'alone' : 'shared'));`,
  );
  try {
    const { stderr } = await promisify(execFile)(process.execPath, ['--require', hook, CLI, '--help']);
    expect(stderr).toBe('shared');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
