import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from '@jest/globals';

it('the demo shows every story right, in plain lines where there is no terminal', async () => {
  const cli = path.resolve(import.meta.dirname, '../../dist/src/cli.js');
  const { stdout } = await promisify(execFile)(process.execPath, [cli, 'demo'], { timeout: 90_000 });
  expect(stdout).toContain('Every story came out right.');
  expect(stdout.match(/^ok /gm)).toHaveLength(10);
  expect(stdout).not.toContain('\u001B');
});
