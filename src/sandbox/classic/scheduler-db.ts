/** What a master writes about requests and their builds; the same in both schemas. */
import type { Knex } from 'knex';
import type { SchemaKind } from './options.ts';

const [SUCCESS, WARNINGS, FAILURE] = [0, 1, 2] as const;

/** Of A and B alike but for the columns of claims. */
export interface RequestRow {
  readonly id: number;
  readonly buildsetid: number;
  readonly buildername: string;
  readonly priority: number;
  readonly complete: number;
  readonly results: number | null;
  readonly submitted_at: number;
  readonly complete_at: number | null;
  /** 0 where nobody has claimed it. */
  readonly claimed_at: number;
  readonly claimed_by_name: string | null;
}

export interface BuildRow {
  readonly id: number;
  readonly number: number;
  readonly brid: number;
  readonly start_time: number;
  readonly finish_time: number | null;
}

export interface SchedulerDb {
  /** A build of several requests gets a row for each of them, with the same number. */
  addBuilds(number: number, brids: readonly number[]): Promise<readonly number[]>;
  countBuilds(brid: number): Promise<number>;
  finishBuilds(ids: readonly number[]): Promise<void>;
  /**
   * Completes requests, then their buildsets where nothing else of them is open. A 0.8.12 leaves all as it is where
   * one of the requests is complete by then; a 0.8.2 does not look.
   */
  complete(brids: readonly number[], results: number): Promise<void>;
  /** Of a builder, those that nobody has claimed. */
  unclaimed(builder: string): Promise<readonly number[]>;
  requests(): Promise<readonly RequestRow[]>;
  builds(): Promise<readonly BuildRow[]>;
}

export function createSchedulerDb(db: Knex, kind: SchemaKind, now: () => number): SchedulerDb {
  async function completeBuildset(id: number): Promise<void> {
    const requests = await db<RequestRow>('buildrequests').where('buildsetid', id).select('complete', 'results');
    if (requests.some(({ complete }) => complete === 0)) {
      return;
    }
    const isGood = requests.every(({ results }) => results === SUCCESS || results === WARNINGS);
    await db('buildsets')
      .where({ id })
      .update({ complete: 1, complete_at: now(), results: isGood ? SUCCESS : FAILURE });
  }

  async function completeRequests(brids: readonly number[], results: number): Promise<boolean> {
    const completed = { complete: 1, results, complete_at: now() };
    if (kind === 'A') {
      await db('buildrequests').whereIn('id', brids).update(completed);
      return true;
    }
    return db.transaction(async (trx) => {
      const open = await trx('buildrequests').whereIn('id', brids).whereNot('complete', 1).forUpdate().select('id');
      const isOpen = open.length === brids.length;
      if (isOpen) {
        await trx('buildrequests').whereIn('id', brids).update(completed);
      }
      return isOpen;
    });
  }

  return {
    async addBuilds(number, brids) {
      const ids: number[] = [];
      for (const brid of brids) {
        const [id] = await db('builds').insert({ number, brid, start_time: now(), finish_time: null });
        ids.push(id ?? 0);
      }
      return ids;
    },
    async countBuilds(brid) {
      return (await db('builds').where({ brid }).select('id')).length;
    },
    async finishBuilds(ids) {
      await db('builds').whereIn('id', ids).update({ finish_time: now() });
    },
    async complete(brids, results) {
      if (!(await completeRequests(brids, results))) {
        return;
      }
      const sets = await db<RequestRow>('buildrequests')
        .whereIn('id', brids)
        .orderBy('id')
        .distinct('buildsetid', 'id');
      for (const id of new Set(sets.map(({ buildsetid }) => buildsetid))) {
        await completeBuildset(id);
      }
    },
    async unclaimed(builder) {
      const rows = await requestRows(db, kind).where('br.buildername', builder).where('br.complete', 0);
      return rows.filter(({ claimed_at }) => claimed_at === 0).map(({ id }) => id);
    },
    requests: () => requestRows(db, kind),
    builds: () => db<BuildRow>('builds').orderBy('id').select(),
  };
}

/** Requests with their claims, whichever way the schema keeps them. */
export function requestRows(db: Knex, kind: SchemaKind): Knex.QueryBuilder<RequestRow, RequestRow[]> {
  const rows = db('buildrequests AS br').orderBy('br.id');
  return kind === 'A'
    ? rows.select('br.*')
    : rows
        .leftJoin('buildrequest_claims AS c', 'c.brid', 'br.id')
        .leftJoin('objects AS o', 'o.id', 'c.objectid')
        .select('br.*', { claimed_by_name: 'o.name' }, db.raw('COALESCE(c.claimed_at, 0) AS claimed_at'));
}
