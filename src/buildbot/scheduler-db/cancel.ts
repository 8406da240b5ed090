/**
 * Cancels build requests and stops builds, by whatever way the site has: Self-serve, the masters' web pages, or, for a
 * request that still waits, the database itself. None of them says whether it worked; the database does, later.
 */
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { RequestView } from '../../domain/build.ts';
import { LegacyCiError } from '../../errors.ts';
import type { CancelAnswer } from '../../ports.ts';
import { isUniqueViolation } from '../../sql.ts';
import { type SchedulerDb, unavailable } from './database.ts';
import type { Masters } from './masters.ts';
import { databaseNow, isSameStart, type OwnedBuild, readRows, readSiblings, throwIfBad } from './rows.ts';
import type { Schema } from './schema.ts';
import { type SelfServe, shortBranch } from './self-serve.ts';
import { openBuild, type RequestRow } from './view.ts';

export interface CancellerOptions {
  readonly database: SchedulerDb;
  readonly schema: () => Promise<Schema>;
  readonly selfServe: SelfServe | undefined;
  readonly masters: Masters;
  readonly log: Logger | undefined;
}

const ASKED: CancelAnswer = { kind: 'asked' };
/** What masters write for a request that is cancelled while it waits. */
const FAILURE = 2;
/** The bridge, among the masters that claim requests. */
const CLAIMANT = { name: 'buildbot-bridge', class_name: 'buildbot.master.BuildMaster' };

/**
 * @returns asks for a cancel; `why` is for the page of a build that a master stops
 * @throws (what is returned) LegacyCiError: `legacy-ci-unavailable` also where a build is about to start or serves others
 */
export function createCanceller(options: CancellerOptions): (view: RequestView, why: string) => Promise<CancelAnswer> {
  const { database, selfServe, masters, log } = options;

  return async (view, why) => {
    const schema = await options.schema();
    const rows = await readRows(database, schema, [view.buildRequestId]);
    throwIfBad(rows.bad, view.buildRequestId);
    const request = rows.requests.get(view.buildRequestId);
    // What nobody has is not being built: an open row is of a build that did not start then.
    const open = request?.claimedAt == null ? undefined : openBuild(rows.builds.get(view.buildRequestId));
    if (request === undefined || (request.isComplete && open === undefined)) {
      return ASKED;
    }
    if (open !== undefined) {
      await checkShared(view, { ...open, builder: request.builder, claimedBy: request.claimedBy });
    }
    if (selfServe) {
      return cancelThroughSelfServe(selfServe, request);
    }
    const master = masters.of(request.claimedBy);
    if (open !== undefined) {
      if (master === undefined) {
        return impossible(cannotStop(request, masters));
      }
      const startTime = await master.startOf(request.builder, open.number);
      if (startTime !== undefined && isSameStart({ startTime }, open)) {
        await master.stopBuild(request.builder, open.number, why);
        return ASKED;
      }
      // Pages come after rows, and an open row may be of a build that did not start, of which the master makes another.
      if (isSameStart({ startTime: rows.now }, { startTime: Math.max(open.startTime, request.claimedAt ?? 0) })) {
        throw unavailable('the master has no page of the build yet');
      }
      return impossible(lostBuild(open.number));
    }
    if (request.claimedAt === null && masters.all.length > 0) {
      return cancelOnPages(request, masters);
    }
    if (request.claimedAt !== null) {
      // A master is about to build it: its build can be stopped in a moment, or there will be none.
      throw unavailable('a master has claimed the build request and its build has not started');
    }
    await cancelPending(request.id, schema);
    return ASKED;
  };

  /** Whoever asked knew of the requests that the view names, and not of those that the build serves by now. */
  async function checkShared(view: RequestView, open: OwnedBuild): Promise<void> {
    const { of, bad } = await readSiblings(database, await options.schema(), [open]);
    throwIfBad(bad, open.id);
    const siblings = of.get(open.id) ?? [];
    const named = new Set(view.sharedWith);
    if (siblings.some(({ brid, finishTime }) => finishTime === null && !named.has(brid))) {
      throw unavailable('the build serves other build requests by now: they are to be looked at first');
    }
  }

  async function cancelThroughSelfServe(selfServeClient: SelfServe, request: RequestRow): Promise<CancelAnswer> {
    const branch = await branchOf(request.id);
    if (branch === null) {
      return impossible('Self-serve finds requests by their branch, and this one has none');
    }
    const answer = await selfServeClient.cancelRequest(shortBranch(branch), request.id);
    switch (answer.kind) {
      case 'queued':
        log?.info({ buildRequestId: request.id, selfServeJob: answer.jobId }, 'cancel asked of Self-serve');
        return ASKED;
      case 'not-found':
        // It was seen not to find requests that were made a moment before: asked again, with growing waits, a while long.
        log?.warn(
          { buildRequestId: request.id, branch: shortBranch(branch) },
          'Self-serve does not find a build request',
        );
        return ASKED;
      case 'unknown-branch':
        return impossible(`Self-serve does not know the branch "${shortBranch(branch)}"`);
      default:
        return answer satisfies never;
    }
  }

  async function branchOf(buildRequestId: number): Promise<string | null> {
    const { kind } = await options.schema();
    const row: { branch: string | null } | undefined = await database.run('reading a branch', (db) => {
      const requests = db('buildrequests as r')
        .join('buildsets as s', 's.id', 'r.buildsetid')
        .where('r.id', buildRequestId);
      const stamps =
        kind === 'A'
          ? requests.join('sourcestamps as t', 't.id', 's.sourcestampid')
          : requests.join('sourcestamps as t', 't.sourcestampsetid', 's.sourcestampsetid');
      return stamps.orderBy('t.id').first('t.branch as branch');
    });
    return row?.branch ?? null;
  }

  /** As a master itself cancels a request that waits; one that a master was faster to claim stays as it is. */
  function cancelPending(id: number, { kind }: Schema): Promise<void> {
    return database.run('cancelling a build request', (db) =>
      db.transaction(async (trx) => {
        const now = await databaseNow(trx);
        const done = { complete: 1, results: FAILURE, complete_at: now };
        if (kind === 'B' && !(await claim(trx, id, now))) {
          return;
        }
        const open = trx('buildrequests').where({ id, complete: 0 });
        const changed = await (kind === 'A' ? open.andWhere({ claimed_at: 0 }) : open).update(done);
        if (changed === 1) {
          const { buildsetid }: { buildsetid: number } = await trx('buildrequests').where({ id }).first('buildsetid');
          const rest: unknown = await trx('buildrequests').where({ buildsetid, complete: 0 }).first('id');
          if (rest === undefined) {
            await trx('buildsets').where({ id: buildsetid }).update(done);
          }
        }
      }),
    );
  }
}

