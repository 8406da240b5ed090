/** The mapping database in memory: each method is one moment, with the semantics of `src/db/mapping-store.ts`. */
import { toErrorText, toKey, toStorable, withChanges } from '../../db/rows.ts';
import {
  type AdoptedMapping,
  byTurn,
  FAILING_ATTEMPTS,
  type Mapping,
  type MappingChanges,
  type NewMapping,
  type TraceEvent,
} from '../../domain/mapping.ts';
import type { DueWish, LongestTimes, Rest, Stored } from '../../ports.ts';

export interface LeaseWish {
  readonly owner: string;
  readonly leaseUntil: number;
  readonly now: number;
}

export interface StoreState {
  readonly rows: Map<number, Mapping>;
  readonly events: TraceEvent[];
  open(taskId: string): Mapping | undefined;
  /** Those that are not closed. */
  allOpen(): readonly Mapping[];
  insert(mapping: NewMapping, lease: LeaseWish): Stored;
  adopt(mapping: AdoptedMapping, now: number): Stored;
  /** One statement: whether a lease was there to be taken. */
  takeLease(taskId: string, wish: LeaseWish): boolean;
  leaseDue(wish: DueWish): readonly Mapping[];
  compareAndSet(
    mapping: Mapping,
    changes: MappingChanges,
    lease: Partial<Pick<Mapping, 'leaseOwner' | 'leaseUntil'>>,
    now: number,
  ): Stored;
  releaseMany(mappings: readonly Mapping[], rest: Rest, now: number): void;
  keepLeased(mappings: readonly Mapping[], leaseUntil: number): void;
  giveBack(mappings: readonly Mapping[]): void;
  mendTimes(now: number, most: LongestTimes): number;
  makeAllDue(now: number): number;
  hasUnclaimed(collapseKey: string, exceptId: number | null): boolean;
  nextHeld(collapseKey: string): string | undefined;
  addEvents(added: readonly TraceEvent[]): void;
  prune(before: number, limit: number): number;
}

/** What tells a new mapping from one that was taken over. */
type Given = 'leaseOwner' | 'leaseUntil' | 'buildRequestId' | 'retriesReported';

/** Hears of every row and event that was written, and of rows that are gone. */
export interface StoreWatcher {
  onWrite(row: Mapping): void;
  /** Somebody writes who does not have the lease of what is there. */
  onOverwritten(row: Mapping, by: Mapping): void;
  onPruned(rows: readonly Mapping[]): void;
  onTrace(event: TraceEvent): void;
}

