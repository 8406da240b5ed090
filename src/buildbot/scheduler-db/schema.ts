/**
 * The two schemas that were in the field, told apart by their tables. `A`: Mozilla's fork of 0.8.2 (and stock up to
 * 0.8.4), which keeps claims in columns of `buildrequests` and links a buildset to one sourcestamp. `B`: 0.8.6 to 0.8.12,
 * with a table of claims and sets of sourcestamps (and from 0.8.7 on codebases, which nothing here names).
 */
import { z } from 'zod';
import { ConfigError } from '../../errors.ts';
import { listOf } from '../../lists.ts';
import type { SchedulerDb } from './database.ts';

/** Of texts, in the unit that the column counts in; `null` where a column has no practical limit. */
export interface Limit {
  readonly length: number;
  readonly unit: 'characters' | 'bytes';
}

export interface Schema {
  readonly kind: 'A' | 'B';
  /** By `table.column`. */
  readonly limits: ReadonlyMap<string, Limit>;
}

const columnRow = z.object({
  table: z.string(),
  column: z.string(),
  type: z.string(),
  characters: z.coerce.number().nullable(),
  bytes: z.coerce.number().nullable(),
});

const NEEDED = ['sourcestamps', 'buildsets', 'buildset_properties', 'buildrequests', 'builds'];

/** @throws ConfigError if these are no tables of a Buildbot 0.8, LegacyCiError if they cannot be read */
export async function readSchema(database: SchedulerDb): Promise<Schema> {
  const rows = await database.run('reading its schema', async (db) => {
    const [answer]: unknown[] = await db.raw(
      `SELECT TABLE_NAME AS \`table\`, COLUMN_NAME AS \`column\`, DATA_TYPE AS \`type\`,
              CHARACTER_MAXIMUM_LENGTH AS \`characters\`, CHARACTER_OCTET_LENGTH AS \`bytes\`
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()`,
    );
    return listOf(columnRow).parse(answer);
  });
  const tables = new Set(rows.map(({ table }) => table));
  const missing = NEEDED.filter((table) => !tables.has(table));
  if (missing.length > 0) {
    throw new ConfigError(
      `legacyCi.schedulerDb.url names a database without the tables ${missing.join(', ')}: it is not the scheduler database of a Buildbot 0.8, or the user has no rights on them`,
    );
  }
  const has = (name: string) => rows.some(({ table, column }) => `${table}.${column}` === name);
  const kind =
    tables.has('buildrequest_claims') && has('buildsets.sourcestampsetid')
      ? 'B'
      : has('buildrequests.claimed_at') && has('buildsets.sourcestampid')
        ? 'A'
        : undefined;
  if (kind === undefined) {
    throw new ConfigError(
      'the scheduler database is of a Buildbot that this bridge does not know: it needs claims in columns of buildrequests and buildsets.sourcestampid (0.8.2 to 0.8.4), or the table buildrequest_claims and buildsets.sourcestampsetid (0.8.6 to 0.8.12)',
    );
  }
  return { kind, limits: limitsOf(rows) };
}

function limitsOf(rows: readonly z.infer<typeof columnRow>[]): Schema['limits'] {
  return new Map(
    rows.flatMap(({ table, column, type, characters, bytes }) => {
      // A VARCHAR counts characters, a TEXT bytes.
      const limit: Limit | undefined = type.endsWith('text')
        ? { length: bytes ?? 0, unit: 'bytes' }
        : type === 'varchar'
          ? { length: characters ?? 0, unit: 'characters' }
          : undefined;
      return limit === undefined ? [] : [[`${table}.${column}`, limit] as const];
    }),
  );
}
