/** knex ships its dialects without types. */
declare module 'knex/lib/dialects/better-sqlite3/index.js' {
  import type { Knex } from 'knex';

  class Client extends Knex.Client {
    _driver(): unknown;
  }
  // biome-ignore lint/style/noDefaultExport: it is how that module exports it
  export default Client;
}

declare module 'knex/lib/dialects/mysql2/index.js' {
  import type { Knex } from 'knex';

  class Client extends Knex.Client {
    _query(connection: unknown, query: unknown): Promise<unknown>;
    acquireRawConnection(): Promise<unknown>;
    destroyRawConnection(connection: unknown): Promise<void>;
  }
  // biome-ignore lint/style/noDefaultExport: it is how that module exports it
  export default Client;
}

declare module 'knex/lib/dialects/postgres/index.js' {
  import type { Knex } from 'knex';

  class Client extends Knex.Client {
    _query(connection: unknown, query: unknown): Promise<unknown>;
  }
  // biome-ignore lint/style/noDefaultExport: it is how that module exports it
  export default Client;
}
