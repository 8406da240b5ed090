/** The mapped run is running, claimed by this bridge. */
import type { RequestView } from '../../domain/build.ts';
import { isCollapsed, retryCount } from '../../domain/build.ts';
import type { TaskRun } from '../../domain/task.ts';
import type { Action } from '../actions.ts';
import type { SeenAdmission } from '../decide.ts';
import { resolutionOf, runResults } from '../outcome.ts';
import { isLastChance } from '../upload-time.ts';
import {
  abandon,
  explain,
  type Facts,
  follow,
  followClaimed,
  isLostToShutdown,
  lookAgain,
  nextLook,
  reclaimIfNear,
  resolveRun,
  resubmit,
  unreadable,
  uploadAndResolve,
  uploadOutcome,
} from './facts.ts';
import { decideUnsubmitted } from './unsubmitted.ts';

/** @param admission where the run is claimed and has no build request yet */
export function decideRunning(facts: Facts, run: TaskRun, admission: SeenAdmission | null): readonly Action[] {
  const { mapping, request } = facts;
  if (mapping.takenUntil === null) {
    return followClaimed(facts, run, 'the run was claimed, but the claim was not recorded');
  }
  const near = reclaimIfNear(facts);
  switch (mapping.state) {
    case 'refusing':
      // At the last chance there is no time to read it in: that the task is refused is known.
      if (admission?.kind === 'unreadable' && !isLastChance(mapping.deadline, facts.now)) {
        return unreadable(facts, 'why the task is refused could not be read');
      }
      return [
        ...near,
        explain(facts, run, 'refused'),
        resolveRun(run, { state: 'exception', reason: 'malformed-payload' }, 'the task cannot be built here'),
      ];
    case 'held':
    case 'intended':
      return decideUnsubmitted(facts, admission);
    case 'cancelling':
      return request.kind === 'present' && request.value.state !== 'complete'
        ? [...near, ...abandon(facts, 'the build request is being cancelled')]
        : [...near, { do: 'resubmit', because: `run ${run.runId} is still claimed and has no build request` }];
    case 'closed':
      return [];
    case 'submitted':
      break;
    default:
      return mapping.state satisfies never;
  }
  if (request.kind !== 'present') {
    return [
      ...near,
      explain(facts, run, 'request-gone'),
      resolveRun(run, { state: 'exception', reason: 'internal-error' }, 'its build request is gone from Buildbot'),
    ];
  }
  return request.value.state === 'complete'
    ? [...near, ...decideOutcome(facts, run, request.value)]
    : decideBuilding(facts, run, request.value);
}

/** Our run is running and its request is open. */
function decideBuilding(facts: Facts, run: TaskRun, request: RequestView): readonly Action[] {
  const { mapping, policy } = facts;
  const near = reclaimIfNear(facts);
  if (retryCount(request) > mapping.retriesReported) {
    const because = 'its build ended RETRY and Buildbot builds the same request again';
    return [...near, ...uploadAndResolve(facts, run, resolutionOf('RETRY', policy.results), because)];
  }
  if (mapping.hasSlot && request.state === 'building') {
    return [follow(facts, run, 'its build has begun: others may be asked for now')];
  }
  return near.length > 0 ? near : [lookAgain(nextLook(facts), `the build request is ${request.state}`)];
}

/** Our run is running and its request is complete. */
function decideOutcome(facts: Facts, run: TaskRun, request: RequestView): readonly Action[] {
  const { mapping, policy, now } = facts;
  // The queue takes no resolution after the deadline.
  if (request.isSettling && !isLastChance(mapping.deadline, now)) {
    return [lookAgain(nextLook(facts), 'its build is over; properties and log are on their way')];
  }
  if (isCollapsed(request)) {
    return (
      resubmit(facts, request) ?? [
        explain(facts, run, 'collapsed'),
        resolveRun(
          run,
          { state: 'exception', reason: 'internal-error' },
          'its build requests were collapsed again and again',
        ),
      ]
    );
  }
  if (isLostToShutdown(request)) {
    return uploadAndResolve(
      facts,
      run,
      resolutionOf('CANCELLED', policy.results),
      'its build was cancelled by a stopping master',
    );
  }
  if (request.results === 'CANCELLED') {
    if (now >= mapping.deadline) {
      return [
        lookAgain(now + policy.recheckMs, 'no task can be canceled past its deadline; the queue will resolve the run'),
      ];
    }
    const because = 'its build was cancelled in Buildbot';
    return [uploadOutcome(facts, run, 'canceled', because), { do: 'cancelTask', runId: run.runId, because }];
  }
  const results = runResults(request);
  return uploadAndResolve(
    facts,
    run,
    resolutionOf(results, policy.results),
    `its build request is complete: ${results ?? 'with results that this bridge does not know'}`,
  );
}
