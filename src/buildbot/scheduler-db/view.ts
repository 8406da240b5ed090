/**
 * What rows of the scheduler database say of a build request. Pure. Times of rows are Unix seconds by the database's
 * clock. The order in which masters write, and what they leave, was seen on a real 0.8.12 and read in the fork's code.
 */
import { type Build, RESULT_NAMES, type RequestView, type ResultName } from '../../domain/build.ts';

export interface RequestRow {
  readonly id: number;
  readonly builder: string;
  readonly isComplete: boolean;
  /** Means something only when complete. */
  readonly results: number | null;
  readonly completeAt: number | null;
  /** Null while nobody has it. Refreshed every ten minutes while it is built. */
  readonly claimedAt: number | null;
  /** `<host>:<absolute basedir>` of the master that has it. */
  readonly claimedBy: string | null;
  readonly submittedAt: number;
}

export interface BuildRow {
  readonly id: number;
  readonly brid: number;
  /** Counts per master and builder: not unique. */
  readonly number: number;
  readonly startTime: number;
  /** Null while it runs, and for ever if its master died. */
  readonly finishTime: number | null;
}

/** What is known of a build beside its row. */
export interface BuildExtra {
  readonly worker?: string;
  /** Its page. */
  readonly url?: string;
  /** Whether somebody stopped it: a stock master ends it EXCEPTION, and only its page tells. */
  readonly wasStopped?: boolean;
  /** Whether that could not be learnt yet, and may still be. */
  readonly mayBeStopped?: boolean;
  /** Whether properties and log are known as they will stay. */
  readonly isFinal?: boolean;
}

export interface ViewInput {
  readonly request: RequestRow;
  readonly schema: 'A' | 'B';
  /** Of the request, by id. */
  readonly builds: readonly BuildRow[];
  readonly extra: (build: BuildRow) => BuildExtra;
  /** Other requests that the running build serves. */
  readonly sharedWith: readonly number[];
  /** By the database's clock. */
  readonly now: number;
  /** How long after a build's end its properties and log are waited for; 0 where nothing more comes. Seconds. */
  readonly outcomeWait: number;
}

/** A claim that nobody has refreshed for so long has lost its master; masters refresh every ten minutes. */
export const STALE_CLAIM_S = 3600;

/** What is written for a request that is cancelled while it waits: FAILURE. */
const CANCELLED_WAITING = 2;
/** Who cancels a waiting request of the new schema claims it, and completes it right away. Seconds. */
const CANCEL_TAKES_S = 5;
/** By then a build's end is written, if it ever is. Seconds. */
const END_WRITTEN_S = 60;

/**
 * A request, from its rows and what is known beside them. No column alone has its state: a claim may be a dead master's,
 * an open build one that never started, and a result what is written for a request that was cancelled while it waited.
 */
export function toView(input: ViewInput): RequestView {
  const { request, builds } = input;
  const base = { buildRequestId: request.id, builder: request.builder };
  const last = builds.at(-1);
  if (last === undefined) {
    // Complete without a build: cancelled before it started, whatever code was written (0.8 writes FAILURE).
    return request.isComplete
      ? { ...base, state: 'complete', builds: [], results: 'CANCELLED', cancelledBy: 'person' }
      : { ...base, state: 'pending', builds: [] };
  }
  if (request.isComplete && wasCancelledWaiting(request, last, input.schema) && !mayEndYet(input, last)) {
    const cancelled = { results: 'CANCELLED', cancelledBy: 'person' } as const;
    return { ...base, state: 'complete', builds: lostAndRetried(builds, input), ...cancelled };
  }
  if (isBuilding(input, last)) {
    const running = { ...toBuild(last, input), isComplete: false, stateText: 'building' };
    return {
      ...base,
      state: 'building',
      builds: [...lostAndRetried(builds.slice(0, -1), input), running],
      ...(input.sharedWith.length > 0 ? { sharedWith: input.sharedWith } : {}),
    };
  }
  if (!request.isComplete) {
    // An open row of a request that nobody has is of a build that did not start, or is newer than the request's row.
    const over = last.finishTime === null ? builds.slice(0, -1) : builds;
    return { ...base, state: 'pending', builds: lostAndRetried(over, input) };
  }
  return { ...base, ...completeOf(input, last) };
}

