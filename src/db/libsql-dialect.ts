import knexBetterSqlite from 'knex/lib/dialects/better-sqlite3/index.js';
import Database from 'libsql';

/**
 * knex over libsql, which is better-sqlite3's twin: its binary comes inside the package, so that nothing is compiled or
 * downloaded when the bridge is installed.
 */
export class LibsqlClient extends knexBetterSqlite {
  override _driver(): unknown {
    return Database;
  }
}
