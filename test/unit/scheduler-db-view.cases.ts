/** Rows of a scheduler database, and what they say: every shape that a 0.8 was seen or read to leave. */
import type { BuildExtra, BuildRow, RequestRow, ViewInput } from '../../src/buildbot/scheduler-db/view.ts';

/** Unix seconds, when the request was made. */
export const T = 1_795_470_000;

export const aRow = (more: Partial<RequestRow> = {}): RequestRow => ({
  ...{ id: 7, builder: 'b', isComplete: false, results: null, completeAt: null },
  ...{ claimedAt: null, claimedBy: null, submittedAt: T },
  ...more,
});
export const claimed = (at: number, more: Partial<RequestRow> = {}) =>
  aRow({ claimedAt: at, claimedBy: 'bm1:/master', ...more });
export const complete = (results: number | null, at: number, more: Partial<RequestRow> = {}) =>
  aRow({ isComplete: true, results, completeAt: at, ...more });
/** A build, of that number and id. */
export const built = (id: number, start: number, finishTime: number | null = null): BuildRow => ({
  ...{ id, brid: 7, number: id, startTime: start, finishTime },
});

export interface ViewCase {
  readonly name: string;
  readonly request: RequestRow;
  readonly builds?: readonly BuildRow[];
  readonly extra?: BuildExtra;
  readonly now?: number;
  readonly more?: Partial<ViewInput>;
  /** As `shown` writes it. */
  readonly is: string;
}

const claimedAndDone = (results: number | null) => complete(results, T + 60, { claimedAt: T + 10 });
const twice = [built(1, T + 10, T + 20), built(2, T + 30, T + 60)];

