/** The mapping store: the statements about mappings, their traces and the running instances. */
import type { Knex } from 'knex';
import {
  FAILING_ATTEMPTS,
  type ListWish,
  type Mapping,
  type MappingChanges,
  type NewMapping,
  type TraceEvent,
} from '../domain/mapping.ts';
import { StoreError } from '../errors.ts';
import type { DueWish, MappingStore, Stored } from '../ports.ts';
import { isUniqueViolation } from '../sql.ts';
import { withStoreErrors } from './errors.ts';
import {
  NEVER,
  readMapping,
  toAdoptedRow,
  toChangedColumns,
  toErrorText,
  toEvent,
  toEventRow,
  toInstance,
  toInstanceRow,
  toKey,
  toNewRow,
  toNow,
  toOverview,
  toStorable,
  withChanges,
} from './rows.ts';
import { createUnreadableRows, type RowReports } from './unreadable-rows.ts';

/** UTC milliseconds, whatever the time zone of server and session, and through the hour that summer time repeats. */
const NOW: Readonly<Record<string, string>> = {
  mysql: "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000",
  postgresql: 'CAST(EXTRACT(EPOCH FROM CLOCK_TIMESTAMP()) * 1000 AS BIGINT)',
  sqlite3: "CAST((JULIANDAY('now') - 2440587.5) * 86400000 AS INTEGER)",
};

function nowOf(db: Knex): string {
  const dialect = String(db.client.dialect);
  const now = NOW[dialect];
  if (now === undefined) {
    throw new StoreError('store-schema', `the time of a ${dialect} database is not known`);
  }
  return now;
}

/**
 * Claims that are to be renewed, in the order in which they end, then whatever has waited longest. What is cancelled has
 * no claim any more, only the memory of one.
 */
const IS_URGENT = "taken_until is not null and (reclaim_at is null or reclaim_at <= ?) and state <> 'cancelling'";
const URGENT_FIRST = `case when ${IS_URGENT} then 0 else 1 end, case when ${IS_URGENT} then taken_until end, next_check_at`;

/** More than one statement takes comfortably on every engine. */
const ID_BATCH = 500;
/** About as many as several processes write into one trace of why a task is not admitted. */
const LINES_A_TASK = 20;
/** How often `leaseDue` chooses while others are quicker. */
const MOST_CHOICES = 5;
const UNREADABLE = 'this row is not one that this version of the bridge can read: correct it, or delete it';

