/** Logs that take their time: they are read to their end, and nothing else waits for them. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { eventually } from '../support/eventually.ts';
import { type Misbehaviour, startHostileServer } from '../support/hostile-server.ts';

const anything = z.unknown();
const BUILDBOT = 'answers of a Data API, a web status or Self-serve';
const LOG = /\/raw$|\/text$/;
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function serve(log: Misbehaviour) {
  const server = await startHostileServer(BUILDBOT, (line) =>
    LOG.test(line) ? log : { kind: 'says', body: '{"result":{}}' },
  );
  undo.push(() => server.stop());
  return { url: server.url, logs: () => server.calls.filter((line) => LOG.test(line)).length };
}

async function sizeOf(chunks: AsyncGenerator<Buffer>): Promise<number> {
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
  }
  return size;
}

interface Limits {
  readonly timeoutMs: number;
  readonly idleMs?: number;
}

/** What reads logs, and what else it asks the same server. */
interface Reader {
  log(): AsyncGenerator<Buffer>;
  readonly others: Readonly<Record<string, () => Promise<unknown>>>;
  close(): void;
}

const READERS: Readonly<Record<string, (url: string, limits: Limits) => Reader>> = {
  'the Data API'(url, limits) {
    const client = createRestClient({ url, session: createSession(url), retries: 0, ...limits });
    undo.push(() => client.close());
    return {
      log: () => client.stream('logs/1/raw'),
      others: {
        'a read': () => client.get('builds', anything),
        'a control call': () => client.control('builds/1', 'stop', {}),
      },
      close: () => client.close(),
    };
  },
  'a web status'(url, limits) {
    const client = createWebStatus({ url }, { retries: 0, ...limits });
    undo.push(() => client.close());
    return {
      log: () => client.logText(`${url}/builders/b/builds/1/steps/s/logs/stdio`),
      others: { 'a read': () => client.builders(), 'a form': () => client.stopBuild('b', 1, 'why') },
      close: () => client.close(),
    };
  },
};

describe.each(Object.entries(READERS))('a log of %s', (_what, open) => {
  it('is read to its end, though it takes longer than any other answer may', async () => {
    const { url } = await serve({ kind: 'drips', everyMs: 20, times: 40 });
    expect(await sizeOf(open(url, { timeoutMs: 400, idleMs: 400 }).log())).toBe(40);
  });

  it('keeps nothing else waiting, however many there are', async () => {
    const { url, logs } = await serve({ kind: 'drips', everyMs: 3_600_000 });
    const { log, others, close } = open(url, { timeoutMs: 3000 });
    const readings = Array.from({ length: 16 }, () => sizeOf(log()).catch(() => 0));
    await eventually(() => logs() === 16, { what: 'all logs' });
    for (const call of Object.values(others)) {
      await call();
    }
    close();
    await Promise.all(readings);
  });

  it('is given up where it stands still', async () => {
    const { url } = await serve({ kind: 'drips', everyMs: 3_600_000 });
    const reading = sizeOf(open(url, { timeoutMs: 8000, idleMs: 200 }).log());
    await expect(reading).rejects.toMatchObject({ isTransient: true, message: expect.stringContaining('200ms') });
  });
});