export const CASES: readonly ViewCase[] = [
  { name: 'nobody has it', request: aRow(), is: 'pending' },
  { name: 'nobody has it, as a stock master writes it', request: aRow({ results: -1 }), is: 'pending' },
  { name: 'a master has claimed it', request: claimed(T + 10), is: 'pending' },
  { name: 'its build runs', request: claimed(T + 10), builds: [built(1, T + 10)], is: 'building: running' },
  {
    name: 'its build is over, and the master is about to say how',
    request: claimed(T + 10),
    builds: [built(1, T + 10, T + 60)],
    is: 'building: running',
  },
  {
    name: 'its claim was refreshed after its build ended: the master has it again',
    request: claimed(T + 70),
    builds: [built(1, T + 10, T + 60)],
    is: 'pending: RETRY',
  },
  {
    name: 'its build ended RETRY',
    request: aRow(),
    builds: [built(1, T + 10, T + 60)],
    is: 'pending: RETRY',
  },
  {
    name: 'its build did not start, and left an open row',
    request: aRow(),
    builds: [built(1, T + 10)],
    is: 'pending',
  },
  {
    name: 'it is built again after a build that did not start',
    request: claimed(T + 30),
    builds: [built(1, T + 10), built(2, T + 30)],
    is: 'building: RETRY, running',
  },
  {
    name: 'its build did not start, and it was cancelled (A)',
    request: complete(2, T + 60),
    builds: [built(1, T + 10)],
    is: 'complete CANCELLED by person: RETRY',
  },
  {
    name: 'its build did not start, and it was cancelled (B)',
    request: complete(2, T + 61, { claimedAt: T + 60 }),
    builds: [built(1, T + 10)],
    now: T + 121,
    is: 'complete CANCELLED by person: RETRY',
  },
  {
    name: 'it is built again after a RETRY',
    request: claimed(T + 30),
    builds: [built(1, T + 10, T + 20), built(2, T + 30)],
    is: 'building: RETRY, running',
  },
  {
    name: 'it is built again after its master died',
    request: claimed(T + 30),
    builds: [built(1, T + 10), built(2, T + 30)],
    is: 'building: RETRY, running',
  },
  ...(['SUCCESS', 'WARNINGS', 'FAILURE', 'SKIPPED', 'EXCEPTION', 'RETRY'] as const).map((word, code) => ({
    name: `it ended ${word}`,
    request: claimedAndDone(code),
    builds: [built(1, T + 10, T + 60)],
    is: `complete ${word}: ${word}`,
  })),
  {
    name: "it ended CANCELLED, a code of Mozilla's",
    request: claimedAndDone(6),
    builds: [built(1, T + 10, T + 60)],
    is: 'complete CANCELLED by person: CANCELLED',
  },
  ...[7, -1, 99, null].map((code) => ({
    name: `it ended ${code}, whatever that is`,
    request: claimedAndDone(code),
    builds: [built(1, T + 10, T + 60)],
    is: 'complete: unknown',
  })),
  {
    name: 'it ended well after a RETRY',
    request: claimedAndDone(0),
    builds: twice,
    is: 'complete SUCCESS: RETRY, SUCCESS',
  },
  {
    name: 'it ended EXCEPTION, and its page says that somebody stopped it',
    request: claimedAndDone(4),
    builds: [built(1, T + 10, T + 60)],
    extra: { wasStopped: true },
    is: 'complete CANCELLED by person: CANCELLED',
  },
  {
    name: 'it ended EXCEPTION, and its page, that says whether somebody stopped it, may still come',
    request: claimedAndDone(4),
    builds: [built(1, T + 10, T + 60)],
    extra: { mayBeStopped: true },
    is: 'complete EXCEPTION, settling: EXCEPTION',
  },
  { name: 'it was cancelled while it waited (A)', request: complete(2, T + 60), is: 'complete CANCELLED by person' },
  {
    name: 'it was cancelled while it waited (B)',
    request: complete(2, T + 60, { claimedAt: T + 60 }),
    is: 'complete CANCELLED by person',
  },
  {
    name: 'it was cancelled while it waited, with any other code',
    request: complete(-1, T + 60),
    is: 'complete CANCELLED by person',
  },
  {
    name: 'it was cancelled while it waited after a RETRY (A)',
    request: complete(2, T + 60),
    builds: [built(1, T + 10, T + 20)],
    is: 'complete CANCELLED by person: RETRY',
  },
  {
    name: 'it was cancelled while it waited after a RETRY (B)',
    request: complete(2, T + 60, { claimedAt: T + 60 }),
    builds: [built(1, T + 10, T + 20)],
    is: 'complete CANCELLED by person: RETRY',
  },
  {
    name: 'it failed after a RETRY',
    request: complete(2, T + 60, { claimedAt: T + 30 }),
    builds: twice,
    is: 'complete FAILURE: RETRY, FAILURE',
  },
  {
    name: 'it failed within a second of its claim',
    request: complete(2, T + 10, { claimedAt: T + 10 }),
    builds: [built(1, T + 10, T + 10)],
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'the same, and its master took until the next second to say so',
    request: complete(2, T + 11, { claimedAt: T + 10 }),
    builds: [built(1, T + 10, T + 10)],
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'it failed in the second in which its claim was refreshed',
    request: complete(2, T + 611, { claimedAt: T + 610 }),
    builds: [built(1, T + 10, T + 610)],
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'it was cancelled in the moment in which a master claimed it: the build goes on',
    request: complete(2, T + 10, { claimedAt: T + 10 }),
    builds: [built(1, T + 10)],
    now: T + 600,
    more: { schema: 'A' },
    is: 'building: running',
  },
  {
    name: 'the same, some minutes later',
    request: complete(2, T + 10, { claimedAt: T + 610 }),
    builds: [built(1, T + 11)],
    now: T + 700,
    more: { schema: 'A' },
    is: 'building: running',
  },
  {
    name: 'the same, and its master has died since',
    request: complete(2, T + 10, { claimedAt: T + 10 }),
    builds: [built(1, T + 10)],
    now: T + 3700,
    more: { schema: 'A' },
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'it failed, and the end of its build is not written (B)',
    request: claimedAndDone(2),
    builds: [built(1, T + 10)],
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'the same within the second of its claim',
    request: complete(2, T + 10, { claimedAt: T + 10 }),
    builds: [built(1, T + 10)],
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'the same long after its claim was refreshed',
    request: complete(2, T + 700, { claimedAt: T + 610 }),
    builds: [built(1, T + 10)],
    now: T + 701,
    is: 'complete FAILURE: FAILURE',
  },
  {
    name: 'the same in the second in which its claim was refreshed: its end may be about to be written',
    request: complete(2, T + 611, { claimedAt: T + 610 }),
    builds: [built(1, T + 10)],
    now: T + 612,
    is: 'complete FAILURE, settling: FAILURE',
  },
  {
    name: 'it ended well, and the end of its build is not written (B)',
    request: claimedAndDone(0),
    builds: [built(1, T + 10)],
    is: 'complete SUCCESS: SUCCESS',
  },
  {
    name: 'messages are still waited for',
    request: claimedAndDone(0),
    builds: [built(1, T + 10, T + 60)],
    more: { outcomeWait: 600 },
    is: 'complete SUCCESS, settling: SUCCESS',
  },
  {
    name: 'messages are no longer waited for',
    request: claimedAndDone(0),
    builds: [built(1, T + 10, T + 60)],
    now: T + 660,
    more: { outcomeWait: 600 },
    is: 'complete SUCCESS: SUCCESS',
  },
  {
    name: 'the last message has come',
    request: claimedAndDone(0),
    builds: [built(1, T + 10, T + 60)],
    extra: { isFinal: true },
    more: { outcomeWait: 600 },
    is: 'complete SUCCESS: SUCCESS',
  },
  {
    name: 'nothing more comes, and the master is ahead of the database by an hour',
    request: complete(0, T + 3660, { claimedAt: T + 3610 }),
    builds: [built(1, T + 3610, T + 3660)],
    now: T + 61,
    is: 'complete SUCCESS: SUCCESS',
  },
  {
    name: 'nothing is waited for where it was cancelled before it started',
    request: complete(2, T + 60),
    more: { outcomeWait: 600 },
    is: 'complete CANCELLED by person',
  },
];
