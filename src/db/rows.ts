/** Rows of the mapping database and what they are in the program; the only place that knows the columns' names. */
import { z } from 'zod';
import { MAPPING_STATES, type Mapping, type MappingChanges, type NewMapping } from '../domain/mapping.ts';

/** A time that never comes: closed mappings are never due. */
const NEVER = 9_000_000_000_000_000;
const MAX_ERROR = 2000;

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
  taken_until: nullable,
  deadline: number,
  next_check_at: number,
  absent_since: nullable,
  lease_owner: z.string().nullable(),
  lease_until: number,
  attempts: number,
  last_error: z.string().nullable(),
  created: number,
  updated: number,
  resolved: nullable,
  resolution: z.string().nullable(),
});

/** @throws z.ZodError if the row is not one of this version's */
export function toMapping(row: unknown): Mapping {
  const r = mappingRow.parse(row);
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
    takenUntil: r.taken_until,
    deadline: r.deadline,
    nextCheckAt: r.next_check_at,
    absentSince: r.absent_since,
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

export function toNewRow(mapping: NewMapping, lease: { owner: string; leaseUntil: number; now: number }): object {
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
    collapse_key: mapping.collapseKey,
    slot: mapping.hasSlot ? mapping.collapseKey : null,
    priority: mapping.priority,
    retries_reported: 0,
    reruns: 0,
    taken_until: mapping.takenUntil,
    deadline: mapping.deadline,
    next_check_at: lease.now,
    absent_since: null,
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

/** The columns that changes touch. A mapping that closes is no longer its task's open one, has no slot, and is never due. */
export function toChangedColumns(mapping: Mapping, changes: MappingChanges): Record<string, unknown> {
  const columns: Record<keyof MappingChanges, unknown> = {
    runId: changes.runId,
    state: changes.state,
    externalId: changes.externalId,
    submissions: changes.submissions,
    buildRequestId: changes.buildRequestId,
    hasSlot: undefined,
    retriesReported: changes.retriesReported,
    reruns: changes.reruns,
    takenUntil: changes.takenUntil,
    nextCheckAt: changes.nextCheckAt,
    absentSince: changes.absentSince,
    attempts: changes.attempts,
    lastError: changes.lastError == null ? changes.lastError : clip(changes.lastError, MAX_ERROR),
    resolved: changes.resolved,
    resolution: changes.resolution == null ? changes.resolution : clip(changes.resolution, 64),
  };
  const named = Object.entries(columns)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]);
  return {
    ...Object.fromEntries(named),
    ...(changes.hasSlot === undefined ? {} : { slot: changes.hasSlot ? mapping.collapseKey : null }),
    ...(changes.state === 'closed' ? { open_task_id: null, slot: null, next_check_at: NEVER } : {}),
  };
}

/** The mapping as it is after the changes were stored. */
export function withChanges(mapping: Mapping, changes: MappingChanges, now: number): Mapping {
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
  return {
    ...mapping,
    ...given,
    ...(changes.state === 'closed' ? { hasSlot: false, nextCheckAt: NEVER } : {}),
    version: mapping.version + 1,
    updated: now,
  };
}

/** At most `length` code points; never half of one. */
export function clip(text: string, length: number): string {
  return text.length <= length ? text : [...text.slice(0, length * 2)].slice(0, length).join('');
}
