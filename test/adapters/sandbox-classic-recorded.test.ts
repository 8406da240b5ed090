/** The emulated stock master against what a real 0.8.12 wrote into its database, row change by row change. */
import { afterEach, expect, it } from '@jest/globals';
import got from 'got';
import { z } from 'zod';
import { createHistory, type RowChange } from './sandbox-classic-history.ts';
import { type Classic, NEVER_MS, readFixture, startClassic } from './sandbox-classic-support.ts';

const entry = z.object({
  kind: z.string(),
  ms: z.number(),
  row: z.string().optional(),
  to: z.record(z.string(), z.unknown()).optional(),
});
const columns = z.object({
  columns: z.array(z.looseObject({ table: z.string(), column: z.string() })),
  indexes: z.array(z.looseObject({ table: z.string(), index: z.string() })),
});

/** What one look at the tables found to have changed; the recorder looked every 30 ms. */
type Look = readonly RowChange[];

function recordedLooks(): readonly Look[] {
  const looks: RowChange[][] = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const { kind, ms, row = '', to } of readFixture('buildbot-0.8.12-scheduler-db.json', z.array(entry))) {
    if (kind === 'insert' || kind === 'update' || kind === 'delete') {
      const look = ms - last <= 5 ? (looks.pop() ?? []) : [];
      looks.push([...look, { kind, row, to: to === undefined ? null : withoutTimes(to) }]);
      last = ms;
    }
  }
  return looks;
}

function withoutTimes(row: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => [name, /_at$|_time$/.test(name) && value !== null ? 'time' : value]),
  );
}

let buildbot: Classic;
afterEach(() => buildbot?.stop());

function start(): Promise<Classic> {
  const log = 'hello\n';
  const quick = (results: number) => ({ results, durationMs: 20, steps: [{ name: 'shell', log }] });
  const builder = (name: string, ...results: number[]) => ({ name, workers: ['w1'], attempts: results.map(quick) });
  return startClassic({
    schema: 'B',
    flavour: 'stock',
    pollIntervalMs: NEVER_MS,
    builders: [
      ...[builder('ok', 0), builder('fail', 2), builder('warn', 1), builder('exc', 4), builder('retry', 5, 0)],
      { name: 'slow', workers: ['w1'], attempts: [{ results: 0, durationMs: 'wait' }] },
      { name: 'noslave', workers: [], attempts: [quick(0)] },
    ],
  });
}

it('has the columns and indexes that a real 0.8.12 made', async () => {
  buildbot = await start();
  const recorded = readFixture('buildbot-0.8.12-columns.json', columns);
  const tables = [...new Set(recorded.columns.map(({ table }) => table))];
  const list = tables.map((table) => `'${table}'`).join(',');
  const [made] = await buildbot.db.raw(
    `SELECT table_name 'table', column_name 'column', column_type 'type', is_nullable 'nullable',
       COALESCE(column_default, 'NULL') 'default', column_key 'key', extra
     FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN (${list})`,
  );
  const [indexes] = await buildbot.db.raw(
    `SELECT table_name 'table', index_name 'index', CAST(non_unique AS CHAR) 'nonUnique',
       GROUP_CONCAT(column_name ORDER BY seq_in_index) 'columns'
     FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name IN (${list})
     GROUP BY table_name, index_name, non_unique`,
  );
  const byName = (rows: readonly object[]) => rows.map((row) => JSON.stringify(row)).sort();
  const order = ({ table, column, type, nullable, default: standard, key, extra }: Record<string, unknown>) => ({
    ...{ table, column, type, nullable, default: standard, key, extra },
  });
  expect(byName(made.map(order))).toEqual(byName(recorded.columns.map(order)));
  // The recording left out the one index of migrate_version; that its column is the primary key is in the columns.
  const others = indexes.filter(({ table }: { table: string }) => table !== 'migrate_version');
  expect(byName(others)).toEqual(byName(recorded.indexes));
});

