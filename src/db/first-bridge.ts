/** The first bridge's own table, `tasks`: read once, never written. */
import type { Knex } from 'knex';
import { z } from 'zod';
import type { FirstBridgeRow, ReadRow } from '../domain/first-bridge.ts';
import { isTaskId } from '../domain/task.ts';
import { StoreError } from '../errors.ts';
import { isNotThere, withoutStatement } from '../sql.ts';
import { clip } from './rows.ts';

const ANSWER_MS = 60_000;
const COLUMNS = ['buildrequestId', 'taskId', 'runId', 'createdDate', 'takenUntil'] as const;
const MAX_SHOWN = 60;

/** A whole number; drivers answer large ones as text. */
const whole = z.union([
  z.int(),
  z
    .string()
    .regex(/^-?\d{1,15}$/)
    .transform(Number),
]);
/** Seconds, of which 0 means nothing. What cannot be read is not worth losing a row for: the queue knows it, too. */
const seconds = whole
  .nullable()
  .transform((value) => (value === null || value <= 0 ? null : value * 1000))
  .catch(null);

const tableRow = z.object({
  taskId: z.string().refine(isTaskId, 'its taskId is no slugid'),
  runId: whole.refine((value) => value >= 0, 'its runId is negative'),
  buildrequestId: whole.nullable().refine((value) => value === null || value > 0, 'its buildrequestId is not positive'),
  createdDate: seconds,
  takenUntil: seconds,
});

/**
 * Reads all rows.
 * @throws StoreError if the table cannot be read, or there is none
 */
export async function readFirstBridge(db: Knex): Promise<readonly ReadRow[]> {
  try {
    const rows: unknown[] = await db('tasks')
      .select([...COLUMNS])
      .orderBy([{ column: 'taskId' }, { column: 'runId' }])
      .timeout(ANSWER_MS);
    return rows.map(readRow);
  } catch (thrown) {
    throw toReadError(thrown);
  }
}

/** @param raw a row of the table, whatever is in it */
export function readRow(raw: unknown): ReadRow {
  const parsed = tableRow.safeParse(raw);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const why = issue?.code === 'custom' ? issue.message : `its ${issue?.path.join('.')} is not what it should be`;
    return { kind: 'unusable', shown: show(raw), why };
  }
  const { taskId, runId, buildrequestId, createdDate, takenUntil } = parsed.data;
  const row: FirstBridgeRow = { taskId, runId, buildRequestId: buildrequestId, created: createdDate, takenUntil };
  return { kind: 'row', row };
}

function show(raw: unknown): string {
  const field = (name: string): string => {
    const value: unknown = typeof raw === 'object' && raw !== null ? Reflect.get(raw, name) : undefined;
    return typeof value === 'number' || value === null ? String(value) : JSON.stringify(clip(String(value), MAX_SHOWN));
  };
  return `task ${field('taskId')}, run ${field('runId')}, build request ${field('buildrequestId')}`;
}

function toReadError(thrown: unknown): StoreError {
  const cause = withoutStatement(thrown);
  if (isNotThere(cause)) {
    const message = `the database to take over from has no table tasks of the first bridge, with ${COLUMNS.join(', ')}`;
    return new StoreError('store-schema', message, { cause });
  }
  const message = 'the database to take over from could not be read';
  return new StoreError('store-unavailable', message, { cause, isTransient: true });
}
