/**
 * Build events as Mozilla's masters published them, narrowed to what they are good for: which requests to look at, and
 * what only they tell. Tolerant: shapes differed over the years, and nothing in them is vouched for.
 */
import { z } from 'zod';
import type { KeptBuild } from '../../domain/kept-build.ts';
import { isTaskId } from '../../domain/task.ts';
import { parsePythonJson } from '../../json.ts';
import { anyList } from '../../lists.ts';
import { boundedProperties, MAX_PROPERTIES } from '../properties.ts';

/** What the routing keys of the events end in that are about builds. */
export const EVENTS = ['started', 'finished', 'log_uploaded'] as const;
export type EventKind = (typeof EVENTS)[number];

export type ParsedEvent =
  | {
      readonly kind: 'event';
      readonly event: EventKind;
      /** Build requests; a merged build has several, of which at most the first hundred are told. May be empty. */
      readonly buildRequestIds: readonly number[];
      /** The property; on merged builds the last request's. */
      readonly taskId: string | null;
      /** What is to be kept for each of the requests; `started` tells nothing that lasts. */
      readonly build: Omit<KeptBuild, 'buildRequestId'> | undefined;
      /** What of it cannot be read, is too large, or leads nowhere that a browser goes, by its name. */
      readonly leftOut: readonly string[];
    }
  /** Other things that are published there: heartbeats, slaves, changes. */
  | { readonly kind: 'other' }
  | { readonly kind: 'malformed'; readonly reason: string };

const MAX_BYTES = 4_000_000;
/** The source of what is added once a log is uploaded: the script that does it. */
const UPLOADER = 'postrun.py';
/** More are not told by masters, either. */
export const MAX_REQUEST_IDS = 100;
const MAX_URL = 2000;
/** Buildbot's ids and numbers go no further: what does is nobody's. */
const MAX_INT = 2 ** 31 - 1;
/** The furthest time that a date can be; what is beyond is none, and no database takes it. */
const MAX_TIME = 8.64e15;

// Without a parser for each: whose build it is, is not known yet, and an error of a parser's takes long to make.
const triples = anyList.transform((given) => {
  const readable = given.slice(0, MAX_PROPERTIES).filter(isTriple);
  return { readable, isWhole: readable.length === given.length };
});
const body = z.object({
  payload: z.object({
    build: z.object({
      number: z.int().min(0).max(MAX_INT),
      slave: z.string().nullish(),
      times: anyList.default([]),
      properties: triples.default({ readable: [], isWhole: true }),
    }),
    request_ids: z.unknown().optional(),
  }),
  _meta: z.object({ master_name: z.string().nullish() }).nullish(),
});

/** Name, value and source. */
type Triple = readonly [string, unknown, unknown];

function isTriple(given: unknown): given is Triple {
  return Array.isArray(given) && given.length === 3 && typeof given[0] === 'string';
}

/** Never throws. @param routingKey `build.<directory>.<number>.<event>`; a directory may have dots in it */
export function parseEvent(routingKey: string, content: Buffer): ParsedEvent {
  const last = routingKey.split('.').at(-1);
  const event = EVENTS.find((known) => known === last);
  if (!routingKey.startsWith('build.') || event === undefined) {
    return { kind: 'other' };
  }
  if (content.length > MAX_BYTES) {
    return { kind: 'malformed', reason: `${content.length} bytes are too many` };
  }
  let value: unknown;
  try {
    value = parsePythonJson(content.toString('utf8'));
  } catch {
    return { kind: 'malformed', reason: 'not JSON' };
  }
  const parsed = body.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return { kind: 'malformed', reason: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}` };
  }
  const { build, request_ids: told } = parsed.data.payload;
  const all = valuesOf(build.properties.readable);
  const taskId = all.get('taskId');
  // A build's own properties of these names, such as a task asks for, tell of no upload.
  const added = build.properties.readable.filter(([, , source]) => event === 'log_uploaded' && source === UPLOADER);
  const values = valuesOf(added);
  const ids = event === 'log_uploaded' ? values.get('request_ids') : told;
  const buildRequestIds = idsOf(ids);
  const bounded = event === 'started' ? undefined : boundedProperties(build.properties.readable);
  const kept = bounded && keptOf(parsed.data, event, bounded.properties, values.get('log_url'));
  return {
    kind: 'event',
    event,
    buildRequestIds,
    // What else stands in the property is no task's.
    taskId: typeof taskId === 'string' && isTaskId(taskId) ? taskId : null,
    build: kept,
    leftOut: [
      ...(build.properties.isWhole ? [] : ['properties']),
      ...(Array.isArray(ids) && buildRequestIds.length < ids.length ? ['request_ids'] : []),
      ...(bounded?.leftOut ?? []),
      // Also of an upload by another script: whoever runs the bridge wonders where the log is.
      ...(kept?.isFinal && kept.logUrl === null && isMeant(all.get('log_url')) ? ['log_url'] : []),
    ],
  };
}

function valuesOf(properties: readonly Triple[]): ReadonlyMap<string, unknown> {
  return new Map(properties.map(([name, given]) => [name, given]));
}

function keptOf(
  { payload: { build }, _meta }: z.infer<typeof body>,
  event: EventKind,
  properties: KeptBuild['properties'],
  logUrl: unknown,
): Omit<KeptBuild, 'buildRequestId'> {
  return {
    number: build.number,
    master: (_meta?.master_name ?? '').slice(0, 255),
    startedAt: timeOf(build.times[0]) ?? 0,
    isFinal: event === 'log_uploaded',
    properties,
    logUrl: logUrlOf(logUrl),
    worker: build.slave?.slice(0, 255) ?? null,
  };
}

function idsOf(given: unknown): readonly number[] {
  return Array.isArray(given)
    ? given.filter((id) => Number.isInteger(id) && id > 0 && id <= MAX_INT).slice(0, MAX_REQUEST_IDS)
    : [];
}

/**
 * `2017-06-01T10:02:11+0000`, which JavaScript does not read; or Unix seconds, as older masters wrote. Without an offset
 * it is UTC, as all that masters publish, and not the time of the zone that this machine is in.
 */
function timeOf(given: unknown): number | undefined {
  const text = typeof given === 'string' ? given.slice(0, 100) : '';
  const whole = text.replace(/([+-]\d\d)(\d\d)$/, '$1:$2').replace(/(\d[T ]\d\d:[\d:.]+)$/, '$1Z');
  const time = typeof given === 'number' ? Math.round(given * 1000) : Date.parse(whole);
  return Math.abs(time) <= MAX_TIME ? time : undefined;
}

/** The upload writes the text "null" when it got no URL. */
function isMeant(logUrl: unknown): boolean {
  return logUrl !== undefined && logUrl !== null && logUrl !== 'null' && logUrl !== '';
}

/** People are sent only where a browser goes. */
function logUrlOf(given: unknown): string | null {
  if (typeof given !== 'string' || given.length > MAX_URL || !URL.canParse(given)) {
    return null;
  }
  const url = new URL(given);
  return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : null;
}
