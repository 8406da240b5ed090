import { lutimesSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createLog } from '../../src/log.ts';
import { removeLeftLogs, withSpooledLog } from '../../src/reflector/log-spool.ts';

let tempDir: string;
beforeEach(async () => {
  tempDir = await mkdtemp(path.join(tmpdir(), 'spool-test-'));
});
afterEach(() => rm(tempDir, { recursive: true }));

const options = (maxSize: number) => ({ tempDir, maxSize, hint: 'The whole log: http://b/1' });
const source = (...chunks: string[]) =>
  Readable.from(
    chunks.map((chunk) => Buffer.from(chunk)),
    { objectMode: false },
  );

describe('a spooled log', () => {
  it('is whole when it fits, and gone afterwards', async () => {
    const text = await withSpooledLog(source('one\n', 'two\n'), options(8), async (log) => {
      expect(log).toMatchObject({ size: 8 });
      return readFileSync(log.path, 'utf8');
    });
    expect(text).toBe('one\ntwo\n');
    expect(readdirSync(tempDir)).toEqual([]);
  });

  it('is cut visibly when it does not', async () => {
    const text = await withSpooledLog(source('0123456789', 'more', 'more'), options(12), async (log) =>
      readFileSync(log.path, 'utf8'),
    );
    expect(text).toMatch(/^0123456789mo\n\[the bridge cut this log here: it is longer than 12 bytes\. The whole log: /);
  });

  it('fails with its source, and leaves nothing behind', async () => {
    const broken = new Readable({
      read() {
        this.destroy(new Error('cut off'));
      },
    });
    await expect(withSpooledLog(broken, options(100), async () => undefined)).rejects.toThrow('cut off');
    expect(readdirSync(tempDir)).toEqual([]);
  });

  it('is cut where its source has no end, which is left alone then', async () => {
    let given = 0;
    const endless = new Readable({
      read() {
        given += 1000;
        this.push(Buffer.alloc(1000, 'x'));
      },
    });
    const text = await withSpooledLog(endless, options(100_000), async (log) => readFileSync(log.path, 'utf8'));
    expect(text).toMatch(/^x{100000}\n\[the bridge cut this log here: it is longer than 100000 bytes\. /);
    expect(endless.destroyed).toBe(true);
    expect(given).toBeLessThan(300_000);
  });

  it('is cut where its source drips', async () => {
    const dripping = new Readable({
      read() {
        setTimeout(() => this.push('x'), 10);
      },
    });
    const text = await withSpooledLog(dripping, { ...options(1_000_000), maxMs: 200 }, async (log) =>
      readFileSync(log.path, 'utf8'),
    );
    expect(text).toMatch(/^x+\n\[the bridge cut this log here: it did not come within 0\.2 s\. The whole log: /);
    expect(dripping.destroyed).toBe(true);
  });

  it('ends with nothing left on disk when there is no time left for it', async () => {
    const time = new AbortController();
    const silent = new Readable({
      read() {
        time.abort();
      },
    });
    const spooled = withSpooledLog(silent, { ...options(100), signal: time.signal }, async () => undefined);
    await expect(spooled).rejects.toMatchObject({ name: 'AbortError' });
    expect(readdirSync(tempDir)).toEqual([]);
    expect(silent.destroyed).toBe(true);
  });
});

describe('what a killed process has left', () => {
  const HOUR = 3_600_000;
  const now = Date.now();
  let lines: Record<string, unknown>[];
  beforeEach(() => {
    lines = [];
  });
  const remove = (folder = tempDir) =>
    removeLeftLogs(
      folder,
      createLog({ level: 'info', destination: { write: (line) => void lines.push(JSON.parse(line)) } }),
      now,
    );

  function put(name: string, hours: number, make: (at: string) => void): void {
    const at = path.join(tempDir, name);
    make(at);
    lutimesSync(at, (now - hours * HOUR) / 1000, (now - hours * HOUR) / 1000);
  }
  function aFolder(at: string): void {
    mkdirSync(at);
    writeFileSync(path.join(at, 'live_backing.log'), 'x');
  }

  it('goes when it is older than any log that is under way', async () => {
    put('bbb-log-aB3xYz', 25, aFolder);
    put('bbb-log-bbbbbb', 23, aFolder);
    await remove();
    expect(readdirSync(tempDir)).toEqual(['bbb-log-bbbbbb']);
    expect(lines).toMatchObject([{ level: 'info', count: 1 }]);
  });

  it('is told from what is not the bridge’s, and no link is followed', async () => {
    put('other-log-aaaaaa', 99, aFolder);
    put('bbb-log-aaaaaa.old', 99, aFolder);
    put('bbb-log-ffffff', 99, (at) => writeFileSync(at, 'x'));
    put('bbb-log-gggggg', 99, (at) => symlinkSync(path.join(tempDir, 'other-log-aaaaaa'), at));
    put('bbb-log-hhhhhh', 99, (at) => {
      mkdirSync(at);
      symlinkSync(path.join(tempDir, 'other-log-aaaaaa'), path.join(at, 'link'));
    });
    await remove();
    expect(readdirSync(tempDir).sort()).toEqual([
      ...['bbb-log-aaaaaa.old', 'bbb-log-ffffff', 'bbb-log-gggggg', 'other-log-aaaaaa'],
    ]);
    expect(readdirSync(path.join(tempDir, 'other-log-aaaaaa'))).toEqual(['live_backing.log']);
  });

  it('is said, and thrown by nobody, where it cannot be looked for', async () => {
    await remove(path.join(tempDir, 'nothing'));
    expect(lines).toMatchObject([{ level: 'warn', err: { message: expect.stringContaining('ENOENT') } }]);
  });
});
