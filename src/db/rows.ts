/** Rows of the mapping database and what they are in the program; the only place that knows the columns' names. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import {
  type AdoptedMapping,
  type Instance,
  MAPPING_STATES,
  type Mapping,
  type MappingChanges,
  type NewMapping,
  type TraceEvent,
} from '../domain/mapping.ts';
import type { Overview } from '../ports.ts';

/** A time that never comes: closed mappings are never due. */
export const NEVER = 9_000_000_000_000_000;
const MAX_ERROR = 2000;
const MAX_DETAIL = 4000;
const MAX_KEY = 64;
const TIMES = ['takenUntil', 'reclaimAt', 'nextCheckAt', 'absentSince', 'requestAbsentSince', 'resolved'] as const;

/** PostgreSQL answers BIGINT as text. */
const number = z.coerce.number();
const nullable = number.nullable();

const mappingRow = z.object({
  id: number,
  version: number,
  task_id: z.string(),
  run_id: number,
  task_group_id: z.string(),
  builder: z.string(),
  state: z.enum(MAPPING_STATES),
  external_id: z.string(),
  submissions: number,
  build_request_id: nullable,
  collapse_key: z.string().nullable(),
  slot: z.string().nullable(),
  priority: number,
  retries_reported: number,
  reruns: number,
  cancels: number,
  taken_until: nullable,
  reclaim_at: nullable,
  deadline: number,
  next_check_at: number,
  absent_since: nullable,
  request_absent_since: nullable,
  lease_owner: z.string().nullable(),
  lease_until: number,
  attempts: number,
  last_error: z.string().nullable(),
  created: number,
  updated: number,
  resolved: nullable,
  resolution: z.string().nullable(),
});

const nowRow = z.object({ now: number });

/** The time in a row with nothing else, UTC milliseconds. */
export function toNow(row: unknown): number {
  return nowRow.parse(row).now;
}

/** A row as a mapping, or what is wrong with it if it is not one of this version's. */
export function readMapping(
  row: unknown,
): { readonly mapping: Mapping } | { readonly mapping?: never; readonly error: z.ZodError } {
  const parsed = mappingRow.safeParse(row);
  return parsed.success ? { mapping: toMapping(parsed.data) } : { error: parsed.error };
}

function toMapping(r: z.infer<typeof mappingRow>): Mapping {
  return {
    id: r.id,
    version: r.version,
    taskId: r.task_id,
    runId: r.run_id,
    taskGroupId: r.task_group_id,
    builder: r.builder,
    state: r.state,
    externalId: r.external_id,
    submissions: r.submissions,
    buildRequestId: r.build_request_id,
    collapseKey: r.collapse_key,
    hasSlot: r.slot !== null,
    priority: r.priority,
    retriesReported: r.retries_reported,
    reruns: r.reruns,
    cancels: r.cancels,
    takenUntil: r.taken_until,
    reclaimAt: r.reclaim_at,
    deadline: r.deadline,
    nextCheckAt: r.next_check_at,
    absentSince: r.absent_since,
    requestAbsentSince: r.request_absent_since,
    leaseOwner: r.lease_owner,
    leaseUntil: r.lease_until,
    attempts: r.attempts,
    lastError: r.last_error,
    created: r.created,
    updated: r.updated,
    resolved: r.resolved,
    resolution: r.resolution,
  };
}

const overviewRows = z.array(
  // A row that cannot be read must not hide the others.
  z.object({ state: z.string(), count: number, failing: number, takenUntil: nullable.catch(null) }),
);

/** Of a row for each state of open mappings. */
export function toOverview(given: unknown): Overview {
  const rows = overviewRows.parse(given);
  const count = (state: string) => rows.find((row) => row.state === state)?.count ?? 0;
  // What is cancelled has no claim any more, only the memory of one.
  const ends = rows.flatMap(({ state, takenUntil }) => (state === 'cancelling' ? [] : (takenUntil ?? [])));
  return {
    byState: {
      refusing: count('refusing'),
      held: count('held'),
      intended: count('intended'),
      submitted: count('submitted'),
      cancelling: count('cancelling'),
    },
    failing: rows.reduce((sum, { failing }) => sum + failing, 0),
    nearestTakenUntil: ends.length > 0 ? Math.min(...ends) : null,
  };
}

