/** What mutations are made of. */
import type { RequestView } from '../../domain/build.ts';
import type { Mapping, MappingChanges, TraceEvent } from '../../domain/mapping.ts';
import type { TaskStatus } from '../../domain/task.ts';
import type { Artifact, Leased, MappingStore, Seen, Stored, TaskQueue } from '../../ports.ts';
import type { Mutate, Parts } from './world.ts';

export interface Mutation {
  readonly name: string;
  /** What a bridge like this does wrong. */
  readonly wrong: string;
  /** What is complained of where it shows, be it first or after something that follows from the same fault. */
  readonly complaint: RegExp;
  readonly mutate: Mutate;
}

type Change = (parts: Parts) => Partial<Parts>;

export function mutation(name: string, wrong: string, complaint: RegExp, change: Change): Mutation {
  return { name, wrong, complaint, mutate: (parts) => ({ ...parts, ...change(parts) }) };
}

export const onQueue =
  (change: (queue: TaskQueue) => Partial<TaskQueue>): Change =>
  (parts) => ({
    queue: { ...parts.queue, ...change(parts.queue) },
  });
export const onStore =
  (change: (store: MappingStore) => Partial<MappingStore>): Change =>
  (parts) => ({
    store: { ...parts.store, ...change(parts.store) },
  });

/** Requests that are read by their ids, changed. */
export const onRequests =
  (change: (seen: Seen<RequestView>) => Seen<RequestView>): Change =>
  ({ ci }) => ({
    ci: {
      ...ci,
      readMany: async (ids) => new Map([...(await ci.readMany(ids))].map(([id, seen]) => [id, change(seen)])),
    },
  });

/** The store, with every mapping that comes out of it changed. */
export function withMappings(store: MappingStore, change: (mapping: Mapping) => Mapping): Partial<MappingStore> {
  const stored = async (answer: Promise<Stored>): Promise<Stored> => {
    const seen = await answer;
    return seen.kind === 'stored' ? { kind: 'stored', mapping: change(seen.mapping) } : seen;
  };
  return {
    async lease(taskId, lease): Promise<Leased> {
      const seen = await store.lease(taskId, lease);
      return seen.kind === 'leased' ? { kind: 'leased', mapping: change(seen.mapping) } : seen;
    },
    leaseDue: async (lease) => (await store.leaseDue(lease)).map(change),
    update: (mapping, changes, now) => stored(store.update(mapping, changes, now)),
    renewLease: (mapping, leaseUntil, now) => stored(store.renewLease(mapping, leaseUntil, now)),
  };
}

/** The store, with something else written in place of each event of a trace. */
export function withEvents(
  store: MappingStore,
  change: (event: TraceEvent) => readonly TraceEvent[],
): Partial<MappingStore> {
  return { addEvents: (events) => store.addEvents(events.flatMap(change)) };
}

/** The same change for one status and for many. */
export function withStatuses(
  queue: TaskQueue,
  change: (seen: Seen<TaskStatus>) => Seen<TaskStatus>,
): Partial<TaskQueue> {
  return {
    status: async (taskId) => change(await queue.status(taskId)),
    statuses: async (ids) => new Map([...(await queue.statuses(ids))].map(([id, seen]) => [id, change(seen)])),
  };
}

/** All runs but the last that ended in one way are told of as if they had ended in the other. */
export function withEarlierRuns(queue: TaskQueue, was: string, told: string): Partial<TaskQueue> {
  return withStatuses(queue, (seen) => {
    if (seen.kind !== 'present') {
      return seen;
    }
    const last = seen.value.runs.length - 1;
    const runs = seen.value.runs.map((run) =>
      run.runId < last && run.reasonResolved === was ? { ...run, reasonResolved: told } : run,
    );
    return { kind: 'present', value: { ...seen.value, runs } };
  });
}

export const absentIfUnreadable = <T>(seen: Seen<T>): Seen<T> =>
  seen.kind === 'unreadable' ? { kind: 'absent' } : seen;

export function settled(seen: Seen<RequestView>): Seen<RequestView> {
  if (seen.kind !== 'present') {
    return seen;
  }
  const { isSettling: _isSettling, ...value } = seen.value;
  return { kind: 'present', value };
}

export function withoutRetries(seen: Seen<RequestView>): Seen<RequestView> {
  return seen.kind === 'present' && seen.value.state !== 'complete'
    ? {
        kind: 'present',
        value: { ...seen.value, builds: seen.value.builds.filter(({ results }) => results !== 'RETRY') },
      }
    : seen;
}

export function asBuilding(seen: Seen<RequestView>): Seen<RequestView> {
  return seen.kind === 'present' && seen.value.state === 'pending'
    ? { kind: 'present', value: { ...seen.value, state: 'building' } }
    : seen;
}

/** The queue, with something else put where the content of this artifact belongs. */
export function withContents(
  queue: TaskQueue,
  name: string,
  change: (artifact: Artifact) => Artifact,
): Partial<TaskQueue> {
  return {
    putArtifact: (taskId, runId, artifact) => {
      const isContent = artifact.kind === 'content' || artifact.kind === 'file' || artifact.kind === 'redirect';
      return queue.putArtifact(taskId, runId, isContent && artifact.name === name ? change(artifact) : artifact);
    },
  };
}

/** The queue, of which nothing can be asked while so many uploads are under way. */
export function withOneRoom(queue: TaskQueue, most: number): TaskQueue {
  let uploads = 0;
  let waiting: (() => void)[] = [];
  const room = async () => {
    while (uploads >= most) {
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  };
  const inRoom =
    <Given extends unknown[], Answer>(ask: (...given: Given) => Promise<Answer>) =>
    async (...given: Given) => {
      await room();
      return ask(...given);
    };
  return {
    ...queue,
    status: inRoom(queue.status),
    statuses: inRoom(queue.statuses),
    claim: inRoom(queue.claim),
    reclaim: inRoom(queue.reclaim),
    async putArtifact(...given) {
      await room();
      uploads += 1;
      try {
        await queue.putArtifact(...given);
      } finally {
        uploads -= 1;
        const woken = waiting;
        waiting = [];
        for (const wake of woken) {
          wake();
        }
      }
    },
  };
}

export function asError({ name, expires }: Artifact): Artifact {
  return { kind: 'error', name, expires, reason: 'invalid-resource-on-worker', message: 'it is not there' };
}

export const completed = (changes: MappingChanges): MappingChanges =>
  'resolution' in changes ? { ...changes, resolution: 'completed' } : changes;
