/** Small vocabulary for tests: a task, a build request, a mapping, with only what matters said. */
import type { Build, RequestView, ResultName } from '../../src/domain/build.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import type { TaskRun, TaskStatus } from '../../src/domain/task.ts';
import type { Policy } from '../../src/reflector/decide.ts';

export const TASK_ID = 'RwycG7IhT6CSdg6WvVhkGw';
export const NOW = Date.UTC(2026, 10, 23, 21, 0, 0);
export const MINUTE = 60_000;

export const POLICY: Policy = {
  taskQueueId: 'buildbot/bridge',
  workerGroup: 'buildbot-bridge',
  workerId: 'buildbot-bridge',
  results: { warnings: 'failed', failure: 'failed', exception: 'internal-error', skipped: 'internal-error' },
  reclaimThresholdMs: 10 * MINUTE,
  recheckMs: MINUTE,
  absentGraceMs: 2 * MINUTE,
  maxSubmissions: 5,
  maxReruns: 5,
  maxUploadAttempts: 10,
};

export const pending = (): Partial<TaskRun> => ({ state: 'pending' });
export const ours = (takenUntil = NOW + 20 * MINUTE): Partial<TaskRun> => ({
  state: 'running',
  workerGroup: POLICY.workerGroup,
  workerId: POLICY.workerId,
  takenUntil,
});
export const anothers = (): Partial<TaskRun> => ({ ...ours(), workerId: 'somebody-else' });
export const exception = (reasonResolved: string): Partial<TaskRun> => ({ state: 'exception', reasonResolved });

/** A task with these runs, in order. */
export function aTask(runs: readonly Partial<TaskRun>[], more: Partial<TaskStatus> = {}): TaskStatus {
  return {
    taskId: TASK_ID,
    taskQueueId: POLICY.taskQueueId,
    schedulerId: 'test-sched',
    taskGroupId: 'BaB2_cO5SCyarhnpEAkKaw',
    priority: 'low',
    deadline: NOW + 60 * MINUTE,
    expires: NOW + 24 * 60 * MINUTE,
    retriesLeft: 5,
    ...more,
    runs: runs.map((run, runId) => ({
      runId,
      state: 'pending',
      reasonCreated: runId === 0 ? 'scheduled' : 'retry',
      scheduled: NOW - 40 * MINUTE,
      ...run,
    })),
  };
}

/** A build that ended with these results, or still runs (`undefined`). */
export function aBuild(results: ResultName | undefined, more: Partial<Build> = {}): Build {
  const isComplete = more.isComplete ?? results !== undefined;
  return {
    buildId: 14,
    number: 5,
    isComplete,
    stateText: results ?? 'building',
    startedAt: NOW - 10 * MINUTE,
    ...(results === undefined ? {} : { results }),
    ...(isComplete ? { completedAt: NOW - MINUTE } : {}),
    worker: 'w1',
    url: 'http://buildbot.example.com/#/builders/5/builds/5',
    ...more,
  };
}

export function aRequest(more: Partial<RequestView> = {}): RequestView {
  return { buildRequestId: 17, builder: 'linux64-build', state: 'pending', builds: [], ...more };
}

export const requestPending = (...builds: Build[]) => aRequest({ builds });
export const requestBuilding = (...before: Build[]) =>
  aRequest({ state: 'building', builds: [...before, aBuild(undefined)] });
export const requestComplete = (results: ResultName, ...builds: Build[]) =>
  aRequest({
    state: 'complete',
    results,
    builds,
    ...(results === 'CANCELLED' ? { cancelledBy: 'person' as const } : {}),
  });

export function aMapping(more: Partial<Mapping> = {}): Mapping {
  return {
    id: 1,
    version: 1,
    taskId: TASK_ID,
    runId: 0,
    taskGroupId: 'BaB2_cO5SCyarhnpEAkKaw',
    builder: 'linux64-build',
    state: 'submitted',
    externalId: `${TASK_ID}/0/1`,
    submissions: 1,
    buildRequestId: 17,
    collapseKey: null,
    hasSlot: false,
    priority: 2,
    retriesReported: 0,
    reruns: 0,
    cancels: 0,
    takenUntil: null,
    reclaimAt: null,
    deadline: NOW + 60 * MINUTE,
    nextCheckAt: NOW - 1,
    absentSince: null,
    requestAbsentSince: null,
    leaseOwner: 'test#1',
    leaseUntil: NOW + MINUTE,
    attempts: 0,
    lastError: null,
    created: NOW - 30 * MINUTE,
    updated: NOW - MINUTE,
    resolved: null,
    resolution: null,
    ...more,
  };
}
