/**
 * Looks at every mapping that is due, in batches: a fixed number of statements and calls a batch, and a pass only for
 * those where there is something to do.
 */
import pLimit from 'p-limit';
import type { Logger } from 'pino';
import { byTurn, type Mapping } from '../domain/mapping.ts';
import { describeError } from '../errors.ts';
import type { Clock, LegacyCi, MappingStore, Rest, TaskQueue } from '../ports.ts';
import type { Action } from './actions.ts';
import type { Pass } from './apply/pass.ts';
import type { Observation } from './decide.ts';
import { readErrors } from './observe.ts';
import type { Reconciler, Seed } from './reconcile.ts';
import { nextLookAt } from './retries.ts';
import { tellUnread, unreadOf } from './unread.ts';

export interface SweepContext {
  readonly store: MappingStore;
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly clock: Clock;
  readonly log: Logger;
  readonly reconciler: Reconciler;
  readonly instance: string;
  readonly leaseMs: number;
  readonly recheckMs: number;
  readonly reclaimThresholdMs: number;
  readonly batchSize: number;
  /** Passes at once. */
  readonly concurrency: number;
}

/** What a sweep did, for the log and the gauges. */
export interface SweepReport {
  readonly due: number;
  readonly passes: number;
  readonly failed: number;
  /** Whether it took too long, and left others to the next one; of those behind a full batch it does not know. */
  readonly isCut: boolean;
}

/** Where batches are slow, as while Buildbot hangs, the rest of a round has to be done too, and claims to be seen to again. */
const LONGEST_MS = 120_000;
/** However long it took to read a batch, something is done about it: else nothing ever would be. */
const PASSES_MS = 30_000;

/** What a batch is worked on under. */
interface Turn {
  readonly lease: Pick<Pass, 'owner' | 'leaseEnd'>;
  /** When the sweep has to come to its end, by `uptime`. */
  readonly end: number;
  readonly signal: AbortSignal;
}

/**
 * Sweeps until nothing is left that was due when it began: what it lets go may be due again before it has come to the
 * others. Begins nothing more after two minutes, or when `signal` aborts, and gives back what it has not come to.
 * @throws StoreError; what fails for single tasks does not stop the others
 */
export async function sweep(context: SweepContext, signal: AbortSignal): Promise<SweepReport> {
  const { clock } = context;
  const report = { due: 0, passes: 0, failed: 0, isCut: false };
  const end = clock.uptime() + LONGEST_MS;
  let dueBy = clock.now();
  for (let batch = 1; !signal.aborted; batch += 1) {
    const now = clock.now();
    // A clock that is set back comes to the same moment again, and to what was let go until then.
    dueBy = Math.min(dueBy, now);
    const owner = `${context.instance}#sweep-${now}-${batch}`;
    const leaseUntil = now + context.leaseMs;
    const leaseEnd = clock.uptime() + context.leaseMs;
    const mappings = await context.store.leaseDue({ owner, leaseUntil, now, dueBy, limit: context.batchSize });
    if (mappings.length === 0) {
      break;
    }
    report.due += mappings.length;
    const left = await sweepBatch(mappings, { lease: { owner, leaseEnd }, end, signal }, context, report);
    if (clock.uptime() >= end) {
      report.isCut = left > 0 || mappings.length >= context.batchSize;
      break;
    }
  }
  return report;
}

/** @returns how many of them it has not come to */
async function sweepBatch(
  mappings: readonly Mapping[],
  turn: Turn,
  context: SweepContext,
  report: { passes: number; failed: number },
): Promise<number> {
  const seeds = await readLeased(mappings, context);
  const busy = await letIdleGo(mappings, seeds, context);
  const end = Math.max(turn.end, context.clock.uptime() + PASSES_MS);
  const left: Mapping[] = [];
  const limit = pLimit(context.concurrency);
  await Promise.all(
    busy.map((mapping) =>
      limit(async () => {
        if (turn.signal.aborted || context.clock.uptime() >= end) {
          left.push(mapping);
          return;
        }
        report.passes += 1;
        const result = await context.reconciler.reconcileLeased(mapping, turn.lease, seeds.get(mapping) ?? {});
        report.failed += result.kind === 'failed' || result.kind === 'store-away' ? 1 : 0;
      }),
    ),
  );
  if (left.length > 0) {
    await context.store.giveBack(left);
  }
  return left.length;
}

/**
 * Reading can take longer than a lease lasts. Another instance would take them, be no quicker, and lose them in its turn:
 * nothing would ever be done about them.
 */
async function readLeased(mappings: readonly Mapping[], context: SweepContext): Promise<ReadonlyMap<Mapping, Seed>> {
  const isRead = new AbortController();
  const keeping = keepLeased(mappings, context, isRead.signal);
  try {
    return await readAll(mappings, context);
  } finally {
    isRead.abort();
    await keeping;
  }
}

