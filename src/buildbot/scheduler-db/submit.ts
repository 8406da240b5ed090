/** Makes a build request by writing it into the scheduler database, once for each external id. */
import { createHash } from 'node:crypto';
import type { Knex } from 'knex';
import { firstBridgeExternalId } from '../../domain/first-bridge.ts';
import { LONGEST_DEADLINE_MS } from '../../domain/task.ts';
import { LegacyCiError } from '../../errors.ts';
import type { BuildSpec } from '../../ports.ts';
import { type SchedulerDb, unavailable } from './database.ts';
import type { Schema } from './schema.ts';
import { EXTERNAL_ID, encoded, priorityOf, propertiesOf, reasonOf, sourcestampOf } from './submission.ts';

/** How long to wait for another bridge that submits the same. */
const LOCK_SECONDS = 10;
/** What clocks may differ. */
const CLOCK_SLACK_S = 3600;
/** From a task's creation to its deadline. */
export const LONGEST_TASK_S = LONGEST_DEADLINE_MS / 1000 + CLOCK_SLACK_S;

/**
 * Looks for a request of this external id and makes it if there is none, under a lock that all bridges on the database
 * share: of several that submit the same at once, one makes the request and the others find it.
 * @returns its id
 * @throws LegacyCiError: `legacy-ci-unavailable` if it is not known whether the request was made
 */
export function submit(database: SchedulerDb, schema: Schema, spec: BuildSpec): Promise<number> {
  return database.run('submitting a build request', (db) =>
    withLock(db, spec.externalId, async (connection) => {
      // A later run may have the external id of an older one, whose submission was never answered.
      const since = Math.floor(spec.scheduled / 1000) - (spec.runId === 0 ? CLOCK_SLACK_S : LONGEST_TASK_S);
      // On the old schema's tables nothing is undone, so the request, which masters look at, comes last.
      return db.transaction(
        async (trx) =>
          (await findRequest(trx, spec.taskId, spec.externalId, since)) ?? (await insert(trx, schema, spec)),
        { connection },
      );
    }),
  );
}

/**
 * Looks for a request by its external id; the first bridge's own is `taskId:<taskId>`, for requests without the property.
 * Copies that Self-serve makes of a request carry its properties too, but not its reason.
 * @param since Unix seconds; `submitted_at` has an index, the external id has none
 */
export async function findRequest(
  db: Knex,
  taskId: string,
  externalId: string,
  since: number,
): Promise<number | undefined> {
  const rows: { id: number; external_idstring: string; property_value: string | null }[] = await db('buildsets as s')
    .join('buildrequests as r', 'r.buildsetid', 's.id')
    .leftJoin('buildset_properties as p', (on) =>
      // To the letter: a payload may have a property that the database takes for the same.
      on.on('p.buildsetid', 's.id').andOn('p.property_name', db.raw('CAST(? AS BINARY)', [EXTERNAL_ID])),
    )
    .where('s.submitted_at', '>=', since)
    .andWhere({ 's.external_idstring': firstBridgeExternalId(taskId), 's.reason': reasonOf(taskId) })
    .orderBy('r.id')
    .select('r.id as id', 's.external_idstring', 'p.property_value');
  // The database compares without regard to case; taskIds do not.
  const wanted = externalId === firstBridgeExternalId(taskId) ? null : encoded(externalId);
  return rows.find(
    (row) => row.external_idstring === firstBridgeExternalId(taskId) && (row.property_value ?? null) === wanted,
  )?.id;
}

async function insert(trx: Knex.Transaction, { kind }: Schema, spec: BuildSpec): Promise<number> {
  const submitted_at = Math.floor(spec.scheduled / 1000);
  const source =
    kind === 'A'
      ? { sourcestampid: await insertRow(trx, 'sourcestamps', sourcestampOf(spec)) }
      : { sourcestampsetid: await insertRow(trx, 'sourcestampsets', {}) };
  if (kind === 'B') {
    // Without a codebase: a 0.8.6 knows none, and where there is the column, it says so itself.
    await insertRow(trx, 'sourcestamps', { ...sourcestampOf(spec), ...source });
  }
  // What stock masters write for "not yet"; the fork has NULL there.
  const results = kind === 'A' ? {} : { results: -1 };
  const buildsetid = await insertRow(trx, 'buildsets', {
    external_idstring: firstBridgeExternalId(spec.taskId),
    reason: reasonOf(spec.taskId),
    ...source,
    submitted_at,
    complete: 0,
    ...results,
  });
  await trx('buildset_properties').insert(
    propertiesOf(spec).map(([property_name, property_value]) => ({ buildsetid, property_name, property_value })),
  );
  return insertRow(trx, 'buildrequests', {
    buildsetid,
    buildername: spec.builder,
    priority: priorityOf(spec.priority),
    // Not NULL: masters look for what was claimed before some time.
    ...(kind === 'A' ? { claimed_at: 0 } : {}),
    complete: 0,
    ...results,
    submitted_at,
  });
}

async function insertRow(trx: Knex.Transaction, table: string, row: object): Promise<number> {
  const [id] = await trx(table).insert(row);
  if (typeof id !== 'number') {
    throw new LegacyCiError('legacy-ci-protocol', `the scheduler database gave no id to a row of ${table}`);
  }
  return id;
}

/** What of a driver's connection is needed here. */
interface RawConnection {
  destroy(): void;
}

/** MySQL's own locks, which end with their connection: nothing is left behind by a bridge that dies. */
async function withLock<T>(db: Knex, externalId: string, work: (connection: RawConnection) => Promise<T>): Promise<T> {
  const name = `bbb/${createHash('sha256').update(externalId).digest('hex').slice(0, 48)}`;
  const connection: RawConnection = await db.client.acquireConnection();
  try {
    const [rows]: [{ locked: number | null }[]] = await db
      .raw('SELECT GET_LOCK(?, ?) AS locked', [name, LOCK_SECONDS])
      .connection(connection);
    if (rows[0]?.locked !== 1) {
      throw unavailable('another bridge is submitting the same build request');
    }
    return await work(connection);
  } finally {
    try {
      await db.raw('SELECT RELEASE_LOCK(?)', [name]).connection(connection);
    } catch {
      // The lock ends with its connection.
      connection.destroy();
    }
    await db.client.releaseConnection(connection);
  }
}
