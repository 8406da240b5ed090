/** The mapping store as one process reaches it. */
import type { Mapping, MappingChanges } from '../../domain/mapping.ts';
import type { MappingStore } from '../../ports.ts';
import type { Host } from './host.ts';
import { shortName } from './names.ts';
import type { StoreState } from './store-state.ts';

/** @param now the database server's clock */
export function createStorePort(host: Pick<Host, 'call'>, state: StoreState, now: () => number): MappingStore {
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
    now: () => read('now', '', now),
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
    adopt: (mapping, now) => change('adopt', shortName(mapping.taskId), () => state.adopt(mapping, now)),
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
    keepLeased: (mappings, until) =>
      change('keepLeased', mappings.map(({ taskId }) => shortName(taskId)).join(' '), () =>
        state.keepLeased(mappings, until),
      ),
    giveBack: (mappings) =>
      change('giveBack', mappings.map(({ taskId }) => shortName(taskId)).join(' '), () => state.giveBack(mappings)),
    releaseMany: (mappings, rest, now) =>
      change('releaseMany', mappings.map(({ taskId }) => shortName(taskId)).join(' '), () =>
        state.releaseMany(mappings, rest, now),
      ),
    openMapping: (taskId) => read('openMapping', shortName(taskId), () => state.open(taskId)),
    tasksOfRequests: (ids) =>
      read('tasksOfRequests', ids.join(' '), () =>
        state
          .allOpen()
          .flatMap((row) => (row.buildRequestId !== null && ids.includes(row.buildRequestId) ? [row.taskId] : [])),
      ),
    ownAmong: (ids) => read('ownAmong', ids.join(' '), () => requestsAmong(state.allOpen(), ids)),
    unwantedAmong: (ids) =>
      read('unwantedAmong', ids.join(' '), () =>
        requestsAmong(
          state.allOpen().filter((row) => row.state === 'cancelling'),
          ids,
        ),
      ),
    openAmong(taskIds) {
      // Nothing is asked of a real database then, either.
      return taskIds.length === 0
        ? Promise.resolve(new Set<string>())
        : read('openAmong', '', () => new Set(taskIds.filter((taskId) => state.open(taskId) !== undefined)));
    },
    mendTimes: (most) => change('mendTimes', '', () => state.mendTimes(now(), most)),
    makeAllDue: (now) => change('makeAllDue', '', () => state.makeAllDue(now)),
    hasUnclaimed: (key, exceptId) => read('hasUnclaimed', key, () => state.hasUnclaimed(key, exceptId)),
    nextHeld: (key) => read('nextHeld', key, () => state.nextHeld(key)),
    mappingsOf: (taskId) =>
      read('mappingsOf', shortName(taskId), () =>
        [...state.rows.values()].filter((row) => row.taskId === taskId).reverse(),
      ),
    // Nobody scrapes a simulated process, nor lists its tasks.
    list: () => Promise.reject(new Error('not simulated')),
    overview: () => Promise.reject(new Error('not simulated')),
    notAdmitted: () => Promise.reject(new Error('not simulated')),
    addEvents: (events) =>
      change('addEvents', events.map(({ what }) => what).join(' '), () => state.addEvents(events), events[0]?.taskId),
    eventsOf: (taskId, limit = Number.POSITIVE_INFINITY) =>
      read('eventsOf', shortName(taskId), () => state.events.filter((event) => event.taskId === taskId).slice(-limit)),
    heartbeat: () => change('heartbeat', '', () => undefined),
    instances: () => read('instances', '', () => []),
    prune: (before, limit) => change('prune', '', () => state.prune(before, limit)),
    close: () => Promise.resolve(),
  };
}

function requestsAmong(rows: readonly Mapping[], ids: readonly number[]): ReadonlySet<number> {
  return new Set(rows.flatMap(({ buildRequestId: id }) => (id !== null && ids.includes(id) ? [id] : [])));
}
