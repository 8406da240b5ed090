/** `bbb migrate --adopt` as an operator runs it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import type { Knex } from 'knex';
import { connect } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { EXIT } from '../../src/lifecycle.ts';
import { spawnBbb } from '../support/bbb.ts';
import { newTaskId, type QueueFixture, startQueue } from '../support/queue-emulator.ts';
import { mariadb } from '../support/services/index.ts';
import { addOldRows, configOf, createOldTable, runMigrate, tasksOf } from './adopt-support.ts';
import { ENGINES } from './mapping-store-support.ts';

jest.setTimeout(60_000);

let queue: QueueFixture;
let old: { readonly url: string; drop(): Promise<void> };
let oldDb: Knex;

beforeAll(async () => {
  // The command goes by the machine's clock.
  queue = await startQueue({ at: Date.now() });
  old = await mariadb().createDatabase();
  oldDb = connect(old.url);
  await createOldTable(oldDb);
});
afterAll(async () => {
  await oldDb?.destroy();
  await old?.drop();
  await queue?.stop();
});
beforeEach(() => oldDb('tasks').delete());

describe.each(ENGINES)('bbb migrate --adopt, into $name', (engine) => {
  let target: { readonly url: string; drop(): Promise<void> };
  beforeEach(async () => {
    target = await engine.create();
  });
  afterEach(() => target?.drop());

  it('migrates, takes over, says so line by line, and is safe to repeat', async () => {
    const { pending, running } = tasksOf(queue);
    const [waiting, building, gone] = [await pending(), await running(), newTaskId()];
    const rows = [
      { buildrequestId: 11, taskId: waiting, runId: 0 },
      { buildrequestId: 12, taskId: building, runId: 0, takenUntil: 1_790_000_000 },
      { buildrequestId: null, taskId: building, runId: 0 },
      { buildrequestId: null, taskId: gone, runId: 0 },
      { buildrequestId: 13, taskId: 'whatever', runId: 0 },
    ];
    await addOldRows(oldDb, rows);
    const before = await oldDb('tasks');
    const config = configOf(queue.emulator.rootUrl, target.url);

    const first = await runMigrate(['--adopt', old.url], { config });
    expect(first).toMatchObject({ code: EXIT.ok, errors: '' });
    expect(first.lines.slice(0, 1)).toEqual(['applied 001_mappings.js']);
    expect(first.lines).toContain(
      `adopted: task ${gone}, run 0, no build request: its build request is looked for; the queue no longer has the task`,
    );
    expect(first.lines).toContain(
      `merged: task ${building}, run 0, no build request: the row of run 0, build request 12, counts`,
    );
    expect(first.lines.at(-1)).toBe('5 rows: 3 adopted, 1 merged, 0 known, 1 skipped, 0 failed');

    // The URL from the environment, where nobody sees it.
    const second = await runMigrate(['--adopt'], { config, env: { ADOPT_DATABASE_URL: old.url } });
    expect(second).toMatchObject({ code: EXIT.ok, errors: '' });
    expect(second.lines.at(-1)).toBe('5 rows: 0 adopted, 1 merged, 3 known, 1 skipped, 0 failed');

    const store = createMappingStore(connect(target.url));
    expect((await store.overview()).byState).toMatchObject({ submitted: 2, intended: 1 });
    await store.close();
    expect(await oldDb('tasks')).toEqual(before);
  });
});

describe('bbb migrate --adopt', () => {
  let folder: string;
  let config: object;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'bbb-adopt-'));
    config = configOf(queue.emulator.rootUrl, `sqlite:${path.join(folder, 'bridge.db')}`);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('takes over from a file, too', async () => {
    const url = `sqlite:${path.join(folder, 'old.db')}`;
    const db = connect(url);
    await createOldTable(db);
    await addOldRows(db, [{ buildrequestId: 14, taskId: await tasksOf(queue).pending(), runId: 0 }]);
    await db.destroy();
    const { lines, code } = await runMigrate(['--adopt', url], { config });
    expect([code, lines.at(-1)]).toEqual([EXIT.ok, '1 rows: 1 adopted, 0 merged, 0 known, 0 skipped, 0 failed']);
  });

  it('goes on to its end where nobody reads what it says', async () => {
    const taskId = await tasksOf(queue).pending();
    await addOldRows(oldDb, [{ buildrequestId: 16, taskId, runId: 0 }]);
    const prefix = ['bash', '-o', 'pipefail', '-c', '"$@" | true', 'bash'];
    const bbb = spawnBbb(['migrate', '--adopt', old.url], { config, prefix });
    expect([await bbb.ended, bbb.stderr()]).toEqual([EXIT.ok, '']);
    const store = createMappingStore(connect(`sqlite:${path.join(folder, 'bridge.db')}`));
    expect(await store.openMapping(taskId)).toMatchObject({ buildRequestId: 16 });
    await store.close();
    expect(await spawnBbb(['migrate', '--help'], { prefix }).ended).toBe(EXIT.ok);
  });

  it('needs the whole configuration, and a URL', async () => {
    const env = { ADOPT_DATABASE_URL: '', BBB_CONFIG: '', DATABASE_URL: `sqlite:${path.join(folder, 'bridge.db')}` };
    const dataApi = { url: 'http://127.0.0.1:1', forceScheduler: 'bridge' };
    const modern = configOf(queue.emulator.rootUrl, env.DATABASE_URL, { legacyCi: { kind: 'data-api', dataApi } });
    for (const [args, given, message] of [
      [['--adopt', old.url], { env }, 'whole configuration'],
      [['--adopt', old.url], { config: { database: { url: env.DATABASE_URL } } }, 'taskcluster is missing'],
      [['--adopt'], { config, env }, 'ADOPT_DATABASE_URL'],
      [['--adopt', 'mysql+pymysql://u:hunter2@h/d'], { config }, '--adopt: expected'],
      [['--adopt', 'mysql://u:hunter2@h:99999/d'], { config }, '--adopt: this is no mysql URL'],
      [['--adopt', `sqlite:${folder}/nowhere.db`], { config }, 'there is no file'],
      [['--adopt', 'mysql://u:hunter2@h/d'], { config: modern }, 'legacyCi.kind has to be scheduler-db'],
      [['--adopt', env.DATABASE_URL], { config: configOf(queue.emulator.rootUrl, env.DATABASE_URL) }, 'own database'],
    ] as const) {
      const { code, errors, lines } = await runMigrate(args, given);
      expect(errors).toContain(message);
      expect([code, lines]).toEqual([EXIT.config, []]);
      expect(errors).not.toContain('hunter2');
    }
  });

  it('ends with an error, and without the password, where something cannot be read', async () => {
    const away = new URL(old.url);
    away.port = '1';
    away.password = 'hunter2';
    const wrong = new URL(old.url);
    wrong.password = 'hunter2';
    const empty = await mariadb().createDatabase();
    for (const [url, message] of [
      [away.href, 'could not be read'],
      [wrong.href, 'could not be read'],
      [empty.url, 'no table tasks of the first bridge'],
    ] as const) {
      const { code, errors, lines } = await runMigrate(['--adopt', url], { config });
      expect([code, errors]).toEqual([EXIT.tempFail, expect.stringContaining(message)]);
      expect(lines.join() + errors).not.toContain('hunter2');
    }
    await empty.drop();

    await addOldRows(oldDb, [{ buildrequestId: 15, taskId: newTaskId(), runId: 0 }]);
    const { code, lines } = await runMigrate(['--adopt', old.url], {
      config: configOf('http://127.0.0.1:1', `sqlite:${path.join(folder, 'other.db')}`),
    });
    expect(code).toBe(EXIT.tempFail);
    expect(lines.slice(-2)).toEqual([
      '1 rows: 0 adopted, 0 merged, 0 known, 0 skipped, 1 failed',
      'not everything could be read or written: run this again',
    ]);
  });

  it('says in its help what it does', async () => {
    const { lines, code } = await runMigrate(['--help'], {});
    expect(code).toBe(EXIT.ok);
    expect(lines.join(' ')).toMatch(/--adopt \[url\].*ADOPT_DATABASE_URL/);
  });
});
