/** One claimed run of one instance whose deadline comes, in virtual time: the real sweep, work, reconciler and mapping store. */
import pino from 'pino';
import type { TaskStatus } from '../../src/domain/task.ts';
import { QueueError } from '../../src/errors.ts';
import type { LegacyCi, Resolution, TaskQueue } from '../../src/ports.ts';
import { sweep } from '../../src/reflector/sweep.ts';
import { createWork } from '../../src/reflector/work.ts';
import { aBuild, aTask, MINUTE, NOW, ours, POLICY, requestComplete } from './builders.ts';
import { openMemoryStore } from './memory-store.ts';
import { createManualClock, type ManualClock, newTaskId } from './queue-emulator.ts';
import { aReconciler } from './reconciler.ts';
import { aLegacyCi, aQueue } from './stubs.ts';

const SECOND = 1000;
const LEASE_MS = 90_000;
const CLAIM_MS = 20 * MINUTE;
const REQUEST_ID = 17;
const LIMITS = { instance: 'test', leaseMs: LEASE_MS, batchSize: 100, concurrency: 16 };

export interface DeadlineStory {
  /** In seconds, from when the run's build was over. */
  readonly deadline: number;
  /** When the first round begins, in seconds; others follow each minute. */
  readonly round?: number;
  /** `submitted`, with a build that is over, unless given. */
  readonly state?: 'submitted' | 'refusing';
  /** In seconds before the deadline: no resolution is taken earlier. */
  readonly resolvedFrom?: number;
  /** What of the queue is not as usual. */
  readonly queue?: (clock: ManualClock) => Partial<TaskQueue>;
  readonly ci?: (clock: ManualClock) => Partial<LegacyCi>;
}

/** What was told, and how many seconds before the deadline; undefined if nothing was. */
export type Told = { readonly resolution: Resolution; readonly before: number } | undefined;

export const noAnswer = (what: string) => new QueueError('queue-unavailable', what, { isTransient: true });

/** Lets the time pass until the run is resolved, or its deadline has passed. */
export async function tellDeadline(story: DeadlineStory): Promise<Told> {
  const { round = 0, state = 'submitted', resolvedFrom = Number.POSITIVE_INFINITY } = story;
  const clock = createManualClock(NOW);
  const store = await openMemoryStore();
  const log = pino({ level: 'silent' });
  const taskId = newTaskId();
  const deadline = NOW + story.deadline * SECOND;
  let takenUntil = NOW + CLAIM_MS;
  let told: Told;

  function status(): TaskStatus {
    const run = ours(takenUntil);
    const isOver = told !== undefined || clock.now() >= deadline;
    return aTask([isOver ? { ...run, state: 'exception' } : run], { taskId, deadline });
  }
  function checkRunning(): void {
    if (status().runs[0]?.state !== 'running') {
      throw new QueueError('queue-conflict', 'the run is over');
    }
  }
  const queue = aQueue({
    status: async () => ({ kind: 'present', value: status() }),
    statuses: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: status() }])),
    task: async () => ({ kind: 'present', value: { ...status(), scopes: [], payload: { buildername: 'b' } } }),
    async reclaim() {
      checkRunning();
      takenUntil = clock.now() + CLAIM_MS;
      return { takenUntil };
    },
    async resolve(_taskId, _runId, resolution) {
      const before = (deadline - clock.now()) / SECOND;
      if (before > resolvedFrom) {
        throw noAnswer('503');
      }
      checkRunning();
      told = { resolution, before };
      return status();
    },
    putArtifact: async () => undefined,
    ...story.queue?.(clock),
  });
  const complete = { ...requestComplete('SUCCESS', aBuild('SUCCESS')), buildRequestId: REQUEST_ID };
  const ci = aLegacyCi({
    readMany: async (ids) => new Map(ids.map((id) => [id, { kind: 'present', value: complete }])),
    outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
    builders: async (wanted) => new Set([wanted]),
    problems: async () => [],
    collapseKey: () => null,
    ...story.ci?.(clock),
  });
  const policy = { ...POLICY, recheckMs: 54_000, maxUploadAttempts: 20 };
  const handOver = (id: string, isLast: boolean) => work.handOver(id, isLast);
  const reconciler = aReconciler({ queue, ci, store, clock, log, policy, handOver });
  const work = createWork({ look: reconciler.look, whole: reconciler.reconcile, concurrency: 16, clock, log });

  const stored = await store.insert(
    {
      ...{ taskId, runId: 0, taskGroupId: taskId, builder: 'b', externalId: `${taskId}/0/1`, priority: 2, deadline },
      ...{ state, takenUntil, submissions: 1, collapseKey: null, hasSlot: false },
    },
    { owner: 'x', leaseUntil: NOW, now: NOW },
  );
  if (stored.kind !== 'stored') {
    throw new Error(stored.kind);
  }
  const buildRequestId = state === 'submitted' ? { buildRequestId: REQUEST_ID } : {};
  await store.release(stored.mapping, { ...buildRequestId, reclaimAt: NOW + CLAIM_MS / 2 }, NOW);

  let isSweeping = false;
  const { recheckMs, reclaimThresholdMs } = policy;
  for (let second = 0; told === undefined && clock.now() < deadline; second += 1) {
    if (second % 60 === round && !isSweeping) {
      const parts = { store, queue, ci, clock, log, reconciler, ...LIMITS, recheckMs, reclaimThresholdMs };
      isSweeping = true;
      void sweep(parts, new AbortController().signal).finally(() => {
        isSweeping = false;
      });
    }
    await settled();
    clock.advance(SECOND);
    await settled();
  }
  await store.close();
  return told;
}

/** What goes on at one time is over: nothing here waits for anything but the clock and the database in memory. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}