/** Due at once, and leased to whoever inserts it. */
export function toNewRow(mapping: NewMapping, lease: { owner: string; leaseUntil: number; now: number }): object {
  const collapseKey = mapping.collapseKey === null ? null : toKey(mapping.collapseKey);
  return {
    version: 1,
    task_id: mapping.taskId,
    open_task_id: mapping.taskId,
    run_id: mapping.runId,
    task_group_id: mapping.taskGroupId,
    builder: clip(mapping.builder, 255),
    state: mapping.state,
    external_id: mapping.externalId,
    submissions: mapping.submissions,
    build_request_id: null,
    collapse_key: collapseKey,
    slot: mapping.hasSlot ? collapseKey : null,
    priority: mapping.priority,
    retries_reported: 0,
    reruns: 0,
    cancels: 0,
    taken_until: mapping.takenUntil,
    reclaim_at: null,
    deadline: mapping.deadline,
    next_check_at: lease.now,
    absent_since: null,
    request_absent_since: null,
    lease_owner: lease.owner,
    lease_until: lease.leaseUntil,
    attempts: 0,
    last_error: null,
    created: lease.now,
    updated: lease.now,
    resolved: null,
    resolution: null,
  };
}

/** Of a mapping taken over from another bridge: nobody has its lease. */
export function toAdoptedRow(mapping: AdoptedMapping, now: number): object {
  return {
    ...toNewRow(mapping, { owner: '', leaseUntil: 0, now }),
    lease_owner: null,
    build_request_id: mapping.buildRequestId,
    retries_reported: mapping.retriesReported,
  };
}

/** As much of an error as the column can hold. */
export function toErrorText(lastError: string): string {
  return clip(lastError, MAX_ERROR);
}

/** The changes as the columns can hold them: whole milliseconds (PostgreSQL refuses others), texts clipped. */
export function toStorable(mapping: Mapping, changes: MappingChanges): MappingChanges {
  const times = TIMES.flatMap((key) => {
    const time = changes[key];
    return typeof time === 'number' ? [[key, Math.round(time)] as const] : [];
  });
  return {
    ...changes,
    ...Object.fromEntries(times),
    ...(typeof changes.lastError === 'string' ? { lastError: toErrorText(changes.lastError) } : {}),
    ...(typeof changes.resolution === 'string' ? { resolution: clip(changes.resolution, 64) } : {}),
    ...(changes.hasSlot === true ? { hasSlot: mapping.collapseKey !== null } : {}),
    ...(changes.state === 'closed' ? { hasSlot: false, nextCheckAt: NEVER } : {}),
  };
}

/**
 * The columns that changes (see `toStorable`) touch. A mapping that closes is no longer its task's open one, has no
 * slot, and is never due.
 */
export function toChangedColumns(mapping: Mapping, changes: MappingChanges): Record<string, unknown> {
  const { hasSlot, ...plain } = changes;
  const named = Object.entries(plain)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]);
  return {
    ...Object.fromEntries(named),
    ...(hasSlot === undefined ? {} : { slot: hasSlot ? mapping.collapseKey : null }),
    ...(changes.state === 'closed' ? { open_task_id: null } : {}),
  };
}

/** The mapping as it is after the changes (see `toStorable`) were stored. */
export function withChanges(mapping: Mapping, changes: MappingChanges, now: number): Mapping {
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
  return { ...mapping, ...given, version: mapping.version + 1, updated: now };
}

/** A collapse key as it is stored: long ones as a hash of one length. Of a key that was stored, the same again. */
export function toKey(collapseKey: string): string {
  return collapseKey.length <= MAX_KEY ? collapseKey : createHash('sha256').update(collapseKey).digest('hex');
}

export function toEventRow(event: TraceEvent): object {
  return {
    task_id: event.taskId,
    run_id: event.runId,
    at: event.at,
    instance: clip(event.instance, 100),
    what: clip(event.what, 40),
    detail: clip(event.detail, MAX_DETAIL),
  };
}

export function toEvent(row: Record<string, unknown>): TraceEvent {
  return {
    taskId: String(row.task_id),
    runId: row.run_id === null ? null : Number(row.run_id),
    at: Number(row.at),
    instance: String(row.instance),
    what: String(row.what),
    detail: String(row.detail),
  };
}

export function toInstanceRow({ instance, version, services, started, heartbeat }: Instance): object {
  return {
    instance: clip(instance, 100),
    version: clip(version, 40),
    services: clip(services.join(','), 200),
    started,
    heartbeat,
  };
}

export function toInstance(row: Record<string, unknown>): Instance {
  return {
    instance: String(row.instance),
    version: String(row.version),
    services: String(row.services).split(',').filter(Boolean),
    started: Number(row.started),
    heartbeat: Number(row.heartbeat),
  };
}

/**
 * A text as every engine can hold it: at most `length` code points, never half of one, and no NUL (which PostgreSQL
 * refuses).
 */
export function clip(text: string, length: number): string {
  const clipped = text.length <= length ? text : [...text.slice(0, length * 2)].slice(0, length).join('');
  return clipped.replace(/\p{Surrogate}/gu, '\ufffd').replaceAll('\0', '\ufffd');
}
