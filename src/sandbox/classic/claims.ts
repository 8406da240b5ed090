/** Who builds a request: the part of the scheduler database in which the two schemas differ. */
import type { Knex } from 'knex';
import type { SchemaKind } from './options.ts';
import type { PendingRow } from './requests.ts';

/** Of A, a claim that was not refreshed for so long is anybody's; seconds. */
const STALE_AFTER = 3600;
const COLUMNS = ['br.id', 'br.buildsetid', 'br.buildername', 'br.submitted_at'] as const;

/** Who claims. The incarnation is a new one each time the master starts. */
export interface Claimant {
  readonly masterName: string;
  readonly incarnation: string;
}

export interface Claims {
  /** What the master may claim, in the order in which it would. */
  pending(builders: readonly string[], claimant: Claimant): Promise<readonly PendingRow[]>;
  /** All or none; false where another master was faster. */
  take(brids: readonly number[], claimant: Claimant): Promise<boolean>;
  /** Of B only its own. */
  giveBack(brids: readonly number[], claimant: Claimant): Promise<void>;
  refresh(brids: readonly number[], claimant: Claimant): Promise<void>;
  /** What the web status does to the claim of a pending request that it cancels; false: too late. */
  takeToCancel(brid: number, claimant: Claimant): Promise<boolean>;
}

export function createClaims(db: Knex, kind: SchemaKind, now: () => number): Claims {
  return kind === 'A' ? createColumns(db, now) : createClaimRows(db, now);
}

/** A: three columns of the request itself, written without a look at what they were. */
function createColumns(db: Knex, now: () => number): Claims {
  const requests = (brids: readonly number[]) => db('buildrequests').whereIn('id', brids);
  const isUnclaimed = (query: Knex.QueryBuilder, { masterName, incarnation }: Claimant) =>
    query
      .where('br.claimed_at', '<', now() - STALE_AFTER)
      .orWhere((own) => own.where('br.claimed_by_name', masterName).whereNot('br.claimed_by_incarnation', incarnation));
  return {
    pending: (builders, claimant) =>
      db('buildrequests AS br')
        .join('buildsets AS bs', 'bs.id', 'br.buildsetid')
        .whereIn('br.buildername', builders)
        .where('br.complete', 0)
        .where((query) => void isUnclaimed(query, claimant))
        .orderBy([{ column: 'br.priority', order: 'desc' }, { column: 'bs.submitted_at' }, { column: 'br.id' }])
        .select(...COLUMNS),
    async take(brids, { masterName, incarnation }) {
      await requests(brids).update({
        claimed_at: now(),
        claimed_by_name: masterName,
        claimed_by_incarnation: incarnation,
      });
      return true;
    },
    async giveBack(brids) {
      await requests(brids).update({ claimed_at: 0, claimed_by_name: null, claimed_by_incarnation: null });
    },
    async refresh(brids, { masterName, incarnation }) {
      await requests(brids)
        .where({ claimed_by_name: masterName, claimed_by_incarnation: incarnation })
        .update({ claimed_at: now() });
    },
    async takeToCancel(brid) {
      const row = await requests([brid]).where({ complete: 0, claimed_at: 0 }).first('id');
      return row !== undefined;
    },
  };
}

/** B: a row of another table, whose unique key says who was first. */
function createClaimRows(db: Knex, now: () => number): Claims {
  const ids = new Map<string, number>();

  async function objectId({ masterName }: Claimant): Promise<number> {
    const row = { name: masterName, class_name: 'buildbot.master.BuildMaster' };
    const known = ids.get(masterName) ?? (await db('objects').where(row).first<{ id: number } | undefined>('id'))?.id;
    const id = known ?? (await db('objects').insert(row))[0] ?? 0;
    ids.set(masterName, id);
    return id;
  }

  async function insert(brids: readonly number[], claimant: Claimant): Promise<boolean> {
    const objectid = await objectId(claimant);
    try {
      await db.transaction((trx) =>
        trx('buildrequest_claims').insert(brids.map((brid) => ({ brid, objectid, claimed_at: now() }))),
      );
      return true;
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ER_DUP_ENTRY') {
        return false;
      }
      throw error;
    }
  }

  return {
    pending: (builders) =>
      db('buildrequests AS br')
        .leftJoin('buildrequest_claims AS c', 'c.brid', 'br.id')
        .whereIn('br.buildername', builders)
        .where('br.complete', 0)
        .whereNull('c.brid')
        // Whatever their priority: the stock chooser does not look at it.
        .orderBy([{ column: 'br.submitted_at' }, { column: 'br.id' }])
        .select(...COLUMNS),
    take: insert,
    async giveBack(brids, claimant) {
      const objectid = await objectId(claimant);
      await db('buildrequest_claims').whereIn('brid', brids).where({ objectid }).delete();
    },
    async refresh(brids, claimant) {
      const objectid = await objectId(claimant);
      await db('buildrequest_claims').whereIn('brid', brids).where({ objectid }).update({ claimed_at: now() });
    },
    async takeToCancel(brid, claimant) {
      const row = await db('buildrequests').where({ id: brid, complete: 0 }).first('id');
      return row !== undefined && (await insert([brid], claimant));
    },
  };
}
