/**
 * Bridges that are broken on purpose, to see that the simulation sees it. Each puts something else in place of a part;
 * nothing of production code knows of them.
 */

import type { SettableClock } from '../../clock.ts';
import type { Mapping } from '../../domain/mapping.ts';
import type { TaskStatus } from '../../domain/task.ts';
import { LegacyCiError, QueueError } from '../../errors.ts';
import type { Leased, Seen } from '../../ports.ts';
import { BACKING_LOG, PROPERTIES, STATUS } from '../../reflector/upload.ts';
import {
  absentIfUnreadable,
  asBuilding,
  asError,
  completed,
  type Mutation,
  mutation,
  onQueue,
  onRequests,
  onStore,
  settled,
  withContents,
  withEarlierRuns,
  withEvents,
  withMappings,
  withOneRoom,
  withoutRetries,
  withStatuses,
} from './mutation-parts.ts';

/** Nobody is asked, and the bridge that this befalls knows it: its traces are right. */
const notNow = () => new LegacyCiError('legacy-ci-unavailable', 'not now', { isTransient: true });

/** The same of the queue. */
const notYet = () => new QueueError('queue-unavailable', 'not yet', { isTransient: true });

/** Whether a thing was first asked for ten minutes ago. */
function tenMinutesLate(clock: Pick<SettableClock, 'uptime'>): (what: string) => boolean {
  const firsts = new Map<string, number>();
  return (what) => {
    const first = firsts.get(what) ?? clock.uptime();
    firsts.set(what, first);
    return clock.uptime() >= first + 600_000;
  };
}

