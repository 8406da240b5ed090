/** How a master writes down that a build is over. */
import type { Clock } from '../../ports.ts';
import type { ClassicBuild } from './builds.ts';
import type { Claimant, Claims } from './claims.ts';
import { insist, type Life } from './life.ts';
import type { SchemaKind } from './options.ts';
import type { SchedulerDb } from './scheduler-db.ts';

/** Buildbot's code of that result. */
export const RETRY = 5;

export interface EndsOptions {
  readonly clock: Clock;
  readonly intervalMs: number;
  readonly schema: SchemaKind;
  readonly claims: Claims;
  readonly db: SchedulerDb;
}

export function createEnds({ claims, db, schema, ...rhythm }: EndsOptions) {
  let losesNext = false;

  return {
    /** Of the next build that ends no row will say so; a stock master goes on all the same. */
    loseNextFinish(): void {
      losesNext = true;
    },
    /**
     * A RETRY leaves its requests open and unclaimed, anything else completes them. A 0.8.2 has written before that
     * that the build is over; a 0.8.12 begins to write both at once, on two connections.
     */
    async write({ requests, rowIds }: ClassicBuild, results: number, own: Life, claimant: Claimant): Promise<void> {
      const brids = requests.map(({ brid }) => brid);
      const finished = losesNext ? undefined : insist(own, rhythm, () => db.finishBuilds(rowIds));
      losesNext = false;
      if (schema === 'A') {
        await finished;
      }
      const told = insist(own, rhythm, () =>
        results === RETRY ? claims.giveBack(brids, claimant) : db.complete(brids, results),
      );
      await Promise.all([finished, told]);
    },
  };
}