it('writes what a real 0.8.12 wrote, in the same order', async () => {
  buildbot = await start();
  const history = await createHistory(buildbot.db, ['buildrequests', 'buildrequest_claims', 'builds', 'buildsets']);
  const build = async (builder: string, task: string, more: object = {}) => {
    const brid = await buildbot.inject({ builder, task, ...more });
    await buildbot.poll();
    return brid;
  };
  const post = async (url: string, form: Record<string, string>) => {
    const answer = await got.post(`${buildbot.webStatusUrl}${url}`, { form, followRedirect: false });
    return { status: answer.statusCode, location: answer.headers.location };
  };

  for (const builder of ['ok', 'fail', 'warn', 'exc', 'retry']) {
    await buildbot.completed(await build(builder, `T-${builder}`));
  }
  await buildbot.inject({ builder: 'ok', task: 'T-m0', revision: 'r0' });
  await buildbot.inject({ builder: 'ok', task: 'T-m1', revision: 'same' });
  const last = await buildbot.inject({ builder: 'ok', task: 'T-m2', revision: 'same' });
  await buildbot.poll();
  await buildbot.completed(last);

  const pending = await build('noslave', 'T-cp');
  expect(await post('/builders/noslave/cancelbuild', { id: String(pending) })).toEqual({
    status: 302,
    location: '../../builders/noslave',
  });
  const stopped = await build('slow', 'T-stop');
  const STOPPED = { status: 302, location: '../../../../builders/slow' };
  expect(await post('/builders/slow/builds/0/stop', { comments: 'by hand' })).toEqual(STOPPED);
  await buildbot.completed(stopped);

  const lost = await build('slow', 'T-lost');
  await buildbot.killWorker('w1');
  await buildbot.startWorker('w1');
  expect(await post('/builders/slow/builds/2/stop', { comments: 'by hand' })).toEqual(STOPPED);
  await buildbot.completed(lost);

  const restarted = await build('slow', 'T-mrestart');
  await buildbot.stopMaster();
  await buildbot.startMaster();
  await buildbot.built(restarted, 2);
  // How that build ended was not recorded.
  await history.pause();
  await buildbot.finish(restarted, 0);
  await history.resume();

  await build('slow', 'T-mkill');
  await buildbot.killMaster();
  await buildbot.startMaster();
  await buildbot.completed(await build('fail', 'T-bad', { properties: { bad: 'not JSON' } }));
  await build('nosuch', 'T-nb');

  const changes = (await history.read()).map((change) => ({ ...change, to: change.to && withoutTimes(change.to) }));
  // As if the recorder had looked at these changes: for each of its looks, so many of them as it saw at once.
  const seen = new Map<string, RowChange['to']>();
  let at = 0;
  recordedLooks().forEach((look, index) => {
    const before = new Map(seen);
    const expected = sorted(look);
    let found: Look = [];
    do {
      const change = changes[at];
      if (change === undefined) {
        expect({ look: index, found: sorted(found) }).toEqual({ look: index, found: expected });
        return;
      }
      at += 1;
      seen.set(change.row, change.kind === 'delete' ? null : change.to);
      found = difference(before, seen);
    } while (JSON.stringify(sorted(found)) !== JSON.stringify(expected));
  });
  expect(changes.slice(at)).toEqual([]);
});

function difference(before: ReadonlyMap<string, RowChange['to']>, after: ReadonlyMap<string, RowChange['to']>): Look {
  return [...after].flatMap(([row, to]): RowChange[] => {
    const was = before.get(row) ?? null;
    if (JSON.stringify(was) === JSON.stringify(to)) {
      return [];
    }
    return [{ kind: was === null ? 'insert' : to === null ? 'delete' : 'update', row, to }];
  });
}

function sorted(look: Look): Look {
  return [...look].sort((a, b) => (a.row < b.row ? -1 : 1));
}