/** @returns whether nobody else had it */
async function claim(trx: Knex.Transaction, brid: number, now: number): Promise<boolean> {
  const known: { id: number } | undefined = await trx('objects').where(CLAIMANT).first('id');
  const objectid = known?.id ?? (await trx('objects').insert(CLAIMANT))[0];
  try {
    await trx('buildrequest_claims').insert({ brid, objectid, claimed_at: now });
    return true;
  } catch (error) {
    if (isUniqueViolation(error)) {
      return false;
    }
    throw error;
  }
}

/** A request that waits is no master's: all are asked, of which those that have its builder can cancel it. */
async function cancelOnPages({ id, builder }: RequestRow, { all }: Masters): Promise<CancelAnswer> {
  const answers = await Promise.allSettled(all.map((master) => master.cancelRequest(builder, id)));
  if (answers.some((answer) => answer.status === 'fulfilled' && answer.value)) {
    return ASKED;
  }
  const failed = answers.find((answer) => answer.status === 'rejected');
  if (failed !== undefined) {
    throw failed.reason;
  }
  return impossible(`no master in legacyCi.schedulerDb.webStatus has the builder "${builder}"`);
}

function cannotStop({ claimedBy }: RequestRow, masters: Masters): string {
  return masters.all.length > 0
    ? `its build cannot be stopped: legacyCi.schedulerDb.webStatus has no master "${claimedBy}"`
    : 'its build cannot be stopped: neither selfServeUrl nor webStatus is set in legacyCi.schedulerDb';
}

/** A master gives the number of a build that it lost to the next one, and only the time of the start tells them apart. */
function lostBuild(number: number): string {
  return `its build cannot be stopped: the master has no build ${number} that started then. It was lost when its master was killed, and its claim is to be deleted by hand once it is an hour old; or it is of a master that legacyCi.schedulerDb.webStatus does not name`;
}

function impossible(why: string): CancelAnswer {
  return { kind: 'impossible', why };
}

/** @throws LegacyCiError when a sign-in fails for good, so that it is said at the start and not at the first cancel */
export async function checkSignIns(masters: Masters): Promise<void> {
  for (const master of masters.all) {
    try {
      await master.signIn();
    } catch (error) {
      if (error instanceof LegacyCiError && error.code === 'legacy-ci-forbidden') {
        throw error;
      }
      // A master that is away is no reason not to start.
    }
  }
}
