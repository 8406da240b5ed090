/** Pending build requests, read as a master reads them before it builds them. */
import type { Knex } from 'knex';
import type { Properties } from '../buildbot/state.ts';
import type { SchemaKind } from './options.ts';

/** Where the sources come from. Schema A knows no codebase. */
export interface SourceStamp {
  readonly branch: string | null;
  readonly revision: string | null;
  readonly repository: string;
  readonly project: string;
  readonly codebase: string;
  readonly patchid: number | null;
}

/** A row of unclaimed work. */
export interface PendingRow {
  readonly id: number;
  readonly buildsetid: number;
  readonly buildername: string;
  readonly submitted_at: number;
}

/** A request with all that its build needs. */
export interface LoadedRequest {
  readonly brid: number;
  readonly buildsetid: number;
  readonly builder: string;
  readonly submittedAt: number;
  readonly reason: string;
  readonly stamps: readonly SourceStamp[];
  readonly properties: Properties;
}

interface BuildsetRow {
  readonly id: number;
  readonly reason: string | null;
  readonly source: number;
}

type StampRow = SourceStamp & { readonly source: number };

interface PropertyRow {
  readonly buildsetid: number;
  readonly property_name: string;
  readonly property_value: string;
}

/**
 * Reads requests; a B master reads each of them once and remembers it, so later changes of its properties go unseen.
 * @throws when one of them cannot be read: a sourcestamp is missing, or (A) a property is not JSON. Its master then
 * starts nothing on that builder, for as long as the request is there. A 0.8.12 was seen to skip such a property.
 */
export function createRequestReader(db: Knex, kind: SchemaKind) {
  const remembered = new Map<number, LoadedRequest>();

  async function load(rows: readonly PendingRow[]): Promise<readonly LoadedRequest[]> {
    const unknown = rows.filter(({ id }) => kind === 'A' || !remembered.has(id));
    const loaded = await read(unknown);
    if (kind === 'B') {
      for (const request of loaded) {
        remembered.set(request.brid, request);
      }
    }
    const byId = new Map([...remembered, ...loaded.map((request) => [request.brid, request] as const)]);
    return rows.flatMap(({ id }) => byId.get(id) ?? []);
  }

  async function read(rows: readonly PendingRow[]): Promise<readonly LoadedRequest[]> {
    if (rows.length === 0) {
      return [];
    }
    const ids = rows.map(({ buildsetid }) => buildsetid);
    const link = kind === 'A' ? 'sourcestampid' : 'sourcestampsetid';
    const buildsets = await db<BuildsetRow>('buildsets').whereIn('id', ids).select('id', 'reason', { source: link });
    const own = ['branch', 'revision', 'repository', 'project', 'patchid'];
    const stamps: readonly StampRow[] = await db('sourcestamps')
      .whereIn(
        kind === 'A' ? 'id' : 'sourcestampsetid',
        buildsets.map(({ source }) => source),
      )
      .orderBy('id')
      .select(...own, kind === 'A' ? { source: 'id' } : { source: 'sourcestampsetid' })
      .select(kind === 'A' ? db.raw("'' AS codebase") : 'codebase');
    const properties = await db<PropertyRow>('buildset_properties').whereIn('buildsetid', ids).select();
    return rows.map((row) => {
      const buildset = buildsets.find(({ id }) => id === row.buildsetid);
      const ofSet = stamps.filter(({ source }) => source === buildset?.source);
      if (ofSet.length === 0) {
        throw new Error(`build request ${row.id} has no sourcestamp`);
      }
      return {
        brid: row.id,
        buildsetid: row.buildsetid,
        builder: row.buildername,
        submittedAt: row.submitted_at,
        reason: buildset?.reason ?? '',
        stamps: ofSet.map(({ source: _, ...stamp }) => stamp),
        properties: toProperties(
          properties.filter(({ buildsetid }) => buildsetid === row.buildsetid),
          kind,
        ),
      };
    });
  }

  return { load };
}

function toProperties(rows: readonly PropertyRow[], kind: SchemaKind): Properties {
  const properties: Properties = {};
  for (const { property_name, property_value } of rows) {
    const parsed = parsePair(property_value);
    if (parsed !== undefined) {
      properties[property_name] = parsed;
    } else if (kind === 'A') {
      throw new Error(`property ${property_name} is not a pair in JSON`);
    }
  }
  return properties;
}

/** `[value, source]`, or undefined for anything else. */
export function parsePair(text: string): readonly [unknown, string] | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return Array.isArray(parsed) && parsed.length === 2 ? [parsed[0], String(parsed[1])] : undefined;
  } catch {
    return undefined;
  }
}
