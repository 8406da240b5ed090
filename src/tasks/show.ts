/** Mappings and traces as people read them, and as programs do. Nothing of them reaches the terminal as a command to it. */
import type { Listed, TraceEvent } from '../domain/mapping.ts';
import { plain } from '../plain.ts';

const MAX_ERROR = 100;
const MAX_BUILDER = 60;
/** No Date goes further. */
const LAST_TIME = 8_640_000_000_000_000;
const HEADER = ['task/run', 'state', 'builder', 'request', 'attempts', 'next look', 'last error'];

/**
 * One line each, below a line that names the columns.
 * @param now UTC milliseconds
 * @param notAdmitted what was said last of tasks that have no mapping
 */
export function showList(
  listed: readonly Listed[],
  now: number,
  notAdmitted: readonly TraceEvent[] = [],
): readonly string[] {
  const all = [...listed.map((one) => cellsOf(one, now)), ...notAdmitted.map(cellsOfEvent)];
  const rows = [HEADER, ...all.map((cells) => cells.map((cell) => plain(cell)))];
  const widths = HEADER.map((_, column) => Math.max(...rows.map((row) => lengthOf(row[column] ?? ''))));
  return rows.map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat(Math.max(0, (widths[column] ?? 0) - lengthOf(cell))))
      .join('  ')
      .trimEnd(),
  );
}

function cellsOf(one: Listed, now: number): readonly string[] {
  if (one.kind === 'unreadable') {
    return [one.taskId, 'unreadable', '-', '-', '-', '-', `row ${one.id} of the table tasks cannot be read`];
  }
  const { taskId, runId, state, builder, buildRequestId, attempts, nextCheckAt, lastError } = one.mapping;
  return [
    `${taskId}/${runId}`,
    state,
    short(builder, MAX_BUILDER),
    String(buildRequestId ?? '-'),
    String(attempts),
    nextCheckAt <= now ? 'now' : timeOf(nextCheckAt),
    lastError === null ? '-' : short(lastError, MAX_ERROR),
  ];
}

function cellsOfEvent({ taskId, runId, at, detail }: TraceEvent): readonly string[] {
  const error = short(`at ${timeOf(at)}: ${detail}`, MAX_ERROR);
  return [`${taskId}/${runId ?? '-'}`, 'not admitted', '-', '-', '-', '-', error];
}

/** All of a task: its mappings as they are given, with everything that is known of them, and then its trace. */
export function showTask(listed: readonly Listed[], events: readonly TraceEvent[]): readonly string[] {
  const trace = events.map(({ at, runId, what, detail, instance }) =>
    [timeOf(at), runId === null ? '-' : `run ${runId}`, what, `${detail} (${instance})`].join('  '),
  );
  const lines = [...listed.flatMap(factsOf), events.length === 0 ? 'no trace' : 'trace:', ...indented(trace)];
  return lines.map((line) => plain(line));
}

function factsOf(one: Listed): readonly string[] {
  if (one.kind === 'unreadable') {
    return [`row ${one.id} of task ${one.taskId} cannot be read: correct it in the table tasks, or delete it`];
  }
  const { mapping } = one;
  const request = mapping.buildRequestId === null ? 'none' : String(mapping.buildRequestId);
  const facts: Readonly<Record<string, string>> = {
    builder: mapping.builder,
    'build request': `${request}, known as ${mapping.externalId} (submissions: ${mapping.submissions})`,
    attempts: `${mapping.attempts} failed in a row`,
    'last error': mapping.lastError ?? 'none',
    'next look': mapping.state === 'closed' ? 'never' : timeOf(mapping.nextCheckAt),
    'taken until': optional(mapping.takenUntil),
    deadline: timeOf(mapping.deadline),
    'missing since': `${optional(mapping.absentSince)} (task), ${optional(mapping.requestAbsentSince)} (build request)`,
    lease: mapping.leaseOwner === null ? 'none' : `${mapping.leaseOwner}, until ${timeOf(mapping.leaseUntil)}`,
    counts: `${mapping.retriesReported} retries, ${mapping.reruns} reruns, ${mapping.cancels} cancels asked for`,
    updated: `${timeOf(mapping.updated)}, created ${timeOf(mapping.created)}`,
    ...(mapping.resolved === null ? {} : { resolved: `${timeOf(mapping.resolved)}, ${mapping.resolution ?? '-'}` }),
  };
  const lines = Object.entries(facts).map(([name, value]) => `${name.padEnd(14)}${value}`);
  return [`mapping ${mapping.id}: task ${mapping.taskId}, run ${mapping.runId}, ${mapping.state}`, ...indented(lines)];
}

const indented = (lines: readonly string[]) => lines.map((line) => `  ${line}`);

/** A line of JSON each; times are UTC milliseconds. */
export function showJson(listed: readonly Listed[], events: readonly TraceEvent[] = []): readonly string[] {
  return [
    ...listed.map((one): object => (one.kind === 'mapping' ? { kind: one.kind, ...one.mapping } : one)),
    ...events.map((event): object => ({ kind: 'event', ...event })),
  ].map((value) => plain(JSON.stringify(value)));
}

/** Such as `2026-11-25T01:02:03Z`; whatever a row has in its place is no reason to fail. */
function timeOf(ms: number): string {
  return Math.abs(ms) <= LAST_TIME ? new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z') : 'never';
}

const optional = (ms: number | null) => (ms === null ? '-' : timeOf(ms));

const lengthOf = (text: string) => [...text].length;

function short(text: string, length: number): string {
  const characters = [...text];
  return characters.length <= length ? text : `${characters.slice(0, length).join('')}…`;
}