function completeOf(input: ViewInput, last: BuildRow): Omit<RequestView, 'buildRequestId' | 'builder'> {
  const { request, builds, now, outcomeWait } = input;
  const extra = input.extra(last);
  const results: ResultName | undefined = extra.wasStopped ? 'CANCELLED' : RESULT_NAMES[request.results ?? -1];
  const ended = finished(
    { ...toBuild(last, input), completedAt: (last.finishTime ?? request.completeAt ?? now) * 1000 },
    results,
  );
  // Where nothing more comes, not even a master whose clock is ahead is waited for.
  const isAwaited = outcomeWait > 0 && !extra.isFinal && now < (request.completeAt ?? now) + outcomeWait;
  const isUnclear =
    extra.mayBeStopped === true || (wasCancelledWaiting(request, last, input.schema) && mayEndYet(input, last));
  const isSettling = isAwaited || isUnclear;
  return {
    state: 'complete',
    builds: [...lostAndRetried(builds.slice(0, -1), input), ended],
    ...(results === undefined ? {} : { results }),
    ...(results === 'CANCELLED' ? { cancelledBy: 'person' as const } : {}),
    ...(isSettling ? { isSettling } : {}),
  };
}

/** The build that can be stopped. A row that is open beside a newer one is a dead master's: its number is another's by now. */
export function openBuild(builds: readonly BuildRow[] = []): BuildRow | undefined {
  const last = builds.at(-1);
  return last?.finishTime === null ? last : undefined;
}

/**
 * Whether the newest build runs. A build that is over while the same claim stands is about to complete its request, or
 * to give it back. And a request of the old schema that was cancelled in the very moment in which a master claimed it is
 * complete while its build runs: as long as a master keeps the claim, the build is what counts. On the new one whoever
 * completes a request has claimed it, and an open row is of a build that did not start, or is over.
 */
function isBuilding({ request: { isComplete, claimedAt }, schema, now }: ViewInput, last: BuildRow): boolean {
  if (last.finishTime === null) {
    return claimedAt !== null && (!isComplete || (schema === 'A' && now - claimedAt < STALE_CLAIM_S));
  }
  return !isComplete && claimedAt !== null && claimedAt <= last.finishTime;
}

/**
 * Whether it was cancelled while it waited for another build: after a RETRY, or after one that did not start and left an
 * open row. On the old schema nobody has it then; with a claim, a cancel and the start of the open row's build have
 * crossed. On the new one whoever cancels claims it first, which cannot cross, later than the last build ended. There a
 * row may be open although its build is over: a 0.8.12 writes that beside the completion, and ignores it if it fails.
 */
function wasCancelledWaiting(request: RequestRow, last: BuildRow, schema: ViewInput['schema']): boolean {
  const { claimedAt, completeAt, results } = request;
  if (results !== CANCELLED_WAITING || claimedAt === null) {
    return results === CANCELLED_WAITING;
  }
  if (last.finishTime === null) {
    // A build's claim is older than its row, or was refreshed some time before its end.
    const tookS = (completeAt ?? claimedAt) - claimedAt;
    return schema === 'B' && claimedAt > last.startTime && tookS <= CANCEL_TAKES_S;
  }
  // Not in the same second: a quick build has been claimed in it, and a long one's claim may have been refreshed.
  return claimedAt > last.finishTime;
}

/** Whether what looks like a cancel may be the end of a build whose claim was refreshed right before: its row tells soon. */
function mayEndYet({ request: { claimedAt, completeAt }, now }: ViewInput, last: BuildRow): boolean {
  // A master whose clock is ahead is not waited for.
  return last.finishTime === null && claimedAt !== null && Math.abs(now - (completeAt ?? now)) < END_WRITTEN_S;
}

/** Builds that were not the last: each ended RETRY, or was lost with its master, which comes to the same. */
function lostAndRetried(builds: readonly BuildRow[], input: ViewInput): readonly Build[] {
  return builds.map((row, index) => {
    const end = row.finishTime ?? input.builds[index + 1]?.startTime ?? row.startTime;
    return finished({ ...toBuild(row, input), completedAt: end * 1000 }, 'RETRY');
  });
}

function finished(build: Omit<Build, 'isComplete' | 'stateText'>, results: ResultName | undefined): Build {
  const stateText = results === undefined ? 'ended with results this bridge does not know' : `ended ${results}`;
  return { ...build, ...(results === undefined ? {} : { results }), isComplete: true, stateText };
}

function toBuild(row: BuildRow, { extra }: ViewInput): Omit<Build, 'isComplete' | 'stateText'> {
  const { worker, url } = extra(row);
  return {
    buildId: row.id,
    number: row.number,
    startedAt: row.startTime * 1000,
    ...(worker === undefined ? {} : { worker }),
    ...(url === undefined ? {} : { url }),
  };
}
