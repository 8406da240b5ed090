/** The row that ties a run of a task to a build request: the bridge's only state. Times are UTC milliseconds. */

/**
 * - `refusing`: the task cannot be built here; its run is to be claimed and resolved `malformed-payload`.
 * - `held`: admitted, but not submitted yet, because an older pending request would be collapsed by it.
 * - `intended`: a request may exist in the legacy CI under `externalId`, or is about to.
 * - `submitted`: `buildRequestId` is known.
 * - `cancelling`: nobody wants the request any more; it is being cancelled.
 * - `closed`: history.
 */
export const OPEN_STATES = ['refusing', 'held', 'intended', 'submitted', 'cancelling'] as const;
export type OpenState = (typeof OPEN_STATES)[number];
export const MAPPING_STATES = [...OPEN_STATES, 'closed'] as const;
export type MappingState = (typeof MAPPING_STATES)[number];

/** With waits that double from a second, half a minute: what was away for a moment is back by then. */
export const FAILING_ATTEMPTS = 5;

export interface Mapping {
  readonly id: number;
  /** Grows with every change; a change is made only to the version that was read. */
  readonly version: number;
  readonly taskId: string;
  readonly runId: number;
  readonly taskGroupId: string;
  readonly builder: string;
  readonly state: MappingState;
  /**
   * What the current submission is known by in the legacy CI: `<taskId>/<runId>/<submission>`; of a request that the
   * first bridge made, `taskId:<taskId>`.
   */
  readonly externalId: string;
  /**
   * How many requests were submitted (or meant to be) for this run and those that it is a retry of, counted from 1; 0 while
   * none was. One of an older run that may still take effect counts.
   */
  readonly submissions: number;
  readonly buildRequestId: number | null;
  /** Requests with the same key can collapse one another; null where the legacy CI does not collapse. */
  readonly collapseKey: string | null;
  /** Whether this mapping holds the one place that its collapse key has for an unclaimed request. */
  readonly hasSlot: boolean;
  /** `priorityRank` of the task, which the queue lets people change; followed while the task waits for its turn. */
  readonly priority: number;
  /** How many of the request's RETRY builds a resolved run already accounts for. */
  readonly retriesReported: number;
  /** How often the bridge itself asked for a rerun. */
  readonly reruns: number;
  /** How often a cancel of the request was asked for. */
  readonly cancels: number;
  /** While the run is claimed by the bridge: when the claim ends. */
  readonly takenUntil: number | null;
  /** When that claim is to be renewed; null where it was not this bridge's doing, and then `takenUntil` has to do. */
  readonly reclaimAt: number | null;
  readonly deadline: number;
  readonly nextCheckAt: number;
  /** Since when the task, seen before, has been missing from the queue; null while it is there. */
  readonly absentSince: number | null;
  /** Since when the build request, seen before, has been missing from Buildbot; null while it is there. */
  readonly requestAbsentSince: number | null;
  readonly leaseOwner: string | null;
  readonly leaseUntil: number;
  /** Passes that failed in a row. */
  readonly attempts: number;
  readonly lastError: string | null;
  readonly created: number;
  readonly updated: number;
  readonly resolved: number | null;
  /** How it ended, in a word or two: `completed`, `failed`, `malformed-payload`, `canceled`... */
  readonly resolution: string | null;
}

/** What a new mapping starts with. */
export type NewMapping = Pick<
  Mapping,
  'taskId' | 'runId' | 'taskGroupId' | 'builder' | 'state' | 'collapseKey' | 'hasSlot' | 'priority' | 'deadline'
> & { readonly externalId: string; readonly submissions: number; readonly takenUntil: number | null };

/** What a mapping that was taken over from another bridge starts with. */
export type AdoptedMapping = NewMapping & Pick<Mapping, 'buildRequestId' | 'retriesReported'>;

/** What may change in a mapping. */
export type MappingChanges = Partial<
  Pick<
    Mapping,
    | 'runId'
    | 'state'
    | 'externalId'
    | 'submissions'
    | 'buildRequestId'
    | 'hasSlot'
    | 'priority'
    | 'retriesReported'
    | 'reruns'
    | 'cancels'
    | 'takenUntil'
    | 'reclaimAt'
    | 'nextCheckAt'
    | 'absentSince'
    | 'requestAbsentSince'
    | 'attempts'
    | 'lastError'
    | 'resolved'
    | 'resolution'
  >
>;

/**
 * The order in which those that are held have their turn: of a run that is claimed somebody waits for an end, and where
 * nothing new is to be made it comes to one only with a build; then the highest priority, then the oldest.
 */
export function byTurn(a: Mapping, b: Mapping): number {
  const isUnclaimed = ({ takenUntil }: Mapping) => Number(takenUntil === null);
  return isUnclaimed(a) - isUnclaimed(b) || b.priority - a.priority || a.created - b.created || a.id - b.id;
}

/** Which mappings an operator wants to see, and no more than `limit` of them. */
export type ListWish = { readonly limit: number } & (
  | { readonly taskId: string }
  /** Of open mappings those in this state, and those that fail, where that is wished. */
  | { readonly state: OpenState | undefined; readonly isFailing: boolean }
);

export type Listed =
  | { readonly kind: 'mapping'; readonly mapping: Mapping }
  /** A row that is not one of this version's. */
  | { readonly kind: 'unreadable'; readonly id: number; readonly taskId: string };

/** One line of a task's trace. */
export interface TraceEvent {
  readonly taskId: string;
  readonly runId: number | null;
  readonly at: number;
  readonly instance: string;
  /** The action, such as `claimRun`. */
  readonly what: string;
  /** Why, in plain words. */
  readonly detail: string;
}

/** One running bridge process. */
export interface Instance {
  readonly instance: string;
  readonly version: string;
  readonly services: readonly string[];
  readonly started: number;
  readonly heartbeat: number;
}
