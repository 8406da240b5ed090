/** Connections to the mapping database: SQLite (embedded), MySQL or MariaDB, PostgreSQL. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import knex, { type Knex } from 'knex';
import { ConfigError, StoreError } from '../errors.ts';
import { toStoreError } from './errors.ts';
import { LibsqlClient } from './libsql-dialect.ts';

const POOL_MAX = 10;
/** A database that does not answer must not hold a pass for long. */
const ACQUIRE_MS = 5000;
const CONNECT_MS = 5000;

/** knex would print errors that are thrown, and logged, anyway. */
const SILENT = { warn: ignore, error: ignore, deprecate: ignore, debug: ignore };
function ignore(): void {}

/**
 * Opens a pool; nothing is connected yet.
 * @param url `sqlite:FILE`, `sqlite::memory:`, `mysql://...` or `postgres://...`
 * @throws ConfigError, without the URL: it may hold a password
 */
export function connect(url: string): Knex {
  if (url.startsWith('sqlite:')) {
    return connectSqlite(url.slice('sqlite:'.length));
  }
  if (url.startsWith('mysql://')) {
    return knex({
      client: 'mysql2',
      connection: {
        uri: url,
        charset: 'utf8mb4',
        timezone: 'Z',
        connectTimeout: CONNECT_MS,
      } as Knex.MySql2ConnectionConfig,
      pool: {
        min: 0,
        max: POOL_MAX,
        // Plain conditional updates: nothing here wants the gap locks of the default isolation.
        afterCreate: onEachConnection('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED'),
      },
      acquireConnectionTimeout: ACQUIRE_MS,
      log: SILENT,
    });
  }
  if (url.startsWith('postgres://') || url.startsWith('postgresql://')) {
    return knex({
      client: 'pg',
      connection: { connectionString: url, application_name: 'buildbot-bridge', connectionTimeoutMillis: CONNECT_MS },
      pool: { min: 0, max: POOL_MAX },
      acquireConnectionTimeout: ACQUIRE_MS,
      log: SILENT,
    });
  }
  throw new ConfigError('database.url: expected sqlite:FILE, mysql://... or postgres://...');
}

function connectSqlite(file: string): Knex {
  return knex({
    client: LibsqlClient,
    connection: { filename: file },
    useNullAsDefault: true,
    pool: {
      min: 1,
      max: 1,
      afterCreate(connection: { pragma(text: string): unknown }, done: (error: unknown, connection: unknown) => void) {
        try {
          connection.pragma('journal_mode = WAL');
          connection.pragma('synchronous = NORMAL');
          connection.pragma('busy_timeout = 5000');
          done(null, connection);
        } catch (error) {
          done(error, connection);
        }
      },
    },
    acquireConnectionTimeout: ACQUIRE_MS,
    log: SILENT,
  });
}

interface Queryable {
  query(sql: string, done: (error: unknown) => void): void;
}

function onEachConnection(sql: string) {
  return (connection: Queryable, done: (error: unknown, connection: unknown) => void) => {
    connection.query(sql, (error) => done(error, connection));
  };
}

/**
 * Brings the schema up to date; safe to run from several instances at once.
 * @returns the names of the migrations that were applied
 * @throws StoreError `store-schema`
 */
export async function migrate(db: Knex): Promise<readonly string[]> {
  try {
    const [, applied]: [number, string[]] = await db.migrate.latest({ migrationSource });
    return applied;
  } catch (error) {
    const isLocked = error instanceof Error && error.name === 'MigrationLocked';
    const hint = isLocked
      ? 'another instance is migrating it; if none is (one crashed), clear the lock: UPDATE knex_migrations_lock SET is_locked = 0'
      : 'the database could not be migrated';
    throw new StoreError('store-schema', hint, { cause: error });
  }
}

/** @throws StoreError: `store-schema` if the schema is not this version's, `store-unavailable` if it cannot be read */
export async function checkSchema(db: Knex): Promise<void> {
  const [, missing] = await listMigrations(db);
  if (missing.length > 0) {
    throw new StoreError('store-schema', `the database lacks ${missing.length} migration(s): run \`bbb migrate\` once`);
  }
}

async function listMigrations(db: Knex): Promise<[unknown[], unknown[]]> {
  try {
    return await db.migrate.list({ migrationSource });
  } catch (error) {
    throw toStoreError('the check of its schema', error);
  }
}

/** The project's `migrations/`, from the sources and from the built files alike. */
function migrationsFolder(): string {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const found = ['../../migrations', '../../../migrations'].map((up) => path.resolve(here, up)).find(existsSync);
  if (found === undefined) {
    throw new StoreError('store-schema', 'the folder migrations/ is missing from this installation');
  }
  return found;
}

/** Loaded by hand, because knex cannot load ES modules everywhere. */
const migrationSource: Knex.MigrationSource<string> = {
  async getMigrations() {
    return readdirSync(migrationsFolder())
      .filter((file) => file.endsWith('.js'))
      .sort();
  },
  getMigrationName: (file) => file,
  getMigration: (file) => import(pathToFileURL(path.join(migrationsFolder(), file)).href),
};
