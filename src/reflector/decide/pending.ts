/** The task's last run is pending: the mapped one, or one after it. */
import { isCollapsed } from '../../domain/build.ts';
import type { TaskRun, TaskStatus } from '../../domain/task.ts';
import type { Action } from '../actions.ts';
import type { SeenAdmission } from '../decide.ts';
import {
  abandon,
  announceBuild,
  claimRun,
  type Facts,
  follow,
  isLostToShutdown,
  lookAgain,
  nextLook,
  RETRY_REASONS,
  resubmit,
  unreadable,
  wasRetry,
} from './facts.ts';
import { decideUnsubmitted } from './unsubmitted.ts';

/** After these nobody wants what the request would still bring, or has brought. */
const ABANDONED_REASONS = new Set(['canceled', 'deadline-exceeded', 'superseded']);

/** The mapped run is pending. */
export function decidePending(
  facts: Facts,
  task: TaskStatus,
  run: TaskRun,
  admission: SeenAdmission | null,
): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  if (now >= task.deadline) {
    return [lookAgain(now + policy.recheckMs, 'the deadline has passed; the queue will resolve the run')];
  }
  switch (mapping.state) {
    case 'refusing':
      if (admission?.kind === 'unreadable') {
        return unreadable(facts, 'why the task is refused could not be read');
      }
      return [claimRun(facts, run, 'a run has to be claimed before it can be resolved')];
    case 'held':
    case 'intended':
      return decideUnsubmitted(facts, admission);
    case 'cancelling':
      return abandon(facts, `the build request of run ${run.runId} is being cancelled; the run gets another`);
    case 'closed':
      return [];
    case 'submitted':
      break;
    default:
      return mapping.state satisfies never;
  }
  if (request.kind !== 'present') {
    return [claimRun(facts, run, 'the build request is gone; the run is claimed so that it can be resolved')];
  }
  const { value } = request;
  switch (value.state) {
    case 'pending':
      return [lookAgain(nextLook(facts), 'the build request is pending')];
    case 'building':
      return [claimRun(facts, run, 'its build has started'), announceBuild(run)];
    case 'complete':
      if (isLostToShutdown(value) || isCollapsed(value)) {
        return (
          resubmit(facts, value) ?? [claimRun(facts, run, 'its build request was lost too often; the run is resolved')]
        );
      }
      if (value.results === 'CANCELLED') {
        return [{ do: 'cancelTask', runId: run.runId, because: 'its build request was cancelled in Buildbot' }];
      }
      return [claimRun(facts, run, 'its build is over')];
    default:
      return value.state satisfies never;
  }
}

/** A run after the mapped one is pending: does the request serve it, or does it get one of its own? */
export function decideNextRun(facts: Facts, task: TaskStatus, run: TaskRun): readonly Action[] {
  const { mapping, request } = facts;
  // All runs from the mapped one on: a person can have ended a retry before it was ever seen.
  const reasons = task.runs
    .filter(({ runId }) => runId >= mapping.runId && runId < run.runId)
    .map(({ reasonResolved, state }) => reasonResolved ?? state);
  const reason = reasons.find((one) => !RETRY_REASONS.has(one)) ?? reasons.at(-1) ?? 'unknown';
  const isRetry = RETRY_REASONS.has(reason);
  if (mapping.state === 'intended' && request.kind === 'none') {
    // Its external id names the older run, and may be that of a request which an earlier mapping of it has had.
    return abandon(facts, `run ${run.runId} is pending and nothing was submitted for run ${mapping.runId}`);
  }
  if (mapping.buildRequestId === null) {
    const because = `run ${run.runId} is pending and nothing was built for run ${mapping.runId} yet`;
    return [follow(facts, run, because, !isRetry)];
  }
  if (mapping.state === 'cancelling' || ABANDONED_REASONS.has(reason)) {
    return abandon(facts, `run ${mapping.runId} ended ${reason}; run ${run.runId} gets a build request of its own`);
  }
  if (request.kind !== 'present') {
    // Only a result is reported so: the next run gets a build of its own, whatever has become of the request.
    const isReported = reasons.includes('intermittent-task');
    return isRetry && !isReported
      ? [follow(facts, run, `run ${run.runId} follows run ${mapping.runId}`)]
      : abandon(facts, `run ${mapping.runId} ended ${reason} and its build request is gone`);
  }
  if (request.value.state !== 'complete') {
    return isRetry
      ? [follow(facts, run, `run ${mapping.runId} ended ${reason} and its build request goes on`)]
      : abandon(facts, `run ${mapping.runId} ended ${reason}; run ${run.runId} gets a build request of its own`);
  }
  // A result that was reported as a retry would only be reported again: the next run gets a build of its own.
  const isUnreported =
    reasons.includes('claim-expired') || (reason === 'worker-shutdown' && wasRetry(facts, request.value));
  if (!isRetry || !isUnreported || isLostToShutdown(request.value)) {
    return abandon(facts, `run ${mapping.runId} ended ${reason}; run ${run.runId} gets a build request of its own`);
  }
  return [follow(facts, run, `run ${mapping.runId} ended ${reason} before the result of its build was reported`)];
}
