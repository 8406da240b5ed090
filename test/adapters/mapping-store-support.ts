/** The three engines, and stores on databases of a test's own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Knex } from 'knex';
import slugid from 'slugid';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { Mapping, NewMapping } from '../../src/domain/mapping.ts';
import type { MappingStore, Stored } from '../../src/ports.ts';
import { mariadb, postgres } from '../support/services/index.ts';

const PLAIN_PASSWORD = 'plain-pass';
export const NOW = 1_790_000_000_000;
export const MINUTE = 60_000;
export const LEASE = { owner: 'a#1', leaseUntil: NOW + MINUTE, now: NOW };
/** After LEASE has run out. */
export const LATER = NOW + 2 * MINUTE;

export interface Engine {
  readonly name: string;
  /** An empty database. */
  create(): Promise<{ readonly url: string; drop(): Promise<void> }>;
  /** Absent where the database is a file. */
  readonly server?: { stop(): Promise<void>; start(): Promise<void> };
  /** Makes a user without the right to write where nobody may. */
  plainUser?(url: string): Promise<PlainUser>;
}

export interface PlainUser {
  readonly url: string;
  /** Answers which connection it is asked over, as `id`. */
  readonly connectionId: string;
  /** Of PostgreSQL, what connects from now on. */
  makeReadOnly(isReadOnly: boolean): Promise<void>;
  drop(): Promise<void>;
}

export const ENGINES: readonly Engine[] = [
  {
    name: 'SQLite',
    async create() {
      const folder = mkdtempSync(path.join(tmpdir(), 'bbb-store-'));
      return { url: `sqlite:${path.join(folder, 'b.db')}`, drop: async () => rmSync(folder, { recursive: true }) };
    },
  },
  serverEngine('MariaDB', mariadb, mariadbUser),
  serverEngine('PostgreSQL', postgres, postgresUser),
];

async function mariadbUser(url: string): Promise<PlainUser> {
  const name = 'plain';
  const admin = connect(url);
  const own = ['localhost', '127.0.0.1'].map((host) => `${name}@'${host}'`);
  for (const account of own) {
    await admin.raw(`CREATE OR REPLACE USER ${account} IDENTIFIED BY '${PLAIN_PASSWORD}'`);
    await admin.raw(`GRANT SELECT, INSERT, UPDATE, DELETE ON \`${new URL(url).pathname.slice(1)}\`.* TO ${account}`);
  }
  return {
    url: asUser(url, name),
    connectionId: 'CONNECTION_ID() AS id',
    // Whoever else uses the server may write all the same.
    makeReadOnly: async (isReadOnly) => void (await admin.raw(`SET GLOBAL read_only = ${isReadOnly ? 1 : 0}`)),
    async drop() {
      await admin.raw(`DROP USER ${own.join(', ')}`);
      await admin.destroy();
    },
  };
}

async function postgresUser(url: string): Promise<PlainUser> {
  const name = 'plain';
  const admin = connect(url);
  await admin.raw(`CREATE ROLE ${name} LOGIN PASSWORD '${PLAIN_PASSWORD}'`);
  await admin.raw(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${name}`);
  await admin.raw(`GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${name}`);
  return {
    url: asUser(url, name),
    connectionId: 'pg_backend_pid() AS id',
    makeReadOnly: async (isReadOnly) =>
      void (await admin.raw(`ALTER ROLE ${name} SET default_transaction_read_only = ${isReadOnly ? 'on' : 'off'}`)),
    async drop() {
      await admin.raw(`DROP OWNED BY ${name}`);
      await admin.raw(`DROP ROLE ${name}`);
      await admin.destroy();
    },
  };
}

function asUser(url: string, name: string): string {
  const other = new URL(url);
  other.username = name;
  other.password = PLAIN_PASSWORD;
  return other.href;
}

function serverEngine(name: string, server: typeof mariadb, plainUser: NonNullable<Engine['plainUser']>): Engine {
  return {
    name,
    plainUser,
    create: () => server().createDatabase(),
    server: { stop: () => server().stop(), start: () => server().start() },
  };
}

export interface Opened {
  readonly url: string;
  readonly db: Knex;
  readonly store: MappingStore;
  /** Another instance's store on the same database. */
  another(): MappingStore;
  clear(): Promise<void>;
  drop(): Promise<void>;
}

/** A store on a fresh database. */
export async function openStore(engine: Engine, { isMigrated = true } = {}): Promise<Opened> {
  const { url, drop } = await engine.create();
  const db = connect(url);
  const store = createMappingStore(db);
  const others: MappingStore[] = [];
  if (isMigrated) {
    await migrate(db);
  }
  return {
    url,
    db,
    store,
    another() {
      const other = createMappingStore(connect(url));
      others.push(other);
      return other;
    },
    async clear() {
      for (const table of ['tasks', 'events', 'instances']) {
        await db(table).delete();
      }
    },
    async drop() {
      await Promise.all([store, ...others].map((each) => each.close()));
      await drop();
    },
  };
}

export function aNewMapping(more: Partial<NewMapping> = {}): NewMapping {
  const taskId = more.taskId ?? slugid.nice();
  return {
    taskId,
    runId: 0,
    taskGroupId: taskId,
    builder: 'linux64-build',
    state: 'intended',
    collapseKey: null,
    hasSlot: false,
    priority: 2,
    deadline: NOW + 60 * MINUTE,
    externalId: `${taskId}/0/1`,
    submissions: 1,
    takenUntil: null,
    ...more,
  };
}

/** The mapping that was stored; fails the test if none was. */
export function stored(outcome: Stored): Mapping {
  if (outcome.kind !== 'stored') {
    throw new Error(`expected the mapping to be stored, but: ${outcome.kind}`);
  }
  return outcome.mapping;
}

/** Adds a mapping and lets it go, as if a pass had ended at NOW. */
export async function addReleased(
  store: MappingStore,
  more: Partial<NewMapping> = {},
  changes: Parameters<MappingStore['release']>[1] = {},
): Promise<Mapping> {
  const mapping = stored(await store.insert(aNewMapping(more), LEASE));
  return stored(await store.release(mapping, { nextCheckAt: NOW, ...changes }, NOW));
}

/** Rows straight into the table, all due, for tests of many. */
export async function addMany(db: Knex, count: number): Promise<void> {
  const rows = Array.from({ length: count }, (_, at) => {
    const taskId = slugid.nice();
    return {
      ...{ version: 1, task_id: taskId, open_task_id: taskId, run_id: 0, task_group_id: taskId, builder: 'b' },
      ...{ state: 'submitted', external_id: `${taskId}/0/1`, submissions: 1, build_request_id: at + 1, priority: 2 },
      ...{ retries_reported: 0, reruns: 0, deadline: NOW, next_check_at: NOW - at, lease_until: 0, attempts: 0 },
      ...{ created: NOW, updated: NOW },
    };
  });
  for (let start = 0; start < rows.length; start += 200) {
    await db('tasks').insert(rows.slice(start, start + 200));
  }
}

/** How many statements reach the database while `work` runs. */
export async function countStatements(db: Knex, work: () => Promise<unknown>): Promise<number> {
  let count = 0;
  const onQuery = (): void => {
    count += 1;
  };
  db.on('query', onQuery);
  try {
    await work();
  } finally {
    db.off('query', onQuery);
  }
  return count;
}
