/** A small model of both sides, to see what becomes of a task when decisions are carried out one after the other. */
import type { TaskRun, TaskStatus } from '../../src/domain/task.ts';
import type { Action } from '../../src/reflector/actions.ts';
import { reclaimTime } from '../../src/reflector/claims.ts';
import { decide, type Observation, type SeenAdmission } from '../../src/reflector/decide.ts';
import { aMapping, aRequest, MINUTE, NOW, POLICY } from './builders.ts';

export interface World {
  readonly observation: Observation;
  readonly admission: SeenAdmission | null;
  /** Everything done so far. */
  readonly done: readonly Action[];
}

const RETRIED = new Set(['worker-shutdown', 'intermittent-task', 'claim-expired']);

/**
 * Decides and carries out until there is nothing more to do, at most `maxSteps` times.
 * @param claimMs how long claims last, in this deployment
 */
export function settle(
  start: Observation,
  maxSteps: number,
  claimMs = 20 * MINUTE,
): World & { readonly isAtRest: boolean } {
  let world: World = { observation: start, admission: start.admission, done: [] };
  for (let step = 0; step < maxSteps; step += 1) {
    const actions = decide(world.observation, POLICY, NOW);
    const active = actions.filter((action) => action.do !== 'lookAgain');
    if (active.length === 0) {
      return { ...world, isAtRest: true };
    }
    for (const action of active) {
      const next = carryOut(world.observation, action, world.admission, claimMs);
      world = { ...world, done: [...world.done, action], observation: next };
    }
  }
  return { ...world, isAtRest: false };
}

/** What the world looks like after an action. */
function carryOut(seen: Observation, action: Action, admission: SeenAdmission | null, claimMs: number): Observation {
  const takenUntil = NOW + claimMs;
  const claimed = { takenUntil, reclaimAt: reclaimTime(takenUntil, POLICY.reclaimThresholdMs, NOW) };
  const mapped = (changes: Partial<NonNullable<Observation['mapping']>>) =>
    seen.mapping === null ? seen : { ...seen, mapping: { ...seen.mapping, ...changes } };
  switch (action.do) {
    case 'recordIntent': {
      const { runId, state } = action;
      return {
        ...seen,
        admission,
        mapping: aMapping({ runId, state, buildRequestId: null, submissions: state === 'intended' ? 1 : 0 }),
        request: { kind: 'none' },
      };
    }
    case 'takeSlot':
      return {
        ...mapped({ state: 'intended', submissions: (seen.mapping?.submissions ?? 0) + 1 }),
        admission,
        request: { kind: 'none' },
      };
    case 'notePriority':
      return mapped({ priority: action.priority });
    case 'submit':
      return {
        ...mapped({ state: 'submitted', buildRequestId: 17 }),
        request: { kind: 'present', value: aRequest() },
      };
    case 'adopt':
      return mapped({ state: 'submitted', buildRequestId: action.buildRequestId });
    case 'refuse':
      return { ...mapped({ state: 'refusing' }), request: { kind: 'none' } };
    case 'resubmit':
      return { ...mapped({ state: 'held', buildRequestId: null }), request: { kind: 'none' } };
    case 'follow':
      return mapped({ runId: action.runId, takenUntil: action.takenUntil, retriesReported: action.retriesReported });
    case 'claimRun': {
      const claim = {
        state: 'running',
        workerGroup: POLICY.workerGroup,
        workerId: POLICY.workerId,
        takenUntil,
      } as const;
      return {
        ...mapped({ ...claimed, retriesReported: action.retriesReported }),
        task: withRun(seen.task, action.runId, claim),
      };
    }
    case 'reclaimRun':
      return { ...mapped(claimed), task: withRun(seen.task, action.runId, { takenUntil }) };
    case 'resolveRun': {
      const { resolution } = action;
      const reasonResolved = resolution.state === 'exception' ? resolution.reason : resolution.state;
      const task = withRun(seen.task, action.runId, { state: resolution.state, reasonResolved });
      return { ...mapped({ takenUntil: null }), task: retried(task) };
    }
    case 'cancelTask':
      return { ...mapped({ takenUntil: null }), task: withLastRun(seen.task, 'canceled') };
    case 'rerunTask':
      return {
        ...mapped({ reruns: (seen.mapping?.reruns ?? 0) + 1 }),
        task: onTask(seen.task, (task) => ({ ...task, runs: [...task.runs, newRun(task, 'rerun')] })),
      };
    case 'cancelRequest':
      return seen.request.kind === 'present'
        ? {
            ...mapped({ state: 'cancelling' }),
            request: {
              kind: 'present',
              value: { ...seen.request.value, state: 'complete', results: 'CANCELLED', cancelledBy: 'person' },
            },
          }
        : seen;
    case 'noteAbsence':
      return mapped({ [action.of === 'task' ? 'absentSince' : 'requestAbsentSince']: action.isMissing ? NOW : null });
    case 'closeMapping':
      return { ...seen, mapping: null, admission, request: { kind: 'none' } };
    case 'uploadOutcome':
    case 'uploadExplanation':
    case 'announceBuild':
    case 'lookAgain':
      return seen;
    default:
      return action satisfies never;
  }
}

function onTask(task: Observation['task'], change: (task: TaskStatus) => TaskStatus): Observation['task'] {
  return task.kind === 'present' ? { kind: 'present', value: change(task.value) } : task;
}

function withRun(task: Observation['task'], runId: number, changes: Partial<TaskRun>): Observation['task'] {
  return onTask(task, (value) => ({
    ...value,
    runs: value.runs.map((run) => (run.runId === runId ? { ...run, ...changes } : run)),
  }));
}

function withLastRun(task: Observation['task'], reasonResolved: string): Observation['task'] {
  return onTask(task, (value) => {
    const last = value.runs.at(-1);
    return last === undefined || !['pending', 'running'].includes(last.state)
      ? value
      : { ...value, runs: [...value.runs.slice(0, -1), { ...last, state: 'exception', reasonResolved }] };
  });
}

function newRun(task: TaskStatus, reasonCreated: string): TaskRun {
  return { runId: task.runs.length, state: 'pending', reasonCreated, scheduled: NOW };
}

/** The queue tries again by itself while retries are left. */
function retried(task: Observation['task']): Observation['task'] {
  return onTask(task, (value) =>
    RETRIED.has(value.runs.at(-1)?.reasonResolved ?? '') && value.retriesLeft > 0
      ? { ...value, retriesLeft: value.retriesLeft - 1, runs: [...value.runs, newRun(value, 'retry')] }
      : value,
  );
}
