/** Reads the rows of build requests: a fixed number of statements for any number of them. */
import type { Knex } from 'knex';
import { z } from 'zod';
import { inBatches, type SchedulerDb } from './database.ts';
import type { Schema } from './schema.ts';
import type { BuildRow, RequestRow } from './view.ts';

const int = z.coerce.number().int();
const requestRow = z.object({
  id: int,
  buildername: z.string(),
  complete: int.nullable(),
  results: int.nullable(),
  complete_at: int.nullable(),
  submitted_at: int,
  claimed_at: int.nullable(),
  claimed_by: z.string().nullable(),
});
const buildRow = z.object({ id: int, brid: int, number: int, start_time: int, finish_time: int.nullable() });
const siblingRow = buildRow.extend({ buildername: z.string() });

export interface Rows {
  readonly requests: ReadonlyMap<number, RequestRow>;
  /** By request, in order of id. */
  readonly builds: ReadonlyMap<number, readonly BuildRow[]>;
  /** By the database's clock, Unix seconds. */
  readonly now: number;
}

/** @throws LegacyCiError */
export async function readRows(database: SchedulerDb, schema: Schema, ids: readonly number[]): Promise<Rows> {
  return database.run('reading build requests', async (db) => {
    const now = await databaseNow(db);
    // The request first: what its builds say afterwards can only be newer.
    const requests = await inBatches(ids, async (batch) =>
      z.array(requestRow).parse(await requestQuery(db, schema).whereIn('r.id', batch)),
    );
    const builds = await inBatches(ids, async (batch) =>
      z
        .array(buildRow)
        .parse(
          await db('builds')
            .whereIn('brid', batch)
            .orderBy('id')
            .select('id', 'brid', 'number', 'start_time', 'finish_time'),
        ),
    );
    return { requests: new Map(requests.map((row) => [row.id, toRequest(row)])), builds: byRequest(builds), now };
  });
}

/**
 * Rows of other requests that the same builds serve: a build has one for each of its requests, with the same number,
 * start and builder.
 */
export async function readSiblings(
  database: SchedulerDb,
  builds: readonly (BuildRow & { readonly builder: string })[],
): Promise<ReadonlyMap<number, readonly BuildRow[]>> {
  if (builds.length === 0) {
    return new Map();
  }
  const own = new Map(builds.map((build) => [keyOf(build), build]));
  const rows = await database.run('reading merged build requests', (db) =>
    inBatches(builds, async (batch) =>
      z.array(siblingRow).parse(
        await db('builds as b')
          .join('buildrequests as r', 'r.id', 'b.brid')
          .whereIn('b.number', [...new Set(batch.map(({ number }) => number))])
          .whereIn('b.start_time', [...new Set(batch.map(({ startTime }) => startTime))])
          .select('b.id', 'b.brid', 'b.number', 'b.start_time', 'b.finish_time', 'r.buildername'),
      ),
    ),
  );
  const found = new Map<number, BuildRow[]>();
  for (const row of rows) {
    const sibling = toBuild(row);
    const key = keyOf({ ...sibling, builder: row.buildername });
    if (own.has(key)) {
      for (const build of builds) {
        if (build.brid !== sibling.brid && keyOf(build) === key) {
          found.set(build.id, [...(found.get(build.id) ?? []), sibling]);
        }
      }
    }
  }
  return found;
}

function keyOf({ number, startTime, builder }: { number: number; startTime: number; builder: string }): string {
  return `${number} ${startTime} ${builder}`;
}

export async function databaseNow(db: Knex): Promise<number> {
  const [rows]: unknown[] = await db.raw('SELECT UNIX_TIMESTAMP() AS now');
  const [row] = z.array(z.object({ now: int })).parse(rows);
  return row?.now ?? 0;
}

function requestQuery(db: Knex, { kind }: Schema): Knex.QueryBuilder {
  const columns = ['r.id', 'r.buildername', 'r.complete', 'r.results', 'r.complete_at', 'r.submitted_at'];
  return kind === 'A'
    ? db('buildrequests as r').select(...columns, 'r.claimed_at', 'r.claimed_by_name as claimed_by')
    : db('buildrequests as r')
        .leftJoin('buildrequest_claims as c', 'c.brid', 'r.id')
        .leftJoin('objects as o', 'o.id', 'c.objectid')
        .select(...columns, 'c.claimed_at', 'o.name as claimed_by');
}

function toRequest(row: z.infer<typeof requestRow>): RequestRow {
  return {
    id: row.id,
    builder: row.buildername,
    isComplete: row.complete === 1,
    results: row.results,
    completeAt: row.complete_at,
    // The old schema writes 0 for nobody.
    claimedAt: row.claimed_at === 0 ? null : row.claimed_at,
    claimedBy: row.claimed_by,
    submittedAt: row.submitted_at,
  };
}

function toBuild(row: z.infer<typeof buildRow>): BuildRow {
  return {
    id: row.id,
    brid: row.brid,
    number: row.number,
    startTime: row.start_time,
    finishTime: row.finish_time,
  };
}

function byRequest(rows: readonly z.infer<typeof buildRow>[]): ReadonlyMap<number, readonly BuildRow[]> {
  const found = new Map<number, BuildRow[]>();
  for (const row of rows) {
    found.set(row.brid, [...(found.get(row.brid) ?? []), toBuild(row)]);
  }
  return found;
}
