/** Whether the bridge's user may do to the scheduler database what it will have to: said at the start, not at the first task. */
import type { Knex } from 'knex';
import { ConfigError, isTransient } from '../../errors.ts';
import type { SchedulerDb } from './database.ts';
import type { Schema } from './schema.ts';

/** Those that a submission writes. */
const SUBMITTED = ['sourcestamps', 'buildsets', 'buildset_properties', 'buildrequests'];
/** Those of which a cancel in the database changes rows. */
const COMPLETED = ['buildrequests', 'buildsets'];
/** How a master, or the bridge in its place, takes a request. */
const CLAIMED = ['buildrequest_claims', 'objects'];

/**
 * Adds no row to each table that will be written, and changes none: where that is refused, so will be the rest.
 * @param options.cancels whether waiting requests are cancelled in the database, as nothing else can
 * @throws ConfigError with what to grant, LegacyCiError if the database cannot be asked
 */
export async function checkRights(
  database: SchedulerDb,
  { kind }: Schema,
  { cancels }: { readonly cancels: boolean },
): Promise<void> {
  const inserted = [
    ...SUBMITTED,
    ...(kind === 'B' ? ['sourcestampsets'] : []),
    ...(kind === 'B' && cancels ? CLAIMED : []),
  ];
  for (const table of inserted) {
    // All columns: some have no default, and a strict server wants those even of no row.
    await probe(database, table, 'INSERT', (db) =>
      db.raw('INSERT INTO ?? SELECT * FROM ?? WHERE 1 = 0', [table, table]),
    );
  }
  for (const table of cancels ? COMPLETED : []) {
    await probe(database, table, 'UPDATE', (db) =>
      db.raw('UPDATE ?? SET complete = 1, results = 2, complete_at = 0 WHERE 1 = 0', [table]),
    );
  }
}

async function probe(
  database: SchedulerDb,
  table: string,
  right: 'INSERT' | 'UPDATE',
  statement: (db: Knex) => Knex.Raw,
): Promise<void> {
  try {
    await database.run('checking its rights', async (db) => statement(db));
  } catch (error) {
    if (isTransient(error)) {
      throw error;
    }
    throw new ConfigError(
      `the user of legacyCi.schedulerDb.url may not write the table ${table}: GRANT SELECT, ${right} ON <database>.${table} TO it`,
      { cause: error },
    );
  }
}
