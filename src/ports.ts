/**
 * What the core needs of the world, and nothing more. The adapters are in `taskcluster/`, `buildbot/`, `db/` and
 * `listeners/`; `bridge.ts` puts them together. All times and durations are milliseconds; times are UTC.
 */
import type { Readable } from 'node:stream';
import type { RequestView } from './domain/build.ts';
import type { FoundNote, KeptBuild } from './domain/kept-build.ts';
import type {
  AdoptedMapping,
  Instance,
  Listed,
  ListWish,
  Mapping,
  MappingChanges,
  NewMapping,
  OpenState,
  TraceEvent,
} from './domain/mapping.ts';
import type { ExceptionReason, Priority, TaskDefinition, TaskStatus } from './domain/task.ts';
import type { BridgeError } from './errors.ts';

/** What was seen of a foreign record. `unreadable` is never treated as `absent`. */
export type Seen<T> =
  | { readonly kind: 'present'; readonly value: T }
  | { readonly kind: 'absent' }
  | { readonly kind: 'unreadable'; readonly error: BridgeError };

/** Time, so that tests can own it. */
export interface Clock {
  /** For what is written, or compared with others' times. It may be set. */
  now(): number;
  /** Since any moment, for how long something takes within this process: it is never set. */
  uptime(): number;
  /** Resolves after `ms`, or at once when `signal` aborts. Never rejects. Does not keep the process alive by itself. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** How a run ends: `reportCompleted`, `reportFailed` or `reportException` in the queue's words. */
export type Resolution =
  | { readonly state: 'completed' }
  | { readonly state: 'failed' }
  | { readonly state: 'exception'; readonly reason: ExceptionReason };

/** An artifact of a run. `expires` is never past the task's own. */
export type Artifact = { readonly name: string; readonly expires: number } & (
  | { readonly kind: 'content'; readonly contentType: string; readonly content: string | Buffer }
  /** A file on disk, streamed. */
  | { readonly kind: 'file'; readonly contentType: string; readonly path: string; readonly size: number }
  /** A redirect to an http(s) URL. */
  | { readonly kind: 'redirect'; readonly contentType: string; readonly url: string }
  /** Another name for an artifact of the same run. */
  | { readonly kind: 'link'; readonly contentType: string; readonly target: string }
  /** Says why there is nothing: `file-missing-on-worker`, `invalid-resource-on-worker` or `too-large-file-on-worker`. */
  | { readonly kind: 'error'; readonly reason: string; readonly message: string }
);

/** The Taskcluster queue (and the one call to auth). Every method throws `QueueError`, except where it says otherwise. */
export interface TaskQueue {
  readonly taskQueueId: string;
  readonly workerGroup: string;
  readonly workerId: string;
  /** Does not throw: what cannot be read is `unreadable`. */
  status(taskId: string): Promise<Seen<TaskStatus>>;
  /** Many at once, in as few calls as possible. Has an entry for every id asked for. Does not throw. */
  statuses(taskIds: readonly string[]): Promise<ReadonlyMap<string, Seen<TaskStatus>>>;
  /** Does not throw. */
  task(taskId: string): Promise<Seen<TaskDefinition>>;
  /** Claims a pending run; claiming one's own running run again is fine. */
  claim(taskId: string, runId: number): Promise<TaskStatus>;
  /** Keeps a claim alive; answers the new `takenUntil`. */
  reclaim(taskId: string, runId: number): Promise<{ readonly takenUntil: number }>;
  /** Resolves a running run; repeating the same resolution is fine. */
  resolve(taskId: string, runId: number, resolution: Resolution): Promise<TaskStatus>;
  cancelTask(taskId: string): Promise<TaskStatus>;
  rerunTask(taskId: string): Promise<TaskStatus>;
  /** @param signal ends it: what was not put by then is not there, though its name may be */
  putArtifact(taskId: string, runId: number, artifact: Artifact, signal?: AbortSignal): Promise<void>;
  /** The ids of tasks that are pending in this task queue, a page at a time. */
  listPending(): AsyncIterable<readonly string[]>;
  /** The ids of tasks claimed by this worker in this task queue, a page at a time. */
  listClaimed(): AsyncIterable<readonly string[]>;
  /**
   * Expands `assume:` scopes through auth.
   * @param options.isFresh auth is asked now; else an answer of a few minutes ago may do
   */
  expandScopes(scopes: readonly string[], options?: { readonly isFresh?: boolean }): Promise<readonly string[]>;
}

/** What is asked of the legacy CI: one build of one builder. */
export interface BuildSpec {
  readonly taskId: string;
  readonly runId: number;
  readonly externalId: string;
  /** When the run became pending. */
  readonly scheduled: number;
  readonly priority: Priority;
  readonly builder: string;
  readonly branch: string | null;
  readonly revision: string | null;
  readonly repository: string | null;
  readonly project: string | null;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** Something a task's author has to change, or an operator, in words for the task's log. */
export interface Problem {
  /** Where: a path in the task definition such as `payload.properties.locale`. */
  readonly where: string;
  readonly what: string;
  /** How to mend it. */
  readonly mend: string;
}

/** What a finished request leaves behind. */
export interface Outcome {
  /** `{name: [value, source]}` of the last build, as Buildbot has it; empty where there was no build. */
  readonly properties: Readonly<Record<string, readonly [unknown, string]>>;
  readonly log:
    | { readonly kind: 'stream'; open(): Promise<Readable> }
    /** Only a URL is known. */
    | { readonly kind: 'url'; readonly url: string }
    | { readonly kind: 'none' };
}

/** What came of asking for a cancel. */
export type CancelAnswer =
  /** It was asked for, or there was nothing left to cancel. That it took effect shows in what is read next. */
  | { readonly kind: 'asked' }
  /** There is no way to cancel this request, and asking again will not change that. */
  | { readonly kind: 'impossible'; readonly why: string };

/** A legacy CI. Methods throw `LegacyCiError` except where they say otherwise. */
export interface LegacyCi {
  /** Run once at start: throws a `ConfigError` that says what to add or change in the legacy CI's own configuration. */
  check(): Promise<void>;
  /** Names of the builders a task may ask for; cached for a while, but read again where `wanted` is not among them. */
  builders(wanted: string): Promise<ReadonlySet<string>>;
  /** What of a request this legacy CI could not carry, such as a property that nothing declares. Empty: all of it. */
  problems(spec: BuildSpec): Promise<readonly Problem[]>;
  /** Two unclaimed requests of the same key may collapse; null where they cannot. */
  collapseKey(spec: BuildSpec): string | null;
  /** Makes the build request and answers its id. An unavailable legacy CI may have made it all the same. */
  submit(spec: BuildSpec): Promise<number>;
  /**
   * Looks for the request of a submission whose id was never learnt; of several one that was not collapsed into another,
   * and of those the first. Does not throw.
   */
  findByExternalId(spec: {
    readonly taskId: string;
    readonly externalId: string;
    readonly deadline: number;
  }): Promise<Seen<RequestView>>;
  /** Many at once, in as few calls as possible. Has an entry for every id asked for. Does not throw. */
  readMany(buildRequestIds: readonly number[]): Promise<ReadonlyMap<number, Seen<RequestView>>>;
  /**
   * Asks for a pending request to be cancelled or its running build to be stopped; cancelling twice is fine. A build
   * that by now serves requests which `request` does not name is left alone: they were not asked whether they want it.
   */
  cancel(request: RequestView, reason: string): Promise<CancelAnswer>;
  /** Properties and log of a complete request. */
  outcome(request: RequestView): Promise<Outcome>;
  /**
   * Says which requests something happened to, until stopped. `onHint` gets request ids (also of requests that are
   * not the bridge's); `onGap` is called whenever hints may have been missed, such as after a reconnection.
   */
  watch(listener: { onHint(buildRequestId: number): void; onGap(): void }): Promise<{ stop(): Promise<void> }>;
  close(): Promise<void>;
}

/** The outcome of an insert or a compare-and-set. */
export type Stored =
  | { readonly kind: 'stored'; readonly mapping: Mapping }
  /** Somebody else moved it, or (insert) the task already has an open mapping. */
  | { readonly kind: 'conflict' }
  /** Another mapping has the one place that the collapse key has for an unclaimed request. */
  | { readonly kind: 'slot-taken' };

/** The outcome of taking a lease. */
export type Leased =
  | { readonly kind: 'leased'; readonly mapping: Mapping }
  /** Another pass, here or elsewhere, has it. */
  | { readonly kind: 'busy' }
  | { readonly kind: 'none' };

/** For how long mappings are left alone, and what is wrong with them. */
export interface Rest {
  readonly nextCheckAt: number;
  readonly lastError: string | null;
}

/** What an operator wants to know of all open mappings. */
export interface Overview {
  readonly byState: Readonly<Record<OpenState, number>>;
  /** How many fail again and again: at least `FAILING_ATTEMPTS` passes in a row. */
  readonly failing: number;
  /** The `takenUntil` of the claim that ends first; null while nothing is claimed. */
  readonly nearestTakenUntil: number | null;
}

/** From now on, in milliseconds. */
export interface LongestTimes {
  readonly leaseMs: number;
  /** Until the next look, whatever it is that is waited for. */
  readonly waitMs: number;
  /** That a submission without an answer has to take effect; what waits for longer than `waitMs` is given this time anew. */
  readonly graceMs: number;
}

/** Up to how many mappings that are due are to be leased. */
export interface DueWish {
  readonly owner: string;
  readonly leaseUntil: number;
  readonly now: number;
  /** What becomes due later is left alone; `now` unless given, and not after that. */
  readonly dueBy?: number;
  readonly limit: number;
}

/** The mapping database. Every method throws `StoreError`. */
export interface MappingStore {
  /** The time by the database server's clock, UTC milliseconds: the one that all instances share. */
  now(): Promise<number>;
  /** Adds a mapping, leased to `owner` until `leaseUntil`. */
  insert(mapping: NewMapping, lease: { owner: string; leaseUntil: number; now: number }): Promise<Stored>;
  /** Adds, in one statement, a mapping that was taken over from another bridge: leased to nobody, and due now. */
  adopt(mapping: AdoptedMapping, now: number): Promise<Stored>;
  /** Takes the lease of the task's open mapping, if it has one and nobody else holds it. */
  lease(taskId: string, lease: { owner: string; leaseUntil: number; now: number }): Promise<Leased>;
  /**
   * Takes the leases of mappings that are due (`nextCheckAt` reached, not leased), in a fixed number of statements: first
   * claims that are to be renewed, the one that ends soonest first, then whatever has waited longest. Where others are
   * quicker, it chooses anew a few times.
   * @returns none where none is due, or others have them all
   */
  leaseDue(wish: DueWish): Promise<readonly Mapping[]>;
  /** Compare-and-set on the mapping's version. The lease stays. */
  update(mapping: Mapping, changes: MappingChanges, now: number): Promise<Stored>;
  /** The same, and lets the lease go. */
  release(mapping: Mapping, changes: MappingChanges, now: number): Promise<Stored>;
  /** Keeps the lease for longer, during work that takes a while. */
  renewLease(mapping: Mapping, leaseUntil: number, now: number): Promise<Stored>;
  /**
   * Lets go of many mappings at which nothing was found to do, in a fixed number of statements a batch.
   * @param changes.lastError why nothing could be found out about them; null: all is well, and they count as such. What
   *   a refused task's author is to read stays.
   */
  releaseMany(mappings: readonly Mapping[], changes: Rest, now: number): Promise<void>;
  /** Keeps leases for longer, where they still are whoever's who has taken these; the mappings' versions stay. */
  keepLeased(mappings: readonly Mapping[], leaseUntil: number): Promise<void>;
  /** Lets leases go at once, and leaves all else as it is: nobody has come to look at these mappings. */
  giveBack(mappings: readonly Mapping[]): Promise<void>;
  /** The open mapping of a task. */
  openMapping(taskId: string): Promise<Mapping | undefined>;
  /** The ids of tasks whose open mappings have one of these build requests. */
  tasksOfRequests(buildRequestIds: readonly number[]): Promise<readonly string[]>;
  /** Which of these build requests have an open mapping. */
  ownAmong(buildRequestIds: readonly number[]): Promise<ReadonlySet<number>>;
  /** The build requests of all open mappings. */
  openRequests(): Promise<readonly number[]>;
  /** Which of these build requests have an open mapping that is cancelling: nobody wants them any more. */
  unwantedAmong(buildRequestIds: readonly number[]): Promise<ReadonlySet<number>>;
  /** Which of these tasks have an open mapping. */
  openAmong(taskIds: readonly string[]): Promise<ReadonlySet<string>>;
  /** Makes open mappings due now, but for those that wait out a submission or a cancel: hints may have been missed. */
  makeAllDue(now: number): Promise<number>;
  /**
   * Lets nothing last longer than it can, be it a lease or the wait for a submission or a cancel: who wrote it went by
   * a time that the database's clock showed before it was set back. Goes by that clock.
   * @returns how many open mappings were mended
   */
  mendTimes(most: LongestTimes): Promise<number>;
  /** Whether another mapping of this collapse key has (or may have) a request that nothing has claimed yet. */
  hasUnclaimed(collapseKey: string, exceptId: number | null): Promise<boolean>;
  /** The held mapping that goes next (`byTurn`). */
  nextHeld(collapseKey: string): Promise<string | undefined>;
  /** Mappings of a task, newest first. */
  mappingsOf(taskId: string): Promise<readonly Mapping[]>;
  /**
   * For people: a task's mappings, newest first; or open ones, those that fail first, and of these the one that failed
   * most often. A row that cannot be read does not keep the others from being listed.
   */
  list(wish: ListWish): Promise<readonly Listed[]>;
  /** The open mappings in figures, in one statement. */
  overview(): Promise<Overview>;
  addEvents(events: readonly TraceEvent[]): Promise<void>;
  /** In the order in which they were written; with a `limit` only the last ones. */
  eventsOf(taskId: string, limit?: number): Promise<readonly TraceEvent[]>;
  /**
   * For people: of each task that could not be admitted after `since`, and has had no mapping after that, what was said
   * last; the newest first.
   */
  notAdmitted(since: number, limit: number): Promise<readonly TraceEvent[]>;
  heartbeat(instance: Instance): Promise<void>;
  instances(): Promise<readonly Instance[]>;
  /**
   * Removes up to `limit` closed mappings (with their events) resolved before `before`, instances not heard of since,
   * and events from before then of tasks without a mapping; answers how many mappings.
   */
  prune(before: number, limit: number): Promise<number>;
  close(): Promise<void>;
}

/** Where what only messages tell of builds is kept: the mapping database. Every method throws `StoreError`. */
export interface KeptBuilds {
  /** Adds or replaces; what is final is not replaced by what is not. */
  keep(builds: readonly KeptBuild[], now: number): Promise<void>;
  /** What there is of these requests' builds, without what each of them holds: that may be a megabyte. */
  of(buildRequestIds: readonly number[]): Promise<readonly FoundNote[]>;
  /** All of one that was found; undefined where it is gone by now, or cannot be read. */
  whole(id: number): Promise<KeptBuild | undefined>;
  /** Removes up to `limit` that were kept before then; answers how many. */
  prune(before: number, limit: number): Promise<number>;
}

/** Where what others send comes in; the names are those of the metrics. Of the first three, everything that comes is counted. */
export const MESSAGE_SOURCES = ['task-message', 'build-event', 'websocket-frame'] as const;
export const INPUT_SOURCES = [
  ...MESSAGE_SOURCES,
  'mapping-row',
  'kept-build-row',
  'queue-answer',
  'legacy-ci-answer',
  'payload',
] as const;
export type MessageSource = (typeof MESSAGE_SOURCES)[number];
export type InputSource = (typeof INPUT_SOURCES)[number];

/** Counts what comes in. Whoever rejects an input logs it as well, once and in short. */
export interface InputCounter {
  received(source: MessageSource): void;
  /** It cannot be read, or is more than is taken in. */
  rejected(source: InputSource): void;
}

/** A message as it came; nothing in it has been checked. */
export interface Message {
  readonly exchange: string;
  readonly routingKey: string;
  readonly body: Buffer;
  readonly isRedelivered: boolean;
}

/** Exchanges to listen on, and with which routing key pattern. */
export interface Binding {
  readonly exchange: string;
  readonly pattern: string;
}

/** A durable queue of messages, shared by all instances. */
export interface Subscription {
  /**
   * Delivers until stopped; reconnects by itself. A message is acknowledged when `onMessage` resolves and given back
   * when it rejects; at most `prefetch` are under way. `onGap` is called after every (re)connection.
   */
  start(): Promise<void>;
  /** Takes no new messages; resolves when those under way are done. */
  stop(): Promise<void>;
}

export interface SubscriptionOptions {
  /** The last part of the queue's name. */
  readonly name: string;
  readonly bindings: readonly Binding[];
  readonly prefetch: number;
  onMessage(message: Message): Promise<void>;
  onGap(): void;
}

/** Makes subscriptions: AMQP, or in-process for the sandbox. */
export interface Broker {
  subscribe(options: SubscriptionOptions): Subscription;
  close(): Promise<void>;
}