export function createStoreState({ onWrite, onOverwritten, onPruned, onTrace }: StoreWatcher): StoreState {
  const rows = new Map<number, Mapping>();
  const events: TraceEvent[] = [];
  let lastId = 0;

  const allOpen = () => [...rows.values()].filter((row) => row.state !== 'closed');
  const open = (taskId: string) => allOpen().find((row) => row.taskId === taskId);

  function write(row: Mapping): Mapping {
    rows.set(row.id, row);
    onWrite(row);
    return row;
  }

  function isSlotTaken(collapseKey: string | null, exceptId: number): boolean {
    return allOpen().some((row) => row.hasSlot && row.collapseKey === collapseKey && row.id !== exceptId);
  }

  function leased(row: Mapping, { owner, leaseUntil }: LeaseWish): Mapping {
    return write({ ...row, leaseOwner: owner, leaseUntil, version: row.version + 1 });
  }

  function add(mapping: NewMapping, more: Pick<Mapping, Given>, now: number): Stored {
    if (open(mapping.taskId)) {
      return { kind: 'conflict' };
    }
    const collapseKey = mapping.collapseKey === null ? null : toKey(mapping.collapseKey);
    const hasSlot = mapping.hasSlot && collapseKey !== null;
    if (hasSlot && isSlotTaken(collapseKey, 0)) {
      return { kind: 'slot-taken' };
    }
    lastId += 1;
    const fresh = { id: lastId, version: 1, reruns: 0, cancels: 0, attempts: 0, collapseKey, hasSlot };
    const never = {
      reclaimAt: null,
      absentSince: null,
      requestAbsentSince: null,
      lastError: null,
      resolved: null,
      resolution: null,
    };
    const times = { nextCheckAt: now, created: now, updated: now };
    return { kind: 'stored', mapping: write({ ...mapping, ...fresh, ...never, ...times, ...more }) };
  }

  /** Open, and leased to one of those whom these were leased to. */
  function stillLeased(mappings: readonly Mapping[]): readonly Mapping[] {
    const owners = new Set(mappings.flatMap(({ leaseOwner }) => leaseOwner ?? []));
    return mappings.flatMap(({ id }) => {
      const row = rows.get(id);
      return row?.leaseOwner && owners.has(row.leaseOwner) && row.state !== 'closed' ? [row] : [];
    });
  }

  const state: StoreState = {
    rows,
    events,
    open,
    allOpen,
    insert: (mapping, { owner, leaseUntil, now }) =>
      add(mapping, { leaseOwner: owner, leaseUntil, buildRequestId: null, retriesReported: 0 }, now),
    adopt(mapping, now) {
      const { buildRequestId, retriesReported } = mapping;
      return add(mapping, { leaseOwner: null, leaseUntil: 0, buildRequestId, retriesReported }, now);
    },
    takeLease(taskId, wish) {
      const row = open(taskId);
      const isFree = row !== undefined && row.leaseUntil < wish.now;
      if (isFree) {
        leased(row, wish);
      }
      return isFree;
    },
    leaseDue(wish) {
      const { now, dueBy = now } = wish;
      /** Of a claim that is to be renewed; later than every one of these for all others. */
      const urgency = ({ takenUntil, reclaimAt, state: is }: Mapping) =>
        takenUntil !== null && (reclaimAt === null || reclaimAt <= now) && is !== 'cancelling'
          ? takenUntil
          : Number.MAX_SAFE_INTEGER;
      return allOpen()
        .filter((row) => row.nextCheckAt <= dueBy && row.leaseUntil < now)
        .sort((a, b) => urgency(a) - urgency(b) || a.nextCheckAt - b.nextCheckAt || a.id - b.id)
        .slice(0, wish.limit)
        .map((row) => leased(row, wish));
    },
    compareAndSet(mapping, given, lease, now) {
      const row = rows.get(mapping.id);
      if (row === undefined || row.version !== mapping.version) {
        return { kind: 'conflict' };
      }
      if (row.leaseOwner !== mapping.leaseOwner) {
        onOverwritten(row, mapping);
      }
      const changes = toStorable(mapping, given);
      if (changes.hasSlot && isSlotTaken(mapping.collapseKey, mapping.id)) {
        return { kind: 'slot-taken' };
      }
      // Times may have been made due, or mended, since it was read: that leaves the version, and is not undone.
      write({ ...withChanges(row, changes, now), ...lease });
      return { kind: 'stored', mapping: { ...withChanges(mapping, changes, now), ...lease } };
    },
    releaseMany(mappings, { nextCheckAt, lastError }, now) {
      for (const row of stillLeased(mappings)) {
        const changes = {
          nextCheckAt: Math.round(nextCheckAt),
          attempts: lastError === null ? 0 : row.attempts + Number(row.attempts < FAILING_ATTEMPTS),
          ...(row.state === 'refusing' ? {} : { lastError: lastError === null ? null : toErrorText(lastError) }),
        };
        write({ ...withChanges(row, changes, now), leaseOwner: null, leaseUntil: 0 });
      }
    },
    keepLeased(mappings, leaseUntil) {
      for (const row of stillLeased(mappings)) {
        write({ ...row, leaseUntil: Math.max(row.leaseUntil, leaseUntil) });
      }
    },
    giveBack(mappings) {
      for (const row of stillLeased(mappings)) {
        write({ ...row, version: row.version + 1, leaseOwner: null, leaseUntil: 0 });
      }
    },
    makeAllDue(now) {
      const waiting = allOpen().filter(
        ({ state, nextCheckAt }) => state !== 'intended' && state !== 'cancelling' && nextCheckAt > now,
      );
      for (const row of waiting) {
        write({ ...row, nextCheckAt: now });
      }
      return waiting.length;
    },
    mendTimes(now, { leaseMs, waitMs, graceMs }) {
      const late = allOpen().filter((row) => row.leaseUntil > now + leaseMs || row.nextCheckAt > now + waitMs);
      for (const row of late) {
        const soonest = row.state === 'intended' ? now + graceMs : now;
        const nextCheckAt = row.nextCheckAt > now + waitMs ? soonest : row.nextCheckAt;
        write({ ...row, nextCheckAt, leaseUntil: Math.min(row.leaseUntil, now + leaseMs) });
      }
      return late.length;
    },
    hasUnclaimed: (collapseKey, exceptId) =>
      allOpen().some(
        (row) =>
          row.collapseKey === toKey(collapseKey) &&
          row.id !== exceptId &&
          (row.state === 'intended' || (row.state === 'submitted' && row.takenUntil === null)),
      ),
    nextHeld(collapseKey) {
      return allOpen()
        .filter((row) => row.collapseKey === toKey(collapseKey) && row.state === 'held')
        .sort(byTurn)[0]?.taskId;
    },
    addEvents(added) {
      events.push(...added);
      for (const event of added) {
        onTrace(event);
      }
    },
    prune(before, limit) {
      const old = [...rows.values()]
        .filter(({ state, resolved }) => state === 'closed' && resolved !== null && resolved < before)
        .slice(0, limit);
      for (const { id } of old) {
        rows.delete(id);
      }
      // The trace of a task stays as long as any mapping of it is left; one that never had a mapping goes with age alone.
      const kept = new Set([...rows.values()].map(({ taskId }) => taskId));
      const gone = new Set(old.map(({ taskId }) => taskId));
      const isLeft = ({ taskId, at }: TraceEvent) => kept.has(taskId) || (!gone.has(taskId) && at >= before);
      if (!events.every(isLeft)) {
        events.splice(0, events.length, ...events.filter(isLeft));
      }
      onPruned(old);
      return old.length;
    },
  };
  return state;
}