async function keepLeased(
  mappings: readonly Mapping[],
  { store, clock, leaseMs, log }: SweepContext,
  isRead: AbortSignal,
): Promise<void> {
  for (;;) {
    await clock.sleep(leaseMs / 3, isRead);
    if (isRead.aborted) {
      return;
    }
    try {
      await store.keepLeased(mappings, clock.now() + leaseMs);
    } catch (err) {
      // Whoever lets go of them next meets the same, and says so.
      log.debug({ err }, 'leases were not kept while a sweep reads');
    }
  }
}

/** @returns those where there is something to do, in the same order */
async function letIdleGo(
  mappings: readonly Mapping[],
  seeds: ReadonlyMap<Mapping, Seed>,
  context: SweepContext,
): Promise<readonly Mapping[]> {
  const idle = new Map<string, { readonly rest: Rest; readonly mappings: Mapping[] }>();
  const busy: Mapping[] = [];
  const firstHeld = firstOfEachKey(mappings);
  const now = context.clock.now();
  for (const mapping of mappings) {
    const seed = seeds.get(mapping) ?? {};
    const actions = context.reconciler.preview(mapping, seed);
    const nextCheckAt = restUntil(mapping, actions, firstHeld, nextLookAt(mapping, context, now));
    if (nextCheckAt === undefined) {
      busy.push(mapping);
      continue;
    }
    const [error] = readErrors(seed);
    const rest = { nextCheckAt, lastError: error === undefined ? null : describeError(error) };
    const key = JSON.stringify(rest);
    const group = idle.get(key) ?? { rest, mappings: [] };
    idle.set(key, group);
    group.mappings.push(mapping);
  }
  for (const group of idle.values()) {
    await context.store.releaseMany(group.mappings, group.rest, now);
  }
  return busy;
}

/** Statuses and requests of a whole batch, in as few calls as possible. */
async function readAll(
  mappings: readonly Mapping[],
  { queue, ci, log }: SweepContext,
): Promise<ReadonlyMap<Mapping, Seed>> {
  const ids = mappings.flatMap(({ buildRequestId }) => (buildRequestId === null ? [] : [buildRequestId]));
  const [tasks, requests] = await Promise.all([
    queue.statuses(mappings.map(({ taskId }) => taskId)),
    ids.length > 0 ? ci.readMany(ids) : new Map(),
  ]);
  const unread = mappings.flatMap(({ taskId, buildRequestId }) => [
    ...unreadOf(tasks.get(taskId), { taskId }),
    ...(buildRequestId === null ? [] : unreadOf(requests.get(buildRequestId), { taskId, buildRequestId })),
  ]);
  tellUnread(log, unread, 'part of a sweep could not be read');
  return new Map(
    mappings.map((mapping) => {
      const request = requestSeed(mapping, requests);
      return [mapping, { task: tasks.get(mapping.taskId), ...(request === undefined ? {} : { request }) }];
    }),
  );
}

function requestSeed(
  mapping: Mapping,
  requests: Awaited<ReturnType<LegacyCi['readMany']>>,
): Observation['request'] | undefined {
  if (mapping.buildRequestId !== null) {
    return requests.get(mapping.buildRequestId);
  }
  return mapping.state === 'intended' ? undefined : { kind: 'none' };
}

/** Of those held back, only the first in line of each collapse key can have its turn. */
function firstOfEachKey(mappings: readonly Mapping[]): ReadonlySet<Mapping> {
  const first = new Map<string, Mapping>();
  for (const mapping of mappings) {
    if (mapping.state !== 'held' || mapping.collapseKey === null) {
      continue;
    }
    const best = first.get(mapping.collapseKey);
    if (!best || byTurn(mapping, best) < 0) {
      first.set(mapping.collapseKey, mapping);
    }
  }
  return new Set(first.values());
}

/** Until when a mapping can rest; undefined if there is something to do about it. Whole seconds, so that groups form. */
function restUntil(
  mapping: Mapping,
  actions: readonly Action[] | undefined,
  firstHeld: ReadonlySet<Mapping>,
  usual: number,
): number | undefined {
  const isBehind =
    mapping.state === 'held' &&
    mapping.collapseKey !== null &&
    !firstHeld.has(mapping) &&
    actions?.every((action) => action.do === 'takeSlot');
  if (isBehind || actions?.length === 0) {
    return wholeSecond(usual);
  }
  const only = actions?.[0];
  return actions?.length === 1 && only?.do === 'lookAgain' ? wholeSecond(Math.min(only.at, usual)) : undefined;
}

function wholeSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}
