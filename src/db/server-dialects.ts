/** knex's clients for servers, whose connections are given up where they lead to a server that no longer takes writes. */
import knexMysql2 from 'knex/lib/dialects/mysql2/index.js';
import knexPostgres from 'knex/lib/dialects/postgres/index.js';
import { codeOf } from '../errors.ts';

/**
 * After a switchover the server that was the primary answers questions on old connections, and refuses each write; one
 * that has left its cluster refuses everything. Where its name leads now, only a new connection finds out.
 */
const ELSEWHERE = new Set([
  ...['ER_OPTION_PREVENTS_STATEMENT', 'ER_READ_ONLY_MODE', 'ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION'],
  // Galera: "WSREP has not yet prepared node for application use".
  'ER_UNKNOWN_COM_ERROR',
  // read_only_sql_transaction; admin_shutdown, crash_shutdown, cannot_connect_now.
  ...['25006', '57P01', '57P02', '57P03'],
]);

/** So long a server may take to hang up on a connection that is ended. */
const GOODBYE_MS = 5000;

interface Disposable {
  /** What makes knex's pool close a connection rather than lend it again. */
  __knex__disposed?: unknown;
}

async function givingUpTheDemoted<T>(connection: Disposable, statement: Promise<T>): Promise<T> {
  try {
    return await statement;
  } catch (error) {
    if (ELSEWHERE.has(codeOf(error))) {
      connection.__knex__disposed = error;
    }
    throw error;
  }
}

export interface MysqlConnection extends Disposable {
  readonly stream: { destroy(): void };
  on(event: 'error', listener: (error: Error) => void): void;
  connect(done: (error: unknown) => void): void;
  end(done: (error: unknown) => void): void;
  destroy(): void;
}

/** mysql2's own `destroy` only says that nothing more comes, and waits for the server to hang up. */
export function cut(connection: MysqlConnection): void {
  connection.destroy();
  connection.stream.destroy();
}

/**
 * knex takes all listeners from a connection that it ends, or that was refused. Where nobody hears it end, as where the
 * server's host has gone silent, the system says so after a quarter of an hour, and that error would end the process.
 */
export class MysqlClient extends knexMysql2 {
  /** Without knex's question for the server's version: were the first one not answered, all others would wait for it. */
  override acquireRawConnection(): Promise<MysqlConnection> {
    const connection: MysqlConnection = this.driver.createConnection(this.connectionSettings);
    connection.on('error', (error) => {
      connection.__knex__disposed = error;
    });
    return new Promise((resolve, reject) => {
      connection.connect((error) => {
        if (error) {
          cut(connection);
          reject(error);
        } else {
          resolve(connection);
        }
      });
    });
  }

  override destroyRawConnection(connection: MysqlConnection): Promise<void> {
    return new Promise((resolve) => {
      const cutAfterAll = () => {
        cut(connection);
        resolve();
      };
      setTimeout(cutAfterAll, GOODBYE_MS).unref();
      connection.end(() => resolve());
    });
  }

  override _query(connection: Disposable, query: unknown): Promise<unknown> {
    return givingUpTheDemoted(connection, super._query(connection, query));
  }
}

export class PostgresClient extends knexPostgres {
  override _query(connection: Disposable, query: unknown): Promise<unknown> {
    return givingUpTheDemoted(connection, super._query(connection, query));
  }
}
