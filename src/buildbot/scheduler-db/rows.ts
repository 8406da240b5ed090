/** Reads the rows of build requests: a fixed number of statements for any number of them. */
import type { Knex } from 'knex';
import { z } from 'zod';
import { SAME_START_MS } from '../../domain/kept-build.ts';
import type { LegacyCiError } from '../../errors.ts';
import { listOf } from '../../lists.ts';
import { type BadRecord, fieldOf, readRecords } from '../records.ts';
import { errorsOf } from '../unreadable.ts';
import { inBatches, type SchedulerDb } from './database.ts';
import type { Schema } from './schema.ts';
import type { BuildRow, RequestRow } from './view.ts';

const int = z.coerce.number().int();
const SAME_START_S = SAME_START_MS / 1000;
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
const siblingRow = buildRow.extend({ buildername: z.string(), claimed_by: z.string().nullable() });

/** A row of a build, and of whose request. */
export interface OwnedBuild extends BuildRow {
  readonly builder: string;
  /** Null where nobody has the request any more. */
  readonly claimedBy: string | null;
}

export interface Rows {
  readonly requests: ReadonlyMap<number, RequestRow>;
  /** By request, in order of id. */
  readonly builds: ReadonlyMap<number, readonly BuildRow[]>;
  /** Requests of which a row cannot be read: what else is here of them is not all. */
  readonly bad: ReadonlyMap<number, LegacyCiError>;
  /** By the database's clock, Unix seconds. */
  readonly now: number;
}

export interface Siblings {
  /** By the build's id. */
  readonly of: ReadonlyMap<number, readonly BuildRow[]>;
  /** Builds of which a sibling's row cannot be read. */
  readonly bad: ReadonlyMap<number, LegacyCiError>;
}

/** @throws LegacyCiError */
export async function readRows(database: SchedulerDb, schema: Schema, ids: readonly number[]): Promise<Rows> {
  const { now, requests, builds } = await database.run('reading build requests', async (db) => ({
    now: await databaseNow(db),
    // The request first: what its builds say afterwards can only be newer.
    requests: readRecords(
      await inBatches(ids, (batch): Promise<unknown[]> => requestQuery(db, schema).whereIn('r.id', batch)),
      requestRow,
      'id',
    ),
    builds: readRecords(
      await inBatches(
        ids,
        (batch): Promise<unknown[]> =>
          db('builds').whereIn('brid', batch).orderBy('id').select('id', 'brid', 'number', 'start_time', 'finish_time'),
      ),
      buildRow,
      'brid',
    ),
  }));
  const bad = [...requests.bad, ...builds.bad];
  if (ids.length > 1 && bad.some(({ owner }) => owner === undefined)) {
    // It may belong to any of them: whoever has it in an answer of its own has it.
    return readSingly(database, schema, ids);
  }
  return {
    requests: new Map(requests.read.map((row) => [row.id, toRequest(row)])),
    builds: byRequest(builds.read),
    bad: ownErrors(database, ids, bad),
    now,
  };
}

async function readSingly(database: SchedulerDb, schema: Schema, ids: readonly number[]): Promise<Rows> {
  const parts: Rows[] = [];
  for (const id of ids) {
    parts.push(await readRows(database, schema, [id]));
  }
  return {
    requests: new Map(parts.flatMap(({ requests }) => [...requests])),
    builds: new Map(parts.flatMap(({ builds }) => [...builds])),
    bad: new Map(parts.flatMap(({ bad }) => [...bad])),
    now: parts.at(-1)?.now ?? 0,
  };
}

/** Of a row that names nobody, whoever it was read for. */
function ownErrors({ inputs }: SchedulerDb, ids: readonly number[], bad: readonly BadRecord[]): Rows['bad'] {
  const errors = errorsOf(inputs, 'build request', bad);
  return new Map(
    ids.flatMap((id) => {
      const error = errors.get(id) ?? errors.get(undefined);
      return error ? [[id, error] as const] : [];
    }),
  );
}

/**
 * Rows of other requests that the same builds serve: a build has one for each of its requests, with the same number and
 * builder. A master writes them one after the other, each with the time of its own.
 * @throws LegacyCiError
 */
