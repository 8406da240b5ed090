import { createRequire } from 'node:module';
import knexBetterSqlite from 'knex/lib/dialects/better-sqlite3/index.js';

/**
 * knex over libsql, which is better-sqlite3's twin: its binary comes inside the package, so that nothing is compiled or
 * downloaded when the bridge is installed.
 */
export class LibsqlClient extends knexBetterSqlite {
  override _driver(): unknown {
    // Only where it is used: its binary costs memory.
    return createRequire(import.meta.url)('libsql');
  }
}
