/** Self-serve's agent: does, some time later, what the web application has only written down. */
import type { Knex } from 'knex';
import type { Clock } from '../../ports.ts';
import type { ClassicMaster } from './master.ts';
import type { SchemaKind } from './options.ts';
import { type RequestRow, requestRows } from './scheduler-db.ts';
import { createTurn } from './turn.ts';

/** Ways in which Self-serve was known to fail. Counters go down as they are used. */
export interface SelfServeSwitches {
  /** So many look-ups find nothing, as if the request had just been made: the web answers 404. */
  missNext: number;
  /** So many jobs are accepted, and then end with an error: a master or the Clobberer is down. */
  failNext: number;
  /** So many times the master claims the request between the agent's look at it and its UPDATE. */
  raceNext: number;
  /** Accepted jobs wait for as long as this is set. */
  isPaused: boolean;
  /** How long a job waits for the agent; milliseconds. */
  delayMs: number;
}

export interface JobResult {
  readonly errors: boolean;
  readonly msg: string;
}

export interface Job {
  readonly action: 'cancel_request' | 'cancel_build';
  readonly who: string;
  /** Of the request, or of the row in `builds`. */
  readonly id: number;
}

export interface AgentOptions {
  readonly db: Knex;
  readonly schema: SchemaKind;
  readonly clock: Clock;
  readonly master: ClassicMaster;
  readonly masterName: string;
  readonly switches: SelfServeSwitches;
  readonly now: () => number;
}

export function createAgent({ db, schema, clock, master, masterName, switches, now }: AgentOptions) {
  const stopped = new AbortController();
  const turn = createTurn();

  const requestOf = async (brid: number): Promise<RequestRow | undefined> =>
    (await requestRows(db, schema).where('br.id', brid))[0];

  async function cancelRequest(brid: number): Promise<JobResult> {
    const request = await requestOf(brid);
    if (request === undefined) {
      return { errors: true, msg: 'No request with that id' };
    }
    if (request.complete !== 0 && request.complete_at !== null) {
      return { errors: false, msg: `Request ${brid} is complete, nothing to do` };
    }
    if (request.claimed_at > 0) {
      // Of several that never ended, after a power cut, whichever comes first.
      const build = await db('builds').where({ brid }).whereNull('finish_time').first<{ number: number } | undefined>();
      return stop(request, build?.number, `Error cancelling build (request ${brid})`);
    }
    if (switches.raceNext > 0) {
      switches.raceNext -= 1;
      await master.poll();
    }
    return markCancelled(brid);
  }

  /**
   * The claim is not looked at again, and the buildset is not completed. Self-serve only ever knew schema A; on B this
   * is what a site would have if it had carried the agent over to the claims table, and nothing more.
   */
  async function markCancelled(brid: number): Promise<JobResult> {
    const changed = await db('buildrequests')
      .where({ id: brid })
      .update({ complete: 1, results: 2, complete_at: now() });
    return changed === 1
      ? { errors: false, msg: `${brid}: Ok` }
      : { errors: true, msg: `Error cancelling request ${brid}: ${changed} rows affected` };
  }

  /** By the web status of the master that has the claim now, which need not be the one that has the build. */
  async function stop(request: RequestRow, number: number | undefined, problem: string): Promise<JobResult> {
    if (number === undefined || request.claimed_by_name !== masterName || !master.find(request.buildername, number)) {
      return { errors: true, msg: problem };
    }
    await master.stopBuild(request.buildername, number);
    return { errors: false, msg: `${request.id}: Ok` };
  }

  /** Decides by the state of the request, whatever became of the build. */
  async function cancelBuild(id: number): Promise<JobResult> {
    const build = await db('builds').where({ id }).first<{ number: number; brid: number } | undefined>();
    const request = build && (await requestOf(build.brid));
    if (build === undefined || request === undefined) {
      return { errors: true, msg: 'No build with that id' };
    }
    if (request.complete !== 0) {
      return { errors: false, msg: 'Build is complete, nothing to do' };
    }
    if (request.claimed_at > 0) {
      return stop(request, build.number, `Error cancelling build ${id}`);
    }
    return { errors: true, msg: 'Build is neither running nor complete' };
  }

  async function perform({ action, id }: Job): Promise<JobResult> {
    if (switches.failNext > 0) {
      switches.failNext -= 1;
      return { errors: true, msg: `Error cancelling build (request ${id})` };
    }
    return action === 'cancel_request' ? cancelRequest(id) : cancelBuild(id);
  }

  async function wait(): Promise<void> {
    await clock.sleep(switches.delayMs, stopped.signal);
    while (switches.isPaused && !stopped.signal.aborted) {
      await clock.sleep(20, stopped.signal);
    }
  }

  return {
    /** Undefined when it is stopped before, or when the database is away: nobody hears of such a job again. */
    work: (job: Job): Promise<JobResult | undefined> =>
      turn(async () => {
        await wait();
        return stopped.signal.aborted ? undefined : perform(job);
      }).catch(() => undefined),
    stop: () => stopped.abort(),
  };
}
