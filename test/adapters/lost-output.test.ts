/** What `bbb` was asked to say, and could not. */
import { closeSync, constants as files, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, describe, expect, it, jest } from '@jest/globals';
import { EXIT } from '../../src/lifecycle.ts';
import { spawnBbb } from '../support/bbb.ts';

jest.setTimeout(60_000);

const folder = mkdtempSync(path.join(tmpdir(), 'bbb-lost-output-'));
afterAll(() => rmSync(folder, { recursive: true }));
const undo: (() => unknown)[] = [];
afterEach(() => {
  for (const work of undo.splice(0)) {
    work();
  }
});

const config = { database: { url: `sqlite:${path.join(folder, 'bridge.db')}` } };

function full(): number {
  const descriptor = openSync('/dev/full', files.O_WRONLY);
  undo.push(() => closeSync(descriptor));
  return descriptor;
}

describe('what cannot be written is told, and no success', () => {
  it.each(['migrate', '--help', 'tasks --help', '--version'])('of bbb %s', async (command) => {
    const bbb = spawnBbb(command.split(' '), { config, stdout: full() });
    expect([await bbb.ended, bbb.stderr()]).toEqual([
      EXIT.ioError,
      expect.stringMatching(/^bbb: not all could be written to stdout: .*ENOSPC.*\n$/),
    ]);
  });

  it('where something failed before, that counts', async () => {
    const elsewhere = { database: { url: `sqlite:${folder}/nowhere/bridge.db` } };
    const bbb = spawnBbb(['migrate'], { config: elsewhere, stdout: full() });
    expect(await bbb.ended).toBe(EXIT.config);
  });
});

it('whoever reads may go', async () => {
  const prefix = ['bash', '-o', 'pipefail', '-c', '"$@" | true', 'bash'];
  for (const args of [['migrate'], ['tasks'], ['--help']]) {
    const bbb = spawnBbb(args, { config, prefix });
    expect([args, await bbb.ended]).toEqual([args, EXIT.ok]);
    expect(bbb.stderr()).not.toContain('written');
  }
});