/** The caller opens (and migrates) the database; `close` ends its connections. */
export function createMappingStore(db: Knex, reports: RowReports = {}): MappingStore {
  const tasks = () => db('tasks');
  const onUnreadable = createUnreadableRows('mapping-row', 'mapping left alone: its row cannot be read', reports);
  /** @throws z.ZodError */
  function toMapping(row: unknown): Mapping {
    const read = readMapping(row);
    if (read.mapping === undefined) {
      onUnreadable(row, read.error);
      throw read.error;
    }
    return read.mapping;
  }
  const readOne = async (query: Knex.QueryBuilder): Promise<Mapping | undefined> => {
    const row: unknown = await query.first();
    return row === undefined ? undefined : toMapping(row);
  };

  /** Compare-and-set: nothing is changed but what was read. */
  async function compareAndSet(
    mapping: Mapping,
    given: MappingChanges,
    more: Partial<Pick<Mapping, 'leaseOwner' | 'leaseUntil'>>,
    now: number,
  ): Promise<Stored> {
    const changes = toStorable(mapping, given);
    const columns = {
      ...toChangedColumns(mapping, changes),
      ...(more.leaseOwner === undefined ? {} : { lease_owner: more.leaseOwner }),
      ...(more.leaseUntil === undefined ? {} : { lease_until: more.leaseUntil }),
      version: mapping.version + 1,
      updated: now,
    };
    try {
      const changed = await tasks().where({ id: mapping.id, version: mapping.version }).update(columns);
      return changed === 1
        ? { kind: 'stored', mapping: { ...withChanges(mapping, changes, now), ...more } }
        : { kind: 'conflict' };
    } catch (error) {
      // The only unique column that a change can fill is the slot.
      if (isUniqueViolation(error)) {
        return { kind: 'slot-taken' };
      }
      throw error;
    }
  }

  async function inBatches<T>(values: readonly T[], work: (batch: readonly T[]) => Promise<void>): Promise<void> {
    for (let start = 0; start < values.length; start += ID_BATCH) {
      await work(values.slice(start, start + ID_BATCH));
    }
  }

  /** Changes those that are still open, and leased to whoever they were read for. */
  async function changeLeased(mappings: readonly Mapping[], columns: object): Promise<void> {
    await inBatches(mappings, async (batch) => {
      await tasks()
        .whereIn(
          'id',
          batch.map(({ id }) => id),
        )
        .whereIn('lease_owner', ownersOf(batch))
        .whereNotNull('open_task_id')
        .update(columns);
    });
  }

  /** Which of these build requests such mappings have. */
  async function requestsAmong(
    buildRequestIds: readonly number[],
    such: (rows: Knex.QueryBuilder) => Knex.QueryBuilder,
  ): Promise<ReadonlySet<number>> {
    const found = new Set<number>();
    await inBatches(buildRequestIds, async (batch) => {
      const rows: { build_request_id: number | string }[] = await such(
        tasks()
          .select('build_request_id')
          .whereIn('build_request_id', [...batch]),
      );
      for (const row of rows) {
        found.add(Number(row.build_request_id));
      }
    });
    return found;
  }

  /** The ids of those that are to be leased next. */
  async function chooseDue({ now, dueBy = now, limit }: DueWish): Promise<readonly number[]> {
    return tasks()
      .where('next_check_at', '<=', dueBy)
      .andWhere('lease_until', '<', now)
      .orderByRaw(URGENT_FIRST, [now, now])
      .limit(limit)
      .pluck('id');
  }

  /** Those that nobody else was quicker to take, and that can be read. */
  async function leaseChosen(
    ids: readonly number[],
    { owner, leaseUntil, now, dueBy = now }: DueWish,
  ): Promise<readonly Mapping[]> {
    await tasks()
      .whereIn('id', ids)
      // Others may have leased, or even settled, some of them in between.
      .where('next_check_at', '<=', dueBy)
      .andWhere('lease_until', '<', now)
      .update({ lease_owner: owner, lease_until: leaseUntil, version: db.raw('version + 1') });
    const leased: { id: number }[] = await tasks()
      .whereIn('id', ids)
      .andWhere({ lease_owner: owner })
      .orderByRaw(URGENT_FIRST, [now, now]);
    const mappings: Mapping[] = [];
    const unreadable: number[] = [];
    for (const row of leased) {
      const read = readMapping(row);
      if (read.mapping === undefined) {
        onUnreadable(row, read.error);
        unreadable.push(row.id);
      } else {
        mappings.push(read.mapping);
      }
    }
    if (unreadable.length > 0) {
      // They stay leased for as long as a crashed pass's: the others come first, and nothing spins.
      await tasks().whereIn('id', unreadable).update({ last_error: UNREADABLE });
    }
    return mappings;
  }

  /** Why an insert was refused. If neither is in its way any more: a conflict, so that the task is looked at again. */
  async function isSlotTheReason({ taskId, collapseKey, hasSlot }: NewMapping): Promise<boolean> {
    if (!hasSlot || collapseKey === null || (await tasks().where({ open_task_id: taskId }).first('id'))) {
      return false;
    }
    return (
      (await tasks()
        .where({ slot: toKey(collapseKey) })
        .first('id')) !== undefined
    );
  }

  /** Up to which row of the trace `pruneUnmapped` has come. */
  let looked = 0;

  /** Found by halves: no index has the time, and there may be millions. @returns its id, or that of a later one */
  async function firstEventSince(time: number): Promise<number> {
    const ends = await db('events').min({ low: 'id' }).max({ high: 'id' }).first();
    let [low, high] = [Number(ends?.low ?? 0), Number(ends?.high ?? 0)];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      const event: { id: number | string; at: number | string } | undefined = await db('events')
        .select('id', 'at')
        .where('id', '>=', middle)
        .orderBy('id')
        .first();
      if (event !== undefined && Number(event.at) <= time) {
        low = Number(event.id) + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /** Lines of tasks that never came to a mapping: rows of old stand first, and each time the next ones are looked at. */
  async function pruneUnmapped(before: number, limit: number): Promise<void> {
    const rows: { id: number; task_id: string; at: unknown }[] = await db('events')
      .select('id', 'task_id', 'at')
      .where('id', '>', looked)
      .orderBy('id')
      .limit(limit);
    const old = rows.filter(({ at }) => Number(at) < before);
    looked = old.length < limit ? 0 : Number(old.at(-1)?.id);
    await inBatches(old, async (batch) => {
      const mapped = tasks()
        .select('task_id')
        .whereIn('task_id', [...new Set(batch.map(({ task_id }) => task_id))]);
      const ids = batch.map(({ id }) => id);
      await db('events').whereIn('id', ids).whereNotIn('task_id', mapped).delete();
    });
  }

  const store: MappingStore = {
    async now() {
      const row: unknown = await db.first(db.raw(`${nowOf(db)} AS now`));
      return toNow(row);
    },

    async insert(mapping, lease) {
      try {
        await tasks().insert(toNewRow(mapping, lease));
      } catch (error) {
        if (!isUniqueViolation(error)) {
          throw error;
        }
        // Which of the two unique columns it was, the engines say in different words: look.
        return { kind: (await isSlotTheReason(mapping)) ? 'slot-taken' : 'conflict' };
      }
      const stored = await readOne(tasks().where({ open_task_id: mapping.taskId, lease_owner: lease.owner }));
      return stored === undefined ? { kind: 'conflict' } : { kind: 'stored', mapping: stored };
    },

    async adopt(mapping, now) {
      try {
        await tasks().insert(toAdoptedRow(mapping, now));
      } catch (error) {
        if (!isUniqueViolation(error)) {
          throw error;
        }
        return { kind: (await isSlotTheReason(mapping)) ? 'slot-taken' : 'conflict' };
      }
      const stored = await store.openMapping(mapping.taskId);
      return stored === undefined ? { kind: 'conflict' } : { kind: 'stored', mapping: stored };
    },

    async lease(taskId, { owner, leaseUntil, now }) {
      const changed = await tasks()
        .where({ open_task_id: taskId })
        .andWhere('lease_until', '<', now)
        .update({ lease_owner: owner, lease_until: leaseUntil, version: db.raw('version + 1') });
      const mapping = await store.openMapping(taskId);
      if (mapping === undefined) {
        return { kind: 'none' };
      }
      return changed === 1 && mapping.leaseOwner === owner ? { kind: 'leased', mapping } : { kind: 'busy' };
    },

    async leaseDue(wish) {
      for (let choice = 1; choice <= MOST_CHOICES; choice += 1) {
        const ids = await chooseDue(wish);
        const mappings = ids.length > 0 ? await leaseChosen(ids, wish) : [];
        if (ids.length === 0 || mappings.length > 0) {
          return mappings;
        }
      }
      return [];
    },

    update: (mapping, changes, now) => compareAndSet(mapping, changes, {}, now),

    release: (mapping, changes, now) => compareAndSet(mapping, changes, { leaseOwner: null, leaseUntil: 0 }, now),

    renewLease: (mapping, leaseUntil, now) => compareAndSet(mapping, {}, { leaseUntil }, now),

    releaseMany: (mappings, { nextCheckAt, lastError }, now) =>
      changeLeased(mappings, {
        lease_owner: null,
        lease_until: 0,
        next_check_at: Math.round(nextCheckAt),
        // Those that nothing is found out about count as failing, and no further: they have not tried anything.
        attempts:
          lastError === null
            ? 0
            : db.raw('CASE WHEN attempts < ? THEN attempts + 1 ELSE attempts END', [FAILING_ATTEMPTS]),
        last_error: db.raw("CASE WHEN state = 'refusing' THEN last_error ELSE ? END", [
          lastError === null ? null : toErrorText(lastError),
        ]),
        version: db.raw('version + 1'),
        updated: now,
      }),

    // One that takes effect late must not shorten a lease that a pass has renewed since.
    keepLeased: (mappings, leaseUntil) =>
      changeLeased(mappings, {
        lease_until: db.raw('CASE WHEN lease_until < ? THEN ? ELSE lease_until END', [leaseUntil, leaseUntil]),
      }),

    giveBack: (mappings) =>
      changeLeased(mappings, { lease_owner: null, lease_until: 0, version: db.raw('version + 1') }),

    openMapping: (taskId) => readOne(tasks().where({ open_task_id: taskId })),

    async tasksOfRequests(buildRequestIds) {
      const found: string[] = [];
      await inBatches(buildRequestIds, async (batch) => {
        const rows: string[] = await tasks()
          .whereIn('build_request_id', [...batch])
          .whereNotNull('open_task_id')
          .pluck('task_id');
        found.push(...rows);
      });
      return found;
    },

    async openRequests() {
      const rows: (number | string)[] = await tasks()
        .whereNotNull('open_task_id')
        .whereNotNull('build_request_id')
        .pluck('build_request_id');
      return rows.map(Number);
    },

    ownAmong: (buildRequestIds) => requestsAmong(buildRequestIds, (rows) => rows.whereNotNull('open_task_id')),

    unwantedAmong: (buildRequestIds) => requestsAmong(buildRequestIds, (rows) => rows.where({ state: 'cancelling' })),

    async openAmong(taskIds) {
      const open = new Set<string>();
      await inBatches(taskIds, async (batch) => {
        const rows: string[] = await tasks()
          .whereIn('open_task_id', [...batch])
          .pluck('open_task_id');
        for (const taskId of rows) {
          open.add(taskId);
        }
      });
      return open;
    },

    makeAllDue: (now) =>
      tasks()
        // For the first two the time is a grace that something under way still has: no hint was missed meanwhile.
        .whereNotIn('state', ['intended', 'cancelling', 'closed'])
        .andWhere('next_check_at', '>', now)
        .update({ next_check_at: now }),

    async mendTimes({ leaseMs, waitMs, graceMs }) {
      // As the statement is carried out: one that was on its way for long would cut short what was written meanwhile.
      const now = nowOf(db);
      const after = (ms: number) => db.raw(`${now} + ?`, [Math.round(ms)]);
      const leaseEnd = after(leaseMs);
      const waitEnd = after(waitMs);
      // Looked for first: an update locks all that it looks at, and there is hardly ever one.
      const ids: number[] = await tasks()
        .whereNotNull('open_task_id')
        // The same in words that an index knows.
        .andWhere('next_check_at', '<', NEVER)
        .andWhere((late) => late.where('lease_until', '>', leaseEnd).orWhere('next_check_at', '>', waitEnd))
        .pluck('id');
      await inBatches(ids, async (batch) => {
        await tasks().whereIn('id', batch).andWhere('lease_until', '>', leaseEnd).update({ lease_until: leaseEnd });
        const soonest = db.raw(`CASE WHEN state = 'intended' THEN ${now} + ? ELSE ${now} END`, [Math.round(graceMs)]);
        await tasks()
          .whereIn('id', batch)
          .whereNotNull('open_task_id')
          .andWhere('next_check_at', '>', waitEnd)
          .update({ next_check_at: soonest });
      });
      return ids.length;
    },

    async hasUnclaimed(collapseKey, exceptId) {
      const row: unknown = await tasks()
        .select('id')
        .where({ collapse_key: toKey(collapseKey) })
        .whereNot({ id: exceptId ?? 0 })
        .andWhere((unclaimed) =>
          unclaimed
            .where({ state: 'intended' })
            .orWhere((submitted) => submitted.where({ state: 'submitted' }).whereNull('taken_until')),
        )
        .first();
      return row !== undefined;
    },

    async nextHeld(collapseKey) {
      const row: { task_id: string } | undefined = await tasks()
        .select('task_id')
        .where({ collapse_key: toKey(collapseKey), state: 'held' })
        .orderByRaw('case when taken_until is null then 1 else 0 end')
        .orderBy([
          { column: 'priority', order: 'desc' },
          { column: 'created', order: 'asc' },
          { column: 'id', order: 'asc' },
        ])
        .first();
      return row?.task_id;
    },

    async mappingsOf(taskId) {
      const rows: unknown[] = await tasks().where({ task_id: taskId }).orderBy('id', 'desc');
      return rows.map(toMapping);
    },

    async list(wish) {
      const query = tasks().limit(wish.limit);
      const rows: { id: number | string; task_id: unknown }[] = await ('taskId' in wish
        ? query.where({ task_id: wish.taskId }).orderBy('id', 'desc')
        : openOnes(query, wish));
      return rows.map((row) => {
        const { mapping } = readMapping(row);
        return mapping === undefined
          ? { kind: 'unreadable', id: Number(row.id), taskId: String(row.task_id) }
          : { kind: 'mapping', mapping };
      });
    },

    async overview() {
      return toOverview(
        await tasks()
          .whereNotNull('open_task_id')
          .groupBy('state')
          .select('state', db.raw('sum(case when attempts >= ? then 1 else 0 end) as failing', [FAILING_ATTEMPTS]))
          .count({ count: '*' })
          .min({ takenUntil: 'taken_until' }),
      );
    },

    async addEvents(events) {
      if (events.length > 0) {
        await db('events').insert(events.map(toEventRow));
      }
    },

    async eventsOf(taskId, limit) {
      const query = db('events').where({ task_id: taskId }).orderBy('id', 'desc');
      const rows: Record<string, unknown>[] = await (limit === undefined ? query : query.limit(limit));
      return rows.map(toEvent).reverse();
    },

    async notAdmitted(since, limit) {
      const rows: Record<string, unknown>[] = await db('events as e')
        .select('e.*')
        .where('e.id', '>=', await firstEventSince(since))
        // Processes write side by side, and not quite in the order of time.
        .andWhere('e.at', '>', since)
        .andWhere({ 'e.what': 'notAdmitted' })
        .whereNotExists(db('tasks as t').select('t.id').whereRaw('t.task_id = e.task_id').whereRaw('t.updated >= e.at'))
        .orderBy('e.id', 'desc')
        .limit(limit * LINES_A_TASK);
      const lastOfEach = new Map<string, TraceEvent>();
      for (const event of rows.map(toEvent)) {
        if (!lastOfEach.has(event.taskId)) {
          lastOfEach.set(event.taskId, event);
        }
      }
      return [...lastOfEach.values()].slice(0, limit);
    },

    async heartbeat(instance) {
      await db('instances').insert(toInstanceRow(instance)).onConflict('instance').merge();
    },

    async instances() {
      const rows: Record<string, unknown>[] = await db('instances').orderBy('instance');
      return rows.map(toInstance);
    },

    async prune(before, limit) {
      await db('instances').where('heartbeat', '<', before).delete();
      const rows: { id: number; task_id: string }[] = await tasks()
        .select('id', 'task_id')
        .where('resolved', '<', before)
        .whereNull('open_task_id')
        .orderBy('resolved')
        .limit(limit);
      await inBatches(rows, async (batch) => {
        const ids = batch.map(({ id }) => id);
        const taskIds = [...new Set(batch.map(({ task_id }) => task_id))];
        // A task that was rerun keeps its trace as long as any mapping of it is left. The trace goes first: what a
        // crash leaves between the two statements is found again by the next pruning.
        const kept = tasks().select('task_id').whereIn('task_id', taskIds).whereNotIn('id', ids);
        await db('events').whereIn('task_id', taskIds).whereNotIn('task_id', kept).delete();
        await tasks().whereIn('id', ids).delete();
      });
      await pruneUnmapped(before, limit);
      return rows.length;
    },

    close: () => db.destroy(),
  };
  return withStoreErrors(store);
}

function ownersOf(mappings: readonly Mapping[]): readonly string[] {
  return [...new Set(mappings.flatMap(({ leaseOwner }) => leaseOwner ?? []))];
}

/** Those that fail first. */
function openOnes(
  query: Knex.QueryBuilder,
  { state, isFailing }: Exclude<ListWish, { taskId: string }>,
): Knex.QueryBuilder {
  query.whereNotNull('open_task_id');
  if (state !== undefined) {
    query.andWhere({ state });
  }
  if (isFailing) {
    query.andWhere((failing) => failing.whereNotNull('last_error').orWhere('attempts', '>', 0));
  }
  return query.orderByRaw('case when last_error is null and attempts <= 0 then 1 else 0 end, attempts desc, id');
}
