/** Databases whose users' passwords are planted, behind gates that a test can shut. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { connect } from '../../../src/db/connection.ts';
import { mariadb, postgres } from '../services/index.ts';
import { startTcpGate, type TcpGate } from '../tcp-gate.ts';
import type { Planted } from './marks.ts';

export interface SecretDatabase {
  /** For the bridge: with its own user, whose password is planted, through the gate. */
  readonly url: string;
  /** For the test itself. */
  readonly adminUrl: string;
  /** Absent where the database is a file. */
  readonly gate?: TcpGate;
  drop(): Promise<void>;
}

export type DatabaseKind = 'sqlite' | 'mariadb' | 'postgres';

/** An empty database; a user of a server's may do everything in it. */
export async function createSecretDatabase(kind: DatabaseKind, password: Planted): Promise<SecretDatabase> {
  if (kind === 'sqlite') {
    const folder = mkdtempSync(path.join(tmpdir(), 'bbb-secrets-'));
    const url = `sqlite:${path.join(folder, 'bridge.db')}`;
    return { url, adminUrl: url, drop: async () => rmSync(folder, { recursive: true, force: true }) };
  }
  const { url: adminUrl, drop } = await (kind === 'mariadb' ? mariadb() : postgres()).createDatabase();
  const user = `u${password.mark.slice(0, 8)}`;
  for (const statement of usersOf(kind, user, password.value)) {
    await run(adminUrl, statement);
  }
  const target = new URL(adminUrl);
  const gate = await startTcpGate(target.hostname, Number(target.port));
  target.port = String(gate.port);
  target.username = user;
  target.password = encodeURIComponent(password.value);
  return {
    url: target.href,
    adminUrl,
    gate,
    async drop() {
      await gate.stop();
      await drop();
    },
  };
}

type Statement = readonly [sql: string, bindings: readonly string[]];

function usersOf(kind: 'mariadb' | 'postgres', user: string, password: string): readonly Statement[] {
  if (kind === 'postgres') {
    // The server takes no parameters here, and knex takes a bare ? for one.
    const quoted = password.replaceAll("'", "''").replaceAll('?', '\\?');
    return [[`CREATE ROLE ${user} LOGIN SUPERUSER PASSWORD '${quoted}'`, []]];
  }
  return ['localhost', '127.0.0.1'].flatMap((host) => [
    [`CREATE USER ${user}@'${host}' IDENTIFIED BY ?`, [password]] as const,
    [`GRANT ALL ON *.* TO ${user}@'${host}'`, []] as const,
  ]);
}

async function run(url: string, [sql, bindings]: Statement): Promise<void> {
  const db = connect(url);
  try {
    await (bindings.length > 0 ? db.raw(sql, [...bindings]) : db.raw(sql));
  } finally {
    await db.destroy();
  }
}

/** Every row of every table, as one text. */
export async function allRows(url: string): Promise<string> {
  const db = connect(url);
  try {
    const tables: { name: string }[] = url.startsWith('sqlite:')
      ? await db('sqlite_master').where({ type: 'table' }).select('name')
      : await db('information_schema.tables')
          .whereRaw(url.startsWith('mysql:') ? 'table_schema = database()' : 'table_schema = current_schema()')
          .select('table_name as name');
    const rows = await Promise.all(tables.map(async ({ name }): Promise<unknown> => [name, await db(name)]));
    return whole(rows);
  } finally {
    await db.destroy();
  }
}

/** A value as one text, with nothing left out, also of maps and buffers. */
export function whole(value: unknown): string {
  return inspect(value, { depth: null, maxArrayLength: null, maxStringLength: null, breakLength: Infinity });
}
