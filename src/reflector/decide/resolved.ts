/** The task is resolved. */
import type { TaskRun, TaskStatus } from '../../domain/task.ts';
import type { Action } from '../actions.ts';
import { abandon, type Facts, isLostToShutdown, wasRetry } from './facts.ts';

/** The task is resolved: nobody wants the request, unless Buildbot alone keeps the task from its result. */
export function decideResolved(facts: Facts, task: TaskStatus, run: TaskRun): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  const isBuiltAgain =
    mapping.state === 'submitted' &&
    request.kind === 'present' &&
    wasRetry(facts, request.value) &&
    !isLostToShutdown(request.value);
  if (
    isBuiltAgain &&
    run.reasonResolved === 'worker-shutdown' &&
    mapping.reruns < policy.maxReruns &&
    now < task.deadline
  ) {
    return [{ do: 'rerunTask', because: 'no retries are left, but Buildbot builds the request again anyway' }];
  }
  return abandon(facts, `run ${run.runId} is resolved: ${run.reasonResolved ?? run.state}`);
}
