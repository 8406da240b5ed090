/** What Self-serve shows of requests and builds, read from the scheduler database itself. */
import type { Knex } from 'knex';
import type { SchemaKind } from './options.ts';
import { parsePair } from './requests.ts';
import { type RequestRow, requestRows } from './scheduler-db.ts';

export type SelfServeRequest = Readonly<Record<string, unknown>> & { readonly request_id: number };

interface Details {
  readonly reason: string | null;
  readonly branch: string | null;
  readonly revision: string | null;
}

export interface SelfServeReads {
  /** Undefined where there is none, or where it is of another branch. */
  request(branch: string, brid: number): Promise<SelfServeRequest | undefined>;
  build(branch: string, buildId: number): Promise<Readonly<Record<string, unknown>> | undefined>;
}

export function createSelfServeReads(db: Knex, kind: SchemaKind): SelfServeReads {
  async function rowOf(brid: number): Promise<RequestRow | undefined> {
    return (await requestRows(db, kind).where('br.id', brid))[0];
  }

  function detailsOf({ buildsetid }: RequestRow): Promise<Details | undefined> {
    const stamps = kind === 'A' ? ['ss.id', 'bs.sourcestampid'] : ['ss.sourcestampsetid', 'bs.sourcestampsetid'];
    return db('buildsets AS bs')
      .join('sourcestamps AS ss', stamps[0] ?? '', stamps[1] ?? '')
      .where('bs.id', buildsetid)
      .orderBy('ss.id')
      .first<Details | undefined>('bs.reason', 'ss.branch', 'ss.revision');
  }

  async function propertiesOf({ buildsetid }: RequestRow): Promise<Readonly<Record<string, unknown>>> {
    const rows = await db<{ property_name: string; property_value: string }>('buildset_properties')
      .where({ buildsetid } as object)
      .select('property_name', 'property_value');
    return Object.fromEntries(
      rows.map(({ property_name, property_value }) => [property_name, parsePair(property_value)?.[0]]),
    );
  }

  async function describe(branch: string, brid: number) {
    const row = await rowOf(brid);
    const details = row && (await detailsOf(row));
    if (row === undefined || details === undefined || !isOfBranch(details.branch, branch)) {
      return undefined;
    }
    const shown = {
      request_id: row.id,
      buildername: row.buildername,
      branch: details.branch,
      revision: details.revision,
      submittime: row.submitted_at,
      complete: row.complete,
      complete_at: row.complete_at,
      priority: row.priority,
      claimed_at: row.claimed_at,
      reason: details.reason,
      properties: await propertiesOf(row),
    };
    return { row, details, shown };
  }

  return {
    async request(branch, brid) {
      const found = await describe(branch, brid);
      const builds =
        found &&
        (await db<{ id: number }>('builds')
          .where({ brid } as object)
          .orderBy('id')
          .select('id'));
      return found && { ...found.shown, build_ids: builds?.map(({ id }) => id) ?? [] };
    },
    async build(branch, buildId) {
      type Row = { id: number; number: number; brid: number; start_time: number; finish_time: number | null };
      const build = await db('builds').where({ id: buildId }).first<Row | undefined>();
      const found = build && (await describe(branch, build.brid));
      return (
        found && {
          build_id: build.id,
          requests: [found.shown],
          buildnumber: build.number,
          buildername: found.row.buildername,
          branch: found.details.branch,
          revision: found.details.revision,
          starttime: build.start_time,
          endtime: build.finish_time,
          status: found.row.results,
          claimed_by_name: found.row.claimed_by_name,
        }
      );
    },
  };
}

/** The short name has to begin or end the repository's path. */
function isOfBranch(path: string | null, branch: string): boolean {
  return path !== null && (path.startsWith(branch) || path.endsWith(branch));
}
