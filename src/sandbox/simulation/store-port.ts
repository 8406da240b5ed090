/** The mapping store as one process reaches it. */
import { isFailing, type ListWish, type Mapping, type MappingChanges } from '../../domain/mapping.ts';
import type { MappingStore } from '../../ports.ts';
import type { Host } from './host.ts';
import { shortName } from './names.ts';
import type { StoreState } from './store-state.ts';

export function createStorePort(host: Host, state: StoreState): MappingStore {
  function read<T>(method: string, about: string, work: () => T): Promise<T> {
    return host.call({ service: 'store', method, about, isChange: false }, work);
  }
  function change<T>(method: string, about: string, work: () => T, taskId?: string): Promise<T> {
    return host.call({ service: 'store', method, about, isChange: true, ...(taskId ? { taskId } : {}) }, work);
  }
  const told = ({ taskId, version }: Mapping, changes: MappingChanges) =>
    `${shortName(taskId)} v${version} ${Object.entries(changes)
      .filter(([key]) => key !== 'lastError' && key !== 'nextCheckAt')
      .map(([key, value]) => `${key}=${String(value)}`)
      .join(' ')}`;

  return {
    // Two statements each, as in the real store: anything may happen in between.
    async insert(mapping, lease) {
      const { taskId, runId, state: is } = mapping;
      const insert = () => state.insert(mapping, lease);
      const answer = await change('insert', `${shortName(taskId)}/${runId} ${is}`, insert, taskId);
      const row =
        answer.kind === 'stored' ? await read('inserted', shortName(taskId), () => state.open(taskId)) : undefined;
      if (answer.kind !== 'stored') {
        return answer;
      }
      return row?.leaseOwner === lease.owner ? { kind: 'stored', mapping: row } : { kind: 'conflict' };
    },
    adopt: (mapping, now) =>
      change('adopt', shortName(mapping.taskId), () => {
        const stored = state.insert(mapping, { owner: '', leaseUntil: 0, now });
        const { buildRequestId, retriesReported } = mapping;
        return stored.kind === 'stored'
          ? state.compareAndSet(stored.mapping, { buildRequestId, retriesReported }, { leaseOwner: null }, now)
          : stored;
      }),
    openRequests: () => read('openRequests', '', () => state.allOpen().flatMap((row) => row.buildRequestId ?? [])),
    async lease(taskId, wish) {
      const isTaken = await change('lease', shortName(taskId), () => state.takeLease(taskId, wish), taskId);
      const mapping = await read('leased', shortName(taskId), () => state.open(taskId));
      if (mapping === undefined) {
        return { kind: 'none' };
      }
      return isTaken && mapping.leaseOwner === wish.owner ? { kind: 'leased', mapping } : { kind: 'busy' };
    },
    leaseDue: (wish) => change('leaseDue', '', () => state.leaseDue(wish)),
    update: (mapping, changes, now) =>
      change('update', told(mapping, changes), () => state.compareAndSet(mapping, changes, {}, now), mapping.taskId),
    release: (mapping, changes, now) =>
      change(
        'release',
        told(mapping, changes),
        () => state.compareAndSet(mapping, changes, { leaseOwner: null, leaseUntil: 0 }, now),
        mapping.taskId,
      ),
    renewLease: (mapping, leaseUntil, now) =>
      change(
        'renewLease',
        told(mapping, {}),
        () => state.compareAndSet(mapping, {}, { leaseUntil }, now),
        mapping.taskId,
      ),
    releaseMany: (mappings, { nextCheckAt }, now) =>
      change('releaseMany', mappings.map(({ taskId }) => shortName(taskId)).join(' '), () =>
        state.releaseMany(mappings, nextCheckAt, now),
      ),
    openMapping: (taskId) => read('openMapping', shortName(taskId), () => state.open(taskId)),
    tasksOfRequests: (ids) =>
      read('tasksOfRequests', ids.join(' '), () =>
        state
          .allOpen()
          .flatMap((row) => (row.buildRequestId !== null && ids.includes(row.buildRequestId) ? [row.taskId] : [])),
      ),
    unwantedAmong: (ids) =>
      read(
        'unwantedAmong',
        ids.join(' '),
        () =>
          new Set(
            state
              .allOpen()
              .flatMap(({ buildRequestId: id, state: is }) =>
                id !== null && is === 'cancelling' && ids.includes(id) ? [id] : [],
              ),
          ),
      ),
    openAmong(taskIds) {
      // Nothing is asked of a real database then, either.
      return taskIds.length === 0
        ? Promise.resolve(new Set<string>())
        : read('openAmong', '', () => new Set(taskIds.filter((taskId) => state.open(taskId) !== undefined)));
    },
    makeAllDue: (now) => change('makeAllDue', '', () => state.makeAllDue(now)),
    hasUnclaimed: (key, exceptId) => read('hasUnclaimed', key, () => state.hasUnclaimed(key, exceptId)),
    nextHeld: (key) => read('nextHeld', key, () => state.nextHeld(key)),
    mappingsOf: (taskId) =>
      read('mappingsOf', shortName(taskId), () =>
        [...state.rows.values()].filter((row) => row.taskId === taskId).reverse(),
      ),
    list: (wish) =>
      read('list', '', () => {
        const rows = 'taskId' in wish ? [...state.rows.values()] : state.allOpen();
        return rows
          .filter((row) => ('taskId' in wish ? row.taskId === wish.taskId : isWished(row, wish)))
          .sort((a, b) => ('taskId' in wish ? b.id - a.id : byFailure(a, b)))
          .slice(0, wish.limit)
          .map((mapping) => ({ kind: 'mapping', mapping }));
      }),
    countByState: () =>
      read('countByState', '', () => {
        const counts = { refusing: 0, held: 0, intended: 0, submitted: 0, cancelling: 0 };
        for (const { state: is } of state.allOpen()) {
          if (is !== 'closed') {
            counts[is] += 1;
          }
        }
        return counts;
      }),
    addEvents: (events) =>
      change('addEvents', events.map(({ what }) => what).join(' '), () => void state.events.push(...events)),
    eventsOf: (taskId, limit = Number.POSITIVE_INFINITY) =>
      read('eventsOf', shortName(taskId), () => state.events.filter((event) => event.taskId === taskId).slice(-limit)),
    heartbeat: () => change('heartbeat', '', () => undefined),
    instances: () => read('instances', '', () => []),
    prune: (before, limit) => change('prune', '', () => state.prune(before, limit)),
    close: () => Promise.resolve(),
  };
}

function isWished(row: Mapping, wish: Exclude<ListWish, { taskId: string }>): boolean {
  return (wish.state === undefined || row.state === wish.state) && (!wish.isFailing || isFailing(row));
}

function byFailure(a: Mapping, b: Mapping): number {
  return Number(isFailing(b)) - Number(isFailing(a)) || b.attempts - a.attempts || a.id - b.id;
}
