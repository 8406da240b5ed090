import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { checkSchema, connect, migrate } from '../../src/db/connection.ts';
import { createKeptBuilds } from '../../src/db/kept-builds.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { describeError, StoreError } from '../../src/errors.ts';
import { eventually } from '../support/eventually.ts';
import { startTcpGate } from '../support/tcp-gate.ts';
import { addReleased, type Engine, LEASE, NOW, type Opened, openStore, stored } from './mapping-store-support.ts';

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');

/** `bbb migrate` in a process of its own; what it prints. */
async function runMigrate(url: string): Promise<string> {
  const env = { ...process.env, NODE_OPTIONS: '', DATABASE_URL: url };
  return (await promisify(execFile)(process.execPath, [CLI, 'migrate'], { env })).stdout;
}

const FOLDER = path.resolve(import.meta.dirname, '../../migrations');
const MIGRATIONS = readdirSync(FOLDER).sort();

/** Migrations, and what happens when the database is wrong or away. */
export function describeSchema(engine: Engine): void {
  let opened: Opened;
  beforeEach(async () => {
    opened = await openStore(engine, { isMigrated: false });
  });
  afterEach(() => opened?.drop());

  describe('migrate', () => {
    it('applies what is missing, once', async () => {
      expect(await migrate(opened.db)).toEqual(MIGRATIONS);
      expect(await migrate(opened.db)).toEqual([]);
      await checkSchema(opened.db);
    });

    it('goes down and up again', async () => {
      await migrate(opened.db);
      const migrations: { up(db: Knex): Promise<void>; down(db: Knex): Promise<void> }[] = await Promise.all(
        MIGRATIONS.map((name) => import(path.join(FOLDER, name))),
      );
      for (const migration of migrations.toReversed()) {
        await migration.down(opened.db);
      }
      for (const migration of migrations) {
        await migration.up(opened.db);
      }
      expect((await addReleased(opened.store)).version).toBe(2);
    });

    it('is safe from many instances at once', async () => {
      const said = await Promise.all([1, 2, 3].map(() => runMigrate(opened.url)));
      const applied = said.filter((text) => text.includes('applied 001_mappings.js'));
      expect(said.map((text) => text.split('\n').at(-2))).toEqual(Array(3).fill(expect.stringMatching(/up to date/)));
      expect(applied).toHaveLength(1);
      await checkSchema(opened.db);
      expect(await opened.db('knex_migrations_lock')).toEqual([{ index: 1, is_locked: 0 }]);
    });

    it('goes on where it was killed before it could note what it had done', async () => {
      await migrate(opened.db);
      const mapping = await addReleased(opened.store);
      await opened.db('knex_migrations').whereNot({ name: '001_mappings.js' }).delete();
      expect(await migrate(opened.db, { waitMs: 100 })).toEqual(MIGRATIONS.slice(1));
      await checkSchema(opened.db);
      expect(await opened.store.openMapping(mapping.taskId)).toEqual(mapping);
    });

    it('makes anew what it was killed in the middle of', async () => {
      await migrate(opened.db);
      await opened.db('knex_migrations').where({ name: '003_kept_builds.js' }).delete();
      await opened.db.schema.dropTable('kept_builds');
      await opened.db.schema.createTable('kept_builds', (table) => table.string('identity', 64));
      expect(await migrate(opened.db, { waitMs: 100 })).toEqual(['003_kept_builds.js']);
      const kept = createKeptBuilds(opened.db);
      const build = { buildRequestId: 1, number: 1, master: 'm', startedAt: NOW, isFinal: false } as const;
      for (const worker of ['w1', 'w2']) {
        await kept.keep([{ ...build, worker, properties: {}, logUrl: null }], NOW);
      }
      expect(await kept.of([1])).toMatchObject([{ worker: 'w2' }]);
    });

    it('touches no table of somebody else’s, and has none cleared that is the bridge’s', async () => {
      await migrate(opened.db);
      await opened.db('knex_migrations').where({ name: '003_kept_builds.js' }).delete();
      await opened.db.schema.dropTable('kept_builds');
      await opened.db.schema.createTable('kept_builds', (table) => table.string('theirs', 64));
      await opened.db('kept_builds').insert({ theirs: 'x' });
      const error = await migrate(opened.db, { waitMs: 100 }).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'store-schema', message: expect.not.stringContaining('clear') });
      expect(describeError(error)).toContain('kept_builds');
      expect(await opened.db('kept_builds')).toEqual([{ theirs: 'x' }]);
    });

    it('refuses a database of a newer version, and one whose tables are not its own', async () => {
      await opened.db.schema.createTable('tasks', (table) => table.increments('id'));
      const foreign = await migrate(opened.db, { waitMs: 100 }).catch((thrown: unknown) => thrown);
      expect(foreign).toMatchObject({ code: 'store-schema', message: expect.stringContaining('use another one') });
      await opened.db.schema.dropTable('tasks');
      await migrate(opened.db);
      await opened.db('knex_migrations').insert({ name: '999_later.js', batch: 2 });
      for (const call of [migrate, checkSchema]) {
        const error = await call(opened.db).catch((thrown: unknown) => thrown);
        expect(error).toMatchObject({ code: 'store-schema', message: expect.stringContaining('newer version') });
      }
    });

    it('says how to mend a lock that a crash left behind', async () => {
      await migrate(opened.db);
      await opened.db('knex_migrations_lock').update({ is_locked: 1 });
      const error = await migrate(opened.db, { waitMs: 100 }).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'store-schema', isTransient: false });
      const mend = /UPDATE knex_migrations_lock SET is_locked = 0/.exec(String(error))?.[0];
      await opened.db.raw(mend ?? '');
      expect(await migrate(opened.db)).toEqual([]);
    });
  });

  it('tells what to run when the schema is not there', async () => {
    const { db, store } = opened;
    for (const call of [() => checkSchema(db), () => store.lease('t', LEASE), () => store.overview()]) {
      const error = await call().catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(StoreError);
      expect(error).toMatchObject({
        code: 'store-schema',
        isTransient: false,
        message: expect.stringContaining('`bbb migrate`'),
      });
    }
    // Looking is not changing.
    expect(await opened.db.schema.hasTable('knex_migrations')).toBe(false);
  });

  it('keeps a mapping over a reconnection', async () => {
    await migrate(opened.db);
    const mapping = await addReleased(opened.store);
    const again = opened.another();
    expect(await again.openMapping(mapping.taskId)).toEqual(mapping);
  });

  const { server } = engine;
  if (server === undefined) {
    return;
  }

  it('comes back when the server does', async () => {
    await migrate(opened.db);
    const mapping = stored(
      await opened.store.insert({ ...(await addReleased(opened.store)), taskId: 'Az09_-Az09_-Az09_-Az09' }, LEASE),
    );
    await Promise.all(Array.from({ length: 5 }, () => opened.store.overview()));
    await server.stop();
    try {
      const error = await opened.store.openMapping(mapping.taskId).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(StoreError);
      expect(error).toMatchObject({ code: 'store-unavailable', isTransient: true, cause: expect.any(Error) });
      expect(JSON.stringify(error) + String(error)).not.toContain('bbb-pass');
    } finally {
      await server.start();
    }
    const read = await eventually(() => opened.store.openMapping(mapping.taskId), { timeoutMs: 30_000 });
    expect(read).toEqual(mapping);
    expect((await opened.store.update(mapping, { attempts: 1 }, NOW)).kind).toBe('stored');
  });

  it('is not waited for when it has gone silent, and is asked again when it is back', async () => {
    await migrate(opened.db);
    const url = new URL(opened.url);
    const gate = await startTcpGate(url.hostname, Number(url.port));
    url.port = String(gate.port);
    const db = connect(url.href, { answerMs: 300 });
    try {
      // More than the pool has.
      const checks = () => Promise.allSettled(Array.from({ length: 12 }, () => checkSchema(db)));
      expect(new Set((await checks()).map(({ status }) => status))).toEqual(new Set(['fulfilled']));
      gate.swallow();
      // What waits for ever ends all the same, and fails the test.
      const tooLate = setTimeout(() => gate.cut(), 20_000);
      const began = Date.now();
      for (const check of await checks()) {
        expect(check).toMatchObject({ reason: { code: 'store-unavailable', isTransient: true } });
      }
      expect(Date.now() - began).toBeLessThan(15_000);
      clearTimeout(tooLate);
      gate.release();
      // A connection that fell silent while it was made keeps its place for half a minute.
      const isBack = () => checkSchema(db).then(() => true);
      await eventually(isBack, { timeoutMs: 30_000 });
    } finally {
      await db.destroy();
      await gate.stop();
    }
  });

  it('is written over a new connection after a switchover, when it has refused a write', async () => {
    await migrate(opened.db);
    const user = await engine.plainUser?.(opened.url);
    const db = connect(user?.url ?? '');
    const connectionId = async (): Promise<unknown> => (await db.first(db.raw(user?.connectionId ?? '')))?.id;
    const store = createMappingStore(db);
    try {
      await user?.makeReadOnly(true);
      const before = await connectionId();
      expect(await connectionId()).toEqual(before);
      await expect(addReleased(store)).rejects.toMatchObject({ code: 'store-unavailable', isTransient: true });
      const after = await connectionId();
      expect(after).not.toEqual(before);
      // What is read only needs no other one.
      expect(await store.overview()).toMatchObject({ failing: 0 });
      expect(await connectionId()).toEqual(after);
      await expect(addReleased(store)).rejects.toMatchObject({ code: 'store-unavailable' });
      await user?.makeReadOnly(false);
      // The name leads to the new primary.
      expect(await addReleased(store)).toMatchObject({ state: 'intended' });
    } finally {
      await user?.makeReadOnly(false);
      await store.close();
      await user?.drop();
    }
  });

  it('fails soon, and without the password, when there is no server', async () => {
    const url = new URL(opened.url);
    url.port = '1';
    url.username = 'somebody';
    url.password = 'hunter2';
    const store = createMappingStore(connect(url.href));
    const started = Date.now();
    const error = await store.overview().catch((thrown: unknown) => thrown);
    await store.close();
    expect(Date.now() - started).toBeLessThan(8000);
    expect(error).toMatchObject({ code: 'store-unavailable', isTransient: true });
    const shown = [error, error instanceof Error ? error.cause : ''].map((each) => String(each) + JSON.stringify(each));
    expect(shown.join()).not.toContain('hunter2');
  });
}
