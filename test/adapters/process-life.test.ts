/** What keeps a `bbb run` alive, and what ends it. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants as files, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import { codeOf } from '../../src/errors.ts';
import { EXIT } from '../../src/lifecycle.ts';
import { type Bbb, spawnBbb } from '../support/bbb.ts';
import { eventually } from '../support/eventually.ts';

/** Nothing of it is there. */
const configFor = (database: string) => ({
  taskcluster: { rootUrl: 'http://127.0.0.1:1', credentials: { clientId: 'c', accessToken: 't' } },
  pulse: { url: 'amqp://u:p@127.0.0.1:1/', namespace: 'u' },
  database: { url: database },
  legacyCi: { kind: 'data-api', dataApi: { url: 'http://127.0.0.1:1', forceScheduler: 'f' } },
  http: { port: 0 },
});

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

function makeFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-life-'));
  undo.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** One that hangs has failed, and must not stay. */
function start(options: { database: string; stdout?: number }): Bbb {
  const { database, ...rest } = options;
  const bbb = spawnBbb(['run'], { config: configFor(database), ...rest });
  undo.push(() => bbb.kill('SIGKILL'));
  return bbb;
}

const ending = async (bbb: Bbb): Promise<number | null> => {
  await eventually(() => !bbb.isAlive(), { timeoutMs: 15_000, what: 'its end' });
  return bbb.ended;
};

function open(file: string, flags: number): number {
  const fd = openSync(file, flags);
  undo.push(() => closeSync(fd));
  return fd;
}

/** A pipe, with its reader and what fills it. */
function makePipe(): { reader: number; writer: number; fill(): void } {
  const file = path.join(makeFolder(), 'pipe');
  execFileSync('mkfifo', [file]);
  const reader = openSync(file, files.O_RDWR | files.O_NONBLOCK);
  return {
    reader,
    writer: open(file, files.O_WRONLY),
    fill() {
      undo.push(() => closeSync(reader));
      try {
        for (;;) {
          writeSync(reader, 'x');
        }
      } catch (error) {
        expect(codeOf(error)).toBe('EAGAIN');
      }
    },
  };
}

/** A database that hangs up at once, or says nothing; how often it was asked tells that a bridge goes on. */
async function startFalseDatabase(
  isSilent = false,
): Promise<{ url: string; isAskedAgain(times?: number): Promise<unknown> }> {
  let asked = 0;
  const server = createServer((socket) => {
    asked += 1;
    if (isSilent) {
      undo.push(() => socket.destroy());
      socket.on('error', () => undefined);
    } else {
      socket.destroy();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.push(() => server.close());
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  return {
    url: `mysql://u:p@127.0.0.1:${port}/x`,
    isAskedAgain: (times = 2) => {
      const before = asked;
      return eventually(() => asked >= before + times, { timeoutMs: 15_000, what: 'the bridge to go on' });
    },
  };
}

it('without http goes on waiting for a database that is away', async () => {
  const bbb = spawnBbb(['run', '--services', 'reflector'], { config: configFor('mysql://u:p@127.0.0.1:1/x') });
  await Promise.race([bbb.says(/"retryInMs":2000/), bbb.ended]);
  expect(bbb.isAlive()).toBe(true);
  expect(await bbb.kill()).toBe(EXIT.ok);
});

describe('a log that nobody takes', () => {
  it.each([
    ['its disk is full', () => open('/dev/full', files.O_WRONLY)],
    [
      'its reader does not read',
      () => {
        const { writer, fill } = makePipe();
        fill();
        return writer;
      },
    ],
    [
      'its reader has gone',
      () => {
        const { writer, reader } = makePipe();
        closeSync(reader);
        return writer;
      },
    ],
  ])('keeps the bridge neither from going on nor from ending: %s', async (_what, stdout) => {
    const database = await startFalseDatabase();
    const bbb = start({ database: database.url, stdout: stdout() });
    await database.isAskedAgain();
    bbb.kill();
    expect(await ending(bbb)).toBe(EXIT.ok);
  });

  it('hides no failed start', async () => {
    const database = `sqlite:${path.join(makeFolder(), 'not-migrated.db')}`;
    const bbb = start({ database, stdout: open('/dev/full', files.O_WRONLY) });
    expect(await ending(bbb)).toBe(EXIT.tempFail);
  });
});

it('ends at a signal as the first process of a container, too, for which the kernel has no default', async () => {
  const database = await startFalseDatabase(true);
  const isolated = ['unshare', '--pid', '--fork', '--kill-child'];
  const bbb = spawnBbb(['migrate'], { env: { DATABASE_URL: database.url }, prefix: isolated });
  undo.push(() => bbb.kill('SIGKILL'));
  await database.isAskedAgain(1);
  const [child] = readFileSync(`/proc/${bbb.pid}/task/${bbb.pid}/children`, 'utf8').split(' ');
  process.kill(Number(child), 'SIGTERM');
  expect(await ending(bbb)).toBe(128 + constants.signals.SIGTERM);
});