export const MUTATIONS: readonly Mutation[] = [
  mutation(
    'no-lease',
    'takes a task from under another pass',
    /was made for .* while #\d+ of run \d+ is open/,
    onStore((store) => ({ lease: (taskId, lease) => store.lease(taskId, { ...lease, now: Number.MAX_SAFE_INTEGER }) })),
  ),
  mutation(
    'no-look-up',
    'submits without a look for an earlier submission',
    /was made for .*, which #\d+ was made for and ended/,
    (parts) => ({
      ci: { ...parts.ci, findByExternalId: async () => ({ kind: 'absent' }) },
    }),
  ),
  mutation(
    'early-acknowledge',
    'acknowledges a message before it has looked at the task',
    /was acknowledged by .* without a look at it/,
    (parts) => ({
      broker: {
        ...parts.broker,
        subscribe: (options) =>
          parts.broker.subscribe({
            ...options,
            async onMessage(message) {
              options.onMessage(message).catch(() => undefined);
            },
          }),
      },
    }),
  ),
  mutation(
    'unreadable-request-is-absent',
    'believes a request gone that it could not read',
    /was made for .*, which #\d+ was made for and ended/,
    (parts) => ({
      ci: {
        ...parts.ci,
        readMany: async (ids) =>
          new Map([...(await parts.ci.readMany(ids))].map(([id, seen]) => [id, absentIfUnreadable(seen)])),
        findByExternalId: async (spec) => absentIfUnreadable(await parts.ci.findByExternalId(spec)),
      },
    }),
  ),
  mutation(
    'unreadable-task-is-absent',
    'believes a task gone that it could not read',
    /was made for .*, which #\d+ was made for and ended/,
    onQueue((queue) => withStatuses(queue, absentIfUnreadable)),
  ),
  mutation(
    'mixed-up-batch',
    'takes what a call for many says of one task for the next one',
    /the mapping of .* says .*, and the queue/,
    ({ queue }) => ({
      queue: {
        ...queue,
        async statuses(ids) {
          const all = await queue.statuses(ids);
          return new Map(
            ids.map((id, index) => [id, all.get(ids[(index + 1) % ids.length] ?? id) ?? { kind: 'absent' }]),
          );
        },
      },
    }),
  ),
  mutation(
    'last-run',
    "takes the last run for the mapping's own",
    /no build request serves the run/,
    ({ queue, store }) => ({
      store: {
        ...store,
        async lease(taskId, lease): Promise<Leased> {
          const seen = await store.lease(taskId, lease);
          const status = seen.kind === 'leased' ? await queue.status(taskId) : undefined;
          if (seen.kind !== 'leased' || status?.kind !== 'present') {
            return seen;
          }
          return { kind: 'leased', mapping: { ...seen.mapping, runId: status.value.runs.length - 1 } };
        },
      },
    }),
  ),
  mutation(
    'resolve-before-upload',
    'resolves a run and uploads its artifacts afterwards',
    /was resolved completed without public/,
    ({ queue }) => ({
      queue: {
        ...queue,
        async putArtifact(taskId, runId, artifact) {
          if (artifact.kind !== 'redirect') {
            queue
              .status(taskId)
              .then(() => queue.status(taskId))
              .then(() => queue.putArtifact(taskId, runId, artifact))
              .catch(() => undefined);
            return;
          }
          await queue.putArtifact(taskId, runId, artifact);
        },
      },
    }),
  ),
  mutation(
    'no-reclaim',
    'does not keep its claims alive',
    /the claim of .* ran out, and nothing hindered the bridge/,
    onQueue((queue) => ({
      reclaim: async (taskId) => {
        const seen = await queue.status(taskId);
        return { takenUntil: (seen.kind === 'present' ? (seen.value.runs.at(-1)?.takenUntil ?? 0) : 0) + 1_200_000 };
      },
    })),
  ),
  mutation(
    'no-claims-without-database',
    'keeps no claim alive while the mapping database is away',
    /the claim of .* ran out, and only the mapping database was away/,
    ({ queue, store }) => {
      let isAway = false;
      return {
        store: {
          ...store,
          async leaseDue(options) {
            isAway = true;
            const due = await store.leaseDue(options);
            isAway = false;
            return due;
          },
        },
        queue: {
          ...queue,
          reclaim: (taskId, runId) =>
            isAway ? Promise.reject(new QueueError('queue-conflict', 'not now')) : queue.reclaim(taskId, runId),
        },
      };
    },
  ),
  mutation(
    'gives-up-claims',
    'no longer renews the claim of a task that it could not read once',
    /the claim of .* ran out, and nothing hindered the bridge/,
    onQueue((queue) => {
      const givenUp = new Set<string>();
      const noted = (taskId: string, seen: Seen<TaskStatus>) => {
        if (seen.kind === 'unreadable') {
          givenUp.add(taskId);
        }
        return seen;
      };
      return {
        status: async (taskId) => noted(taskId, await queue.status(taskId)),
        statuses: async (ids) => new Map([...(await queue.statuses(ids))].map(([id, seen]) => [id, noted(id, seen)])),
        async reclaim(taskId, runId) {
          const seen = givenUp.has(taskId) ? await queue.status(taskId) : undefined;
          return seen?.kind === 'present'
            ? { takenUntil: seen.value.runs[runId]?.takenUntil ?? 0 }
            : await queue.reclaim(taskId, runId);
        },
      };
    }),
  ),
  mutation(
    'claims-early',
    'claims a run while its build request waits',
    /was claimed for nothing: #\d+ waits/,
    onRequests(asBuilding),
  ),
  mutation(
    'always-due',
    'looks again at once at what it has just looked at',
    /goes round in circles/,
    ({ policy }) => ({ policy: { ...policy, recheckMs: 0 } }),
  ),
  mutation('impatient', 'waits for nothing longer than half a second', /goes round in circles/, ({ clock }) => ({
    clock: { ...clock, sleep: (ms, signal) => clock.sleep(Math.min(ms, 500), signal) },
  })),
  mutation(
    'no-compare-and-set',
    'writes over what another pass has written since',
    /the mapping of .* is .*'s, and was written by/,
    onStore((store) => {
      const fresh = async (mapping: Mapping) => {
        const now = await store.openMapping(mapping.taskId);
        return now?.id === mapping.id ? { ...mapping, version: now.version } : mapping;
      };
      return {
        update: async (mapping, changes, now) => store.update(await fresh(mapping), changes, now),
        release: async (mapping, changes, now) => store.release(await fresh(mapping), changes, now),
        renewLease: async (mapping, until, now) => store.renewLease(await fresh(mapping), until, now),
      };
    }),
  ),
  mutation(
    'no-renewal',
    'asks for a build at the end of its lease, or after it',
    /asks for a build of .* without having renewed its lease/,
    onStore(() => ({ renewLease: async (mapping) => ({ kind: 'stored', mapping }) })),
  ),
  mutation(
    'no-grace',
    'submits again at once after a submission without an answer',
    /was made for .* while #\d+ of run \d+ is open/,
    ({ timing }) => ({
      timing: { ...timing, submitGraceMs: 0 },
    }),
  ),
  mutation(
    'follow-after-cancel',
    'gives the run after a cancel the request that was given up',
    /no build request serves the run/,
    onQueue((queue) => withEarlierRuns(queue, 'canceled', 'claim-expired')),
  ),
  mutation(
    'gives-up-builds',
    'gives up the build of a run whose claim ran out',
    /was cancelled, and .* waits for it|and nobody was told what #\d+ came to/,
    onQueue((queue) => withEarlierRuns(queue, 'claim-expired', 'canceled')),
  ),
  mutation(
    'reruns-failures',
    'has a task built again that has failed',
    /was rerun by the bridge after failed/,
    ({ queue }) => ({
      queue: {
        ...queue,
        async resolve(taskId, runId, resolution) {
          const status = await queue.resolve(taskId, runId, resolution);
          return resolution.state === 'failed' && runId === 0 ? await queue.rerunTask(taskId) : status;
        },
      },
    }),
  ),
  mutation(
    'cancel-once',
    'asks for a cancel once, whatever comes of it',
    /was cancelled in vain, and not again in time/,
    ({ ci }) => {
      const asked = new Set<number>();
      return {
        ci: {
          ...ci,
          async cancel(request, because) {
            if (asked.has(request.buildRequestId)) {
              throw notNow();
            }
            const answer = await ci.cancel(request, because);
            asked.add(request.buildRequestId);
            return answer;
          },
        },
      };
    },
  ),
  mutation(
    'no-list-pending',
    'does not look for tasks whose message never came',
    /has been pending for long, and has no mapping/,
    onQueue(() => ({
      async *listPending() {
        // Nothing is pending.
      },
    })),
  ),
  mutation(
    'forgets-retries',
    'tells of the same RETRY again and again',
    /asks for nothing, and it was resolved worker-shutdown/,
    onStore((store) => withMappings(store, (mapping) => ({ ...mapping, retriesReported: 0 }))),
  ),
  mutation(
    'no-collapse-guard',
    'lets its own requests collapse one another',
    /collapsed #\d+ of the bridge's own/,
    ({ ci }) => ({
      ci: { ...ci, collapseKey: () => null },
    }),
  ),
  mutation(
    'believes-at-once',
    'believes at once that what it does not see is gone',
    /asks for nothing, and it was resolved internal-error/,
    ({ policy }) => ({
      policy: { ...policy, absentGraceMs: 0 },
    }),
  ),
  mutation(
    'stops-shared-builds',
    'stops a build that others want',
    /asks for nothing, and it was resolved canceled/,
    onStore(() => ({ unwantedAmong: async (ids) => new Set(ids) })),
  ),
  mutation(
    'does-not-settle',
    'reads what a build leaves behind before it is there',
    /with properties of another build/,
    onRequests(settled),
  ),
  mutation(
    'keeps-its-leases',
    'does not let go of what it has looked at',
    /is leased for \d{7} ms/,
    onStore((store) => ({
      release: async (mapping, changes, now) =>
        changes.state === 'closed'
          ? store.release(mapping, changes, now)
          : store.renewLease(mapping, now + 3_600_000, now),
    })),
  ),
  mutation(
    'waits-out-its-clock',
    'waits for a time that it was given by a clock that was ahead',
    /the claim of .* ran out, and nothing hindered the bridge|nothing happens any more/,
    onStore(() => ({ mendTimes: async () => 0, makeAllDue: async () => 0 })),
  ),
  mutation('own-clock', "believes its own machine's clock", /is leased for \d+ ms/, ({ clock }) => ({
    clock: { ...clock, now: clock.machine.now },
  })),
  mutation(
    'forgets-what-is-open',
    'forgets what is older than its retention, be it closed or not',
    /the mapping of .* is pruned, and #\d+ is open/,
    onStore((store) => ({
      async prune(before, limit) {
        for (const taskId of await store.tasksOfRequests(await store.openRequests())) {
          const mapping = await store.openMapping(taskId);
          if (mapping !== undefined && mapping.created < before) {
            await store.release(mapping, { state: 'closed', resolved: mapping.created }, before);
          }
        }
        return store.prune(before, limit);
      },
    })),
  ),
  mutation('observer-drains', 'takes `observe` for `drain`', /only observes, and calls store/, ({ mode }) => ({
    mode: mode === 'observe' ? 'drain' : mode,
  })),
  mutation(
    'unread-roles-are-empty',
    'believes that a role has no scopes when it could not ask',
    /nothing is wrong with the task/,
    onQueue((queue) => ({ expandScopes: (scopes) => queue.expandScopes(scopes).catch(() => scopes) })),
  ),
  mutation(
    'any-role-will-do',
    'takes every role for the one that a builder wants',
    /was made for .*, which is (un|mis)/,
    onQueue(() => ({ expandScopes: async (scopes) => [...scopes, 'buildbot-bridge:*'] })),
  ),
  mutation(
    'unscheduled-is-pending',
    'does not wait for what a task depends on',
    /was called for .*, which is unscheduled/,
    ({ queue, broker }) => ({
      queue: {
        ...queue,
        ...withStatuses(queue, (seen) => {
          if (seen.kind !== 'present' || seen.value.runs.length > 0) {
            return seen;
          }
          const run = { runId: 0, state: 'pending' as const, reasonCreated: 'scheduled', scheduled: 0 };
          return { kind: 'present', value: { ...seen.value, runs: [run] } };
        }),
      },
      broker: {
        ...broker,
        subscribe(options) {
          const more = options.bindings.slice(0, 1).map(({ exchange, pattern }) => ({
            exchange: exchange.replace(/[^/]*$/, 'task-defined'),
            pattern,
          }));
          return broker.subscribe({ ...options, bindings: [...options.bindings, ...more] });
        },
      },
    }),
  ),
  mutation(
    'never-cancels',
    'leaves a build alone that no run wants',
    /nobody asked for its cancel|goes on although .* was exception long ago/,
    ({ ci }) => ({
      ci: { ...ci, cancel: () => Promise.reject(notNow()) },
    }),
  ),
  mutation(
    'hides-retries',
    'does not tell of a RETRY while the request is built again',
    /was to be built again long ago, and nobody was told/,
    onRequests(withoutRetries),
  ),
  mutation(
    'claims-late',
    'claims a run ten minutes late',
    /began to be built long ago, and nobody was told/,
    ({ queue, clock }) => {
      const isLate = tenMinutesLate(clock);
      return {
        queue: {
          ...queue,
          claim: (taskId, runId) =>
            isLate(`${taskId}/${runId}`) ? queue.claim(taskId, runId) : Promise.reject(notYet()),
        },
      };
    },
  ),
  mutation(
    'resolves-late',
    'resolves a run ten minutes late',
    /was ended by \w+ long ago, and nobody was told/,
    ({ queue, clock }) => {
      const isLate = tenMinutesLate(clock);
      return {
        queue: {
          ...queue,
          resolve: (taskId, runId, resolution) =>
            isLate(`${taskId}/${runId}`) ? queue.resolve(taskId, runId, resolution) : Promise.reject(notYet()),
        },
      };
    },
  ),
  mutation('cancels-late', 'asks for a cancel ten minutes late', /nobody asked for its cancel/, ({ ci, clock }) => {
    const isLate = tenMinutesLate(clock);
    return {
      ci: {
        ...ci,
        cancel: (request, because) =>
          isLate(`#${request.buildRequestId}`) ? ci.cancel(request, because) : Promise.reject(notNow()),
      },
    };
  }),
  mutation(
    'no-trace',
    'writes no trace',
    /no trace tells of/,
    onStore(() => ({ addEvents: async () => undefined })),
  ),
  mutation(
    'trace-of-closings',
    'names every event of a trace alike',
    /no trace tells of/,
    onStore((store) => ({
      addEvents: (events) => store.addEvents(events.map((event) => ({ ...event, what: 'closeMapping' }))),
    })),
  ),
  mutation(
    'trace-of-reruns',
    'tells of reruns where it has resolved a run',
    /the trace says rerunTask of .*, and nobody asked/,
    onStore((store) => ({
      addEvents: (events) =>
        store.addEvents(
          events.flatMap((event) => (event.what === 'resolveRun' ? [event, { ...event, what: 'rerunTask' }] : [event])),
        ),
    })),
  ),
  mutation(
    'no-trace-of-cancels',
    'does not tell of the cancels that it asked for',
    /no trace tells of cancelRequest by/,
    onStore((store) => withEvents(store, (event) => (event.what === 'cancelRequest' ? [] : [event]))),
  ),
  mutation(
    'no-trace-of-reruns',
    'does not tell of the reruns that it asked for',
    /no trace tells of rerunTask by/,
    onStore((store) => withEvents(store, (event) => (event.what === 'rerunTask' ? [] : [event]))),
  ),
  mutation(
    'trace-of-cancels',
    'tells of a cancel where it has claimed a run',
    /the trace says cancelRequest of .*, and b\S+ asked Buildbot for none/,
    onStore((store) =>
      withEvents(store, (event) =>
        event.what === 'claimRun' ? [event, { ...event, what: 'cancelRequest' }] : [event],
      ),
    ),
  ),
  mutation(
    'trace-of-another-result',
    'tells of another result than a run has',
    /the trace says that .* is failed, and it is completed/,
    onStore((store) => ({
      addEvents: (events) =>
        store.addEvents(
          events.map((event) => ({
            ...event,
            detail: event.detail.replace('resolved: completed', 'resolved: failed'),
          })),
        ),
    })),
  ),
  mutation(
    'all-is-completed',
    'keeps `completed` as the resolution, whatever it was',
    /the mapping of .* says completed, and the queue/,
    onStore((store) => ({
      update: (mapping, changes, now) => store.update(mapping, completed(changes), now),
      release: (mapping, changes, now) => store.release(mapping, completed(changes), now),
    })),
  ),
  mutation(
    'empty-status',
    'says nothing in `status.json`',
    /and its status says: undefined/,
    onQueue((queue) =>
      withContents(queue, STATUS, (artifact) => ({
        ...{ kind: 'content', name: artifact.name, contentType: 'application/json' },
        ...{ content: '{}', expires: artifact.expires },
      })),
    ),
  ),
  mutation(
    'no-properties',
    'puts an error in place of the properties, always',
    /an error stands in for public\/properties.json of/,
    onQueue((queue) => withContents(queue, PROPERTIES, asError)),
  ),
  mutation(
    'no-log',
    'puts an error in place of the log, always',
    /an error stands in for public\/logs\/live_backing.log of/,
    onQueue((queue) => withContents(queue, BACKING_LOG, asError)),
  ),
  mutation(
    'gives-up-a-run',
    'puts nothing more for a run after one `error` artifact that failed',
    /was resolved .* without public/,
    ({ queue }) => {
      const givenUp = new Set<string>();
      return {
        queue: {
          ...queue,
          async putArtifact(taskId, runId, artifact) {
            const run = `${taskId}/${runId}`;
            if (givenUp.has(run)) {
              return;
            }
            try {
              await queue.putArtifact(taskId, runId, artifact);
            } catch (error) {
              if (artifact.kind !== 'error') {
                throw error;
              }
              givenUp.add(run);
            }
          },
        },
      };
    },
  ),
  mutation(
    'uploads-take-all-connections',
    'asks the queue nothing while two uploads go on',
    /ran out, and nothing hindered|has been pending for long, has no mapping/,
    ({ queue }) => ({ queue: withOneRoom(queue, 2) }),
  ),
];
