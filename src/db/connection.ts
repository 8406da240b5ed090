/** Connections to the mapping database: SQLite (embedded), MySQL or MariaDB, PostgreSQL. */
import { closeSync, existsSync, openSync, readdirSync, readSync, type Stats, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import knex, { type Knex } from 'knex';
import { z } from 'zod';
import { type BridgeError, ConfigError, StoreError } from '../errors.ts';
import { withoutStatement } from '../sql.ts';
import { ANSWER_MS, isRace, toStoreError } from './errors.ts';
import { LibsqlClient } from './libsql-dialect.ts';
import { cut, MysqlClient, type MysqlConnection, PostgresClient } from './server-dialects.ts';
import { checkPostgresTls, type MysqlTls, mysqlTls } from './tls.ts';

const POOL_MAX = 10;
/** A database that does not answer must not hold a pass for long. */
const ACQUIRE_MS = 5000;
const CONNECT_MS = 5000;
const KEEP_ALIVE_MS = 10_000;
const MIGRATION_WAIT_MS = 30_000;
const LOCK_TABLE = 'knex_migrations_lock';
const NEWER = 'the database belongs to a newer version of the bridge';

/** knex would print errors that are thrown, and logged, anyway. */
const SILENT = { warn: ignore, error: ignore, deprecate: ignore, debug: ignore };
function ignore(): void {}

export interface ConnectOptions {
  /** Where the URL was given, for errors. */
  readonly name?: string;
  /** For somebody else's database: nothing is changed in it, and a file that is not there is not made. */
  readonly isReadOnly?: boolean;
  /** How long a server's statement may take, milliseconds. */
  readonly answerMs?: number;
}

const WANTED = 'expected sqlite:FILE, mysql://USER:PASSWORD@HOST/DATABASE or postgres://USER:PASSWORD@HOST/DATABASE';

/**
 * Opens a pool; nothing is connected yet.
 * @param url `sqlite:FILE`, `sqlite::memory:`, `mysql://...` or `postgres://...`
 * @throws ConfigError, without the URL: it may hold a password
 */
export function connect(
  url: string,
  { name = 'database.url', isReadOnly = false, answerMs = ANSWER_MS }: ConnectOptions = {},
): Knex {
  if (/^sqlite:./.test(url)) {
    const file = url.slice('sqlite:'.length);
    checkFile(file, name, isReadOnly);
    return connectSqlite(file, isReadOnly);
  }
  checkServerUrl(url, name);
  if (url.startsWith('mysql:')) {
    return givingUpTheDead(connectMysql(url, mysqlTls(url, name), isReadOnly), answerMs);
  }
  checkPostgresTls(url, name);
  return givingUpTheDead(connectPostgres(url, isReadOnly), answerMs);
}

/** What the driver would find out only when it connects, and what waiting does not mend. @throws ConfigError */
function checkFile(file: string, name: string, hasToBeThere: boolean): void {
  const found = statOf(file);
  if (hasToBeThere && found === undefined) {
    throw new ConfigError(`${name}: there is no file ${file}`);
  }
  const folder = path.dirname(file);
  if (!statOf(folder)?.isDirectory()) {
    throw new ConfigError(`${name}: there is no folder ${folder}`);
  }
  if (found?.isDirectory()) {
    throw new ConfigError(
      `${name}: ${file} is a folder: name a file in it, such as sqlite:${path.join(file, 'bridge.db')}`,
    );
  }
  if (found?.isFile() && isSomethingElse(file)) {
    throw new ConfigError(`${name}: ${file} is no SQLite database: name another file, which may be a new one`);
  }
}

/** Undefined also where the bridge may not look. */
function statOf(file: string): Stats | undefined {
  try {
    return statSync(file);
  } catch {
    return undefined;
  }
}

const SQLITE = Buffer.from('SQLite format 3\0');

/** Whether a file holds what no SQLite database begins with; an empty one is a database. */
function isSomethingElse(file: string): boolean {
  const head = Buffer.alloc(SQLITE.length);
  let length: number;
  try {
    const descriptor = openSync(file, 'r');
    try {
      length = readSync(descriptor, head);
    } finally {
      closeSync(descriptor);
    }
  } catch {
    // Rights can be given meanwhile: the driver will tell.
    return false;
  }
  return length > 0 && !head.equals(SQLITE);
}

/**
 * A connection that does not answer a statement is not used again: where the other end has forgotten it without a word,
 * it would keep its place in the pool for as long as the system believes in it. Migrations may take their time.
 */
function givingUpTheDead(db: Knex, answerMs: number): Knex {
  db.on('start', (builder: object) => {
    if ('timeout' in builder && typeof builder.timeout === 'function') {
      builder.timeout(answerMs);
    }
  });
  return db;
}

/** What tells a database from others, for people: where it is, without who may use it. */
export function nameOfDatabase(url: string): string {
  if (url.startsWith('sqlite:')) {
    return url;
  }
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

/** The drivers would find fault with it only when they connect, and show it in their errors. */
function checkServerUrl(url: string, name: string): void {
  const scheme = /^(mysql|postgres|postgresql):\/\//.exec(url)?.[1];
  if (scheme === undefined) {
    throw new ConfigError(`${name}: ${WANTED}`);
  }
  let database: string;
  try {
    const { username, password, pathname } = new URL(url);
    [, , database = ''] = [username, password, pathname.slice(1)].map(decodeURIComponent);
  } catch {
    throw new ConfigError(
      `${name}: this is no ${scheme} URL; ${WANTED}, with %XX for each of / ? # @ : % in a user's name or password`,
    );
  }
  if (database === '') {
    throw new ConfigError(`${name}: it names no database; ${WANTED}`);
  }
}

function connectMysql(url: string, ssl: MysqlTls | undefined, isReadOnly: boolean): Knex {
  return knex({
    client: MysqlClient,
    connection: {
      uri: url,
      // What is given here goes before what the URL says.
      ...(ssl === undefined ? {} : { ssl }),
      charset: 'utf8mb4',
      timezone: 'Z',
      connectTimeout: CONNECT_MS,
      enableKeepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    } as Knex.MySql2ConnectionConfig,
    pool: {
      min: 0,
      max: POOL_MAX,
      afterCreate: orClosed((connection: Queryable & MysqlConnection, done) => {
        connection.query(BINLOG, (error, rows) => {
          if (error) {
            done(error);
          } else {
            onEachConnection(...mysqlSession(rows, isReadOnly))(connection, done);
          }
        });
      }, cut),
    },
    acquireConnectionTimeout: ACQUIRE_MS,
    log: SILENT,
  });
}

const BINLOG = "SHOW SESSION VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format')";
const variables = z.array(z.object({ Variable_name: z.string(), Value: z.string() })).catch([]);

/** How a connection begins. @param binlog what the server says to `BINLOG` */
function mysqlSession(binlog: unknown, isReadOnly: boolean): readonly string[] {
  const told = new Map(variables.parse(binlog).map(({ Variable_name, Value }) => [Variable_name, Value.toUpperCase()]));
  const logsStatements = told.get('log_bin') === 'ON' && told.get('binlog_format') === 'STATEMENT';
  // Plain conditional updates: nothing here wants the gap locks of the default isolation. But a server that logs
  // statements, the default up to MySQL 5.7.6 and MariaDB 10.2.3, takes no writes without them.
  const isolation = logsStatements ? 'REPEATABLE READ' : 'READ COMMITTED';
  return [
    // Servers older than MySQL 5.6 know no read-only transactions, and take the rest for a comment.
    `SET SESSION TRANSACTION ISOLATION LEVEL ${isolation}${isReadOnly ? ' /*!50605 , READ ONLY */' : ''}`,
    // Strict, and with the backslash as an escape, whatever the server's own mode: the driver relies on that.
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', SESSION innodb_lock_wait_timeout = 5",
  ];
}

function connectPostgres(url: string, isReadOnly: boolean): Knex {
  return knex({
    client: PostgresClient,
    // knex would ask each connection for it until one answers. Nothing here depends on it.
    version: '9.6',
    connection: {
      connectionString: url,
      application_name: 'buildbot-bridge',
      connectionTimeoutMillis: CONNECT_MS,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_MS,
    },
    pool: {
      min: 0,
      max: POOL_MAX,
      afterCreate: orClosed(
        onEachConnection(
          `SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED${isReadOnly ? ', READ ONLY' : ''}`,
          "SET lock_timeout = '5s'",
        ),
        // One that waits for an answer is cut.
        (connection: Queryable & { end(): Promise<void> }) => void connection.end().catch(() => undefined),
      ),
    },
    acquireConnectionTimeout: ACQUIRE_MS,
    log: SILENT,
  });
}

function connectSqlite(file: string, isReadOnly: boolean): Knex {
  return knex({
    client: LibsqlClient,
    connection: { filename: file },
    useNullAsDefault: true,
    pool: {
      min: 1,
      max: 1,
      afterCreate(connection: { pragma(text: string): unknown }, done: (error: unknown, connection: unknown) => void) {
        try {
          // First of all: other processes may be using the file.
          connection.pragma('busy_timeout = 5000');
          if (isReadOnly) {
            connection.pragma('query_only = ON');
          } else {
            connection.pragma('journal_mode = WAL');
            // What is committed has to outlive a loss of power: a submission that is forgotten is made again. With NORMAL a
            // write-ahead log is brought to disk only at its checkpoints.
            connection.pragma('synchronous = FULL');
            connection.pragma('foreign_keys = ON');
          }
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
  query(sql: string, done: (error: unknown, rows?: unknown) => void): void;
}
type Prepare<C> = (connection: C, done: (error: unknown) => void) => void;

function onEachConnection(...statements: readonly string[]): Prepare<Queryable> {
  return (connection, done) => {
    const [next, ...rest] = statements;
    if (next === undefined) {
      done(null);
      return;
    }
    connection.query(next, (error) => (error ? done(error) : onEachConnection(...rest)(connection, done)));
  };
}

/**
 * knex forgets a connection that cannot be prepared, and leaves it open: behind a proxy that takes connections while the
 * servers are away there would be more and more of them.
 */
function orClosed<C>(prepare: Prepare<C>, close: (connection: C) => void) {
  return (connection: C, done: (error: unknown, connection: C) => void) => {
    let isOver = false;
    const end = (error: unknown) => {
      if (isOver) {
        return;
      }
      isOver = true;
      clearTimeout(timer);
      if (error) {
        close(connection);
      }
      done(error, connection);
    };
    const late = () => end(new Error(`a new connection was not answered for ${CONNECT_MS / 1000} s`));
    const timer = setTimeout(late, CONNECT_MS);
    prepare(connection, end);
  };
}

/**
 * Brings the schema up to date; safe to run from several instances at once: all but one of them wait.
 * @param options.waitMs how long to wait for another instance
 * @returns the names of the migrations that were applied
 * @throws StoreError: `store-schema` with how to mend it, `store-unavailable` if the database cannot be reached
 */
export async function migrate(db: Knex, { waitMs = MIGRATION_WAIT_MS } = {}): Promise<readonly string[]> {
  const end = Date.now() + waitMs;
  for (;;) {
    try {
      await prepareLock(db);
      const [, applied]: [number, string[]] = await db.migrate.latest({ migrationSource });
      return applied;
    } catch (error) {
      if (!(isLocked(error) || isRace(error)) || Date.now() >= end) {
        throw await migrationError(db, error);
      }
      await delay(100 + Math.random() * 200);
    }
  }
}

/** knex makes this table too, but two instances that meet would leave two rows in it, which nobody can lock any more. */
async function prepareLock(db: Knex): Promise<void> {
  if (!(await db.schema.hasTable(LOCK_TABLE))) {
    await db.schema.createTable(LOCK_TABLE, (table) => {
      table.increments('index').primary();
      table.integer('is_locked');
    });
  }
  if ((await db(LOCK_TABLE).first()) === undefined) {
    await db(LOCK_TABLE).insert({ index: 1, is_locked: 0 }).onConflict('index').ignore();
  }
}

function isLocked(error: unknown): boolean {
  return error instanceof Error && error.name === 'MigrationLocked';
}

/** knex's word for migrations in the database that are not in the folder. */
function isNewer(error: unknown): boolean {
  return error instanceof Error && error.message.includes('migration directory is corrupt');
}

async function migrationError(db: Knex, error: unknown): Promise<BridgeError> {
  const cause = withoutStatement(error);
  if (isLocked(error)) {
    const mend = `another instance is migrating the database; if none is (one crashed), clear the lock: UPDATE ${LOCK_TABLE} SET is_locked = 0`;
    return new StoreError('store-schema', mend, { cause });
  }
  if (isNewer(error)) {
    return new StoreError('store-schema', NEWER, { cause });
  }
  if (isRace(error)) {
    const mend = (await mayHoldMappings(db))
      ? "a table that no migration made is in the way: rename it, or remove it if it is nobody's, and repeat"
      : 'the database holds tables that no finished migration made: clear it, or use another one';
    return new StoreError('store-schema', mend, { cause });
  }
  return toStoreError('migrate', error);
}

/** Whether a migration was ever finished, or that cannot be told: nobody is to clear such a database. */
async function mayHoldMappings(db: Knex): Promise<boolean> {
  try {
    return (await appliedMigrations(db)).length > 0;
  } catch {
    return true;
  }
}

/**
 * Changes nothing, and ends in bounded time.
 * @throws StoreError: `store-schema` if the schema is not this version's, `store-unavailable` if it cannot be read
 */
export async function checkSchema(db: Knex): Promise<void> {
  const missing = await missingMigrations(db);
  if (missing > 0) {
    throw new StoreError('store-schema', `the database lacks ${missing} migration(s): run \`bbb migrate\` once`);
  }
}

/** Not by knex's own list, which makes its tables where they are missing, and waits for ever where nothing answers. */
async function missingMigrations(db: Knex): Promise<number> {
  const known = await migrationSource.getMigrations([]);
  const applied = await appliedMigrations(db);
  if (applied.some((name) => !known.includes(name))) {
    throw new StoreError('store-schema', NEWER);
  }
  return known.filter((name) => !applied.includes(name)).length;
}

async function appliedMigrations(db: Knex): Promise<readonly string[]> {
  try {
    return z.array(z.string()).parse(await db('knex_migrations').pluck('name'));
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
