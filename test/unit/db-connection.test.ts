import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { ConfigError } from '../../src/errors.ts';

const PEM = path.join(import.meta.dirname, '../fixtures/self-signed.pem');

const opened: Knex[] = [];
const open = (url: string): Knex => {
  const db = connect(url);
  opened.push(db);
  return db;
};
afterEach(() => Promise.all(opened.splice(0).map((db) => db.destroy())));

function thrown(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

describe('the URL of the database', () => {
  it.each([
    '',
    'bridge.db',
    'sqlite:',
    'mariadb://u:hunter2@h/db',
    'mysql:u:hunter2@h/db',
    'mysql://u:hunter2@h',
    'mysql://u:hunter2@h/',
    'postgres://u:hunter2@h?sslmode=require',
    'mysql://u:hunter2@h:port/db',
    'mysql://u:hunter2/x@h/db',
    'postgres://u:hunter2%@h/db',
    'postgres://u:hunter2%zz@h/db',
    'postgres://',
  ])('%j is refused, with what would do, and without the password', (url) => {
    const error = thrown(() => open(url));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ message: expect.stringMatching(/database\.url: .*expected sqlite:FILE, mysql:/) });
    const { message, stack, cause } = error instanceof ConfigError ? error : new Error();
    expect(`${message} ${stack} ${cause}`).not.toContain('hunter2');
  });

  it('may be a file’s, in a folder that is there', () => {
    const error = thrown(() => open('sqlite:/nowhere/at/all/bridge.db'));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ message: 'database.url: there is no folder /nowhere/at/all' });
  });

  it('is no folder’s, and no file’s that is something else', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'bbb-no-database-'));
    const file = path.join(folder, 'notes.txt');
    writeFileSync(file, 'this is no database');
    writeFileSync(path.join(folder, 'empty.db'), '');
    const messages = [folder, file, path.join(file, 'bridge.db')].map((name) => thrown(() => open(`sqlite:${name}`)));
    expect(messages).toEqual([
      new ConfigError(`database.url: ${folder} is a folder: name a file in it, such as sqlite:${folder}/bridge.db`),
      new ConfigError(`database.url: ${file} is no SQLite database: name another file, which may be a new one`),
      new ConfigError(`database.url: there is no folder ${file}`),
    ]);
    expect(messages.every((error) => error instanceof ConfigError)).toBe(true);
    // As another process leaves it that has just made it.
    expect(open(`sqlite:${folder}/empty.db`)).toBeDefined();
    rmSync(folder, { recursive: true });
  });

  it.each(['sslrootcert', 'sslcert', 'sslkey'])('names no file with %s that cannot be read', (key) => {
    const error = thrown(() => open(`postgres://u:hunter2@h/db?sslmode=verify-full&${key}=/nowhere/at/all.pem`));
    expect(error).toBeInstanceOf(ConfigError);
    const message = `database.url: the file of ${key}, /nowhere/at/all.pem, cannot be read (ENOENT): correct its name, or let the bridge read it`;
    expect(error).toMatchObject({ message });
    expect(thrown(() => open(`postgres://u:p@h/db?sslmode=verify-full&${key}=${PEM}`))).not.toBeInstanceOf(Error);
  });

  it.each([
    ['mysql://u:p%40ss%2F@h/db', 'mysql2'],
    ['postgres://u@h/db?sslmode=require', 'pg'],
    ['postgresql://u@[::1]:5433/db', 'pg'],
    ['postgres:///db?host=/var/run/postgresql', 'pg'],
    ['sqlite:./bridge.db', 'better-sqlite3'],
  ])('%s is taken', (url, driver) => {
    expect(open(url).client.driverName).toBe(driver);
  });
});

it('a file keeps what was committed through a loss of power', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-file-'));
  try {
    const db = open(`sqlite:${path.join(folder, 'b.db')}`);
    await migrate(db);
    // 2 is FULL.
    expect([await db.raw('PRAGMA journal_mode'), await db.raw('PRAGMA synchronous')]).toEqual([
      [{ journal_mode: 'wal' }],
      [{ synchronous: 2 }],
    ]);
  } finally {
    await Promise.all(opened.splice(0).map((db) => db.destroy()));
    rmSync(folder, { recursive: true });
  }
});

describe('a database in memory', () => {
  it('is one and the same for everything that is asked of its pool', async () => {
    const db = open('sqlite::memory:');
    expect(await migrate(db)).toEqual(readdirSync(path.resolve(import.meta.dirname, '../../migrations')).sort());
    const store = createMappingStore(db);
    const byState = { refusing: 0, held: 0, intended: 0, submitted: 0, cancelling: 0 };
    const none = { byState, failing: 0, nearestTakenUntil: null };
    expect(await Promise.all([1, 2, 3].map(() => store.overview()))).toEqual([none, none, none]);
  });
});

it('a migration whose statements failed half-way, on an engine that takes no column back, is run again', async () => {
  const db = open('sqlite::memory:');
  await migrate(db);
  const store = createMappingStore(db);
  const { taskId, runId, externalId } = { taskId: 'a', runId: 0, externalId: 'a/0/1' };
  await store.insert(
    {
      ...{ taskId, runId, taskGroupId: 'a', builder: 'b', state: 'intended', externalId, submissions: 1 },
      ...{ collapseKey: null, hasSlot: false, priority: 2, deadline: 1, takenUntil: null },
    },
    { owner: 'test', leaseUntil: 0, now: 0 },
  );
  await db('tasks').update({ absent_since: 1 });
  const { up, down }: { up(db: Knex): Promise<void>; down(db: Knex): Promise<void> } = await import(
    path.resolve(import.meta.dirname, '../../migrations/005_absent_requests.js')
  );
  await down(db);
  await db.raw("CREATE TRIGGER away BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'away'); END");
  await expect(up(db)).rejects.toThrow('away');
  await db.raw('DROP TRIGGER away');
  await up(db);
  expect(await store.openMapping(taskId)).toMatchObject({ absentSince: null, requestAbsentSince: null });
});