export async function readSiblings(
  database: SchedulerDb,
  schema: Schema,
  builds: readonly OwnedBuild[],
): Promise<Siblings> {
  if (builds.length === 0) {
    return { of: new Map(), bad: new Map() };
  }
  const rows = await database.run('reading merged build requests', (db) =>
    inBatches(builds, (batch): Promise<unknown[]> => siblingQuery(db, schema, batch)),
  );
  const siblings = readRecords(rows, siblingRow, 'brid');
  const others = new Map<string, Map<number, OwnedBuild>>();
  for (const row of siblings.read) {
    const one = { ...toBuild(row), builder: row.buildername, claimedBy: row.claimed_by };
    // Two batches may both have found it.
    others.set(keyOf(one), (others.get(keyOf(one)) ?? new Map()).set(one.id, one));
  }
  const found = new Map<number, BuildRow[]>();
  for (const build of builds) {
    const named = others.get(keyOf(build))?.values() ?? [];
    const same = [...named].filter((one) => one.brid !== build.brid && isSame(one, build));
    if (same.length > 0) {
      found.set(build.id, same);
    }
  }
  const errors = errorsOf(database.inputs, 'a build of request', siblings.bad);
  const bad = new Map<number, LegacyCiError>();
  for (const { owner, value } of siblings.bad) {
    const error = errors.get(owner);
    if (error !== undefined) {
      for (const { id } of builds.filter((build) => mayServe(value, build))) {
        bad.set(id, error);
      }
    }
  }
  return { of: found, bad };
}

function siblingQuery(db: Knex, schema: Schema, builds: readonly OwnedBuild[]): Knex.QueryBuilder {
  const rows = db('builds as b')
    .select('b.id', 'b.brid', 'b.number', 'b.start_time', 'b.finish_time', 'r.buildername')
    .join('buildrequests as r', 'r.id', 'b.brid')
    .where((any) => {
      for (const { number, startTime } of builds) {
        any.orWhere((one) =>
          one
            .where('b.number', number)
            .whereBetween('b.start_time', [startTime - SAME_START_S, startTime + SAME_START_S]),
        );
      }
    });
  return withClaims(rows, schema);
}

function keyOf({ number, builder }: OwnedBuild): string {
  return `${number} ${builder}`;
}

/** Of two with the same number and builder: these count per master. */
function isSame(a: OwnedBuild, b: OwnedBuild): boolean {
  const isOfOthers = a.claimedBy !== null && b.claimedBy !== null && a.claimedBy !== b.claimedBy;
  return isSameStart(a, b) && !isOfOthers;
}

/** Whether two rows may tell of the same start. */
export function isSameStart(a: Pick<BuildRow, 'startTime'>, b: Pick<BuildRow, 'startTime'>): boolean {
  return Math.abs(a.startTime - b.startTime) <= SAME_START_S;
}

/** Whether a row that cannot be read may be of this build: nothing that can be read of it says otherwise. */
function mayServe(row: unknown, build: OwnedBuild): boolean {
  const builder = fieldOf(row, 'buildername');
  const number = int.safeParse(fieldOf(row, 'number'));
  const startTime = int.safeParse(fieldOf(row, 'start_time'));
  return (
    fieldOf(row, 'brid') !== build.brid &&
    (typeof builder !== 'string' || builder === build.builder) &&
    (!number.success || number.data === build.number) &&
    (!startTime.success || isSameStart({ startTime: startTime.data }, build))
  );
}

/** For whoever needs all of one. @throws LegacyCiError */
export function throwIfBad(bad: ReadonlyMap<number, LegacyCiError>, id: number): void {
  const error = bad.get(id);
  if (error !== undefined) {
    throw error;
  }
}

/** Unix seconds, by the clock that the times of rows go by. */
export async function databaseNow(db: Knex): Promise<number> {
  const [rows]: unknown[] = await db.raw('SELECT UNIX_TIMESTAMP() AS now');
  const [row] = listOf(z.object({ now: int })).parse(rows);
  return row?.now ?? 0;
}

function requestQuery(db: Knex, schema: Schema): Knex.QueryBuilder {
  const columns = ['r.id', 'r.buildername', 'r.complete', 'r.results', 'r.complete_at', 'r.submitted_at'];
  return withClaims(db('buildrequests as r').select(columns), schema);
}

/** Adds who has the request `r`, and since when: the new schema keeps that apart. */
function withClaims(query: Knex.QueryBuilder, { kind }: Schema): Knex.QueryBuilder {
  return kind === 'A'
    ? query.select('r.claimed_at', 'r.claimed_by_name as claimed_by')
    : query
        .leftJoin('buildrequest_claims as c', 'c.brid', 'r.id')
        .leftJoin('objects as o', 'o.id', 'c.objectid')
        .select('c.claimed_at', 'o.name as claimed_by');
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
