/**
 * What to do about a task, decided from what was seen of both sides. Pure: no I/O, no clock, no randomness, no
 * logging. Running it again after its actions were carried out finds nothing left to do.
 *
 *  mapping     task's last run               build request            then
 *  ----------  ----------------------------  -----------------------  ---------------------------------------------
 *  none        pending                       -                        recordIntent (refusing | intended)
 *  none        running, ours                 -                        recordIntent: look for its request
 *  none        anything else                 -                        nothing
 *  any         unreadable                    -                        look again; reclaim when takenUntil is near
 *  any         absent, after the grace       open                     cancelRequest
 *  any         absent, after the grace       complete, none           closeMapping
 *  any         absent, after the grace       absent, after its own    closeMapping
 *  refusing    pending                       -                        claimRun
 *  refusing    running, ours                 -                        uploadExplanation, resolveRun malformed-payload
 *  held        pending | running, ours       -                        notePriority, where it was changed;
 *                                                                     takeSlot (stays held while it is taken)
 *  intended    pending | running, ours       not looked for: new      submit
 *  intended    any                           present                  adopt
 *  intended    pending | running, ours       absent                   submit, once a late answer is out of the question;
 *                                                                     resubmit, if another bridge's was looked for
 *  intended    pending n+1                   not looked for: new      closeMapping: run n+1 gets an intent of its own
 *  any         pending n+1, after a retry    any                      follow: the same request serves run n+1
 *  held,       pending n+1, run n canceled   absent                   follow: run n+1 has all its submissions, but for
 *  intended                                                           one that may still take effect
 *  submitted   pending n+1, run n canceled   open                     cancelRequest: run n+1 gets a request of its own
 *  submitted   pending n+1, run n reported   complete, absent         closeMapping: run n+1 gets a request of its own
 *  submitted   pending n+1, otherwise        complete                 follow: its result was never reported
 *  submitted   pending                       pending                  wait
 *  submitted   pending                       building                 claimRun
 *  submitted   pending                       complete, CANCELLED      cancelTask; by a master's shutdown: resubmit
 *  submitted   pending                       collapsed                resubmit, bounded; then claimRun
 *  submitted   pending                       complete                 claimRun
 *  submitted   running, ours                 open, a new RETRY        uploadOutcome, resolveRun worker-shutdown
 *  submitted   running, ours                 building                 follow, where it still has a place for an
 *                                                                     unclaimed request: others may have it now
 *  submitted   running, ours                 open                     reclaimRun when takenUntil is near
 *  submitted   running, ours                 complete, CANCELLED      uploadOutcome, cancelTask; past the deadline: wait;
 *                                                                     by a master's shutdown: resolve worker-shutdown
 *  submitted   running, ours                 collapsed                resubmit, bounded; then resolveRun
 *  submitted   running, ours                 complete, settling       wait for its properties and log, but not
 *                                                                     until the deadline
 *  submitted   running, ours                 complete                 uploadOutcome, resolveRun by the result policy
 *  submitted   pending | running, ours       absent, after the grace  claimRun; then resolveRun internal-error
 *  any         running, another worker's     open                     cancelRequest, loudly
 *  any         running, another worker's     complete, absent, none   closeMapping
 *  any         running, ours, not recorded   any                      follow: the claim is recorded; announceBuild
 *  submitted   resolved worker-shutdown,     after a RETRY            rerunTask, bounded: Buildbot builds again anyway
 *              no retries left
 *  any         resolved                      open                     cancelRequest, repeated until it ends
 *  any         resolved                      complete, absent, none   closeMapping
 *  cancelling  pending n+1                   complete, absent         closeMapping: run n+1 gets a request of its own
 *  any         any                           unreadable               look again; reclaim when takenUntil is near
 *  refusing,   pending | running, ours       -, whether it can be     look again; reclaim when takenUntil is near; but
 *  intended                                  built is unreadable      refused is refused shortly before the deadline
 *  held,       running, ours, past its       any but present          look again: the queue will resolve the run
 *  intended    deadline
 */
import type { RequestView } from '../domain/build.ts';
import type { Mapping } from '../domain/mapping.ts';
import type { TaskStatus } from '../domain/task.ts';
import { isRunningOn, lastRun, priorityRank } from '../domain/task.ts';
import type { BridgeError } from '../errors.ts';
import type { Seen } from '../ports.ts';
import type { Action } from './actions.ts';
import type { Admission } from './admission.ts';
import { abandon, type Facts, followClaimed, lookAgain, nextLook, reclaimIfNear, unreadable } from './decide/facts.ts';
import { decideNextRun, decidePending } from './decide/pending.ts';
import { decideResolved } from './decide/resolved.ts';
import { decideRunning } from './decide/running.ts';
import type { ResultPolicy } from './outcome.ts';

/** What was seen. */
export interface Observation {
  readonly mapping: Mapping | null;
  readonly task: Seen<TaskStatus>;
  /**
   * The mapping's build request, looked up by id, or by external id while only an intent is known. `none`: there is
   * certainly none, because nothing was ever submitted under the mapping's external id.
   */
  readonly request: Seen<RequestView> | { readonly kind: 'none' };
  /** Only where something is to be submitted or refused. */
  readonly admission: SeenAdmission | null;
}

/** What is known of whether a task may be built, or why nobody can tell. */
export type SeenAdmission = Admission | { readonly kind: 'unreadable'; readonly error: BridgeError };

/** The rules that an operator may set, and the bounds. Durations are milliseconds. */
export interface Policy {
  readonly taskQueueId: string;
  readonly workerGroup: string;
  readonly workerId: string;
  readonly results: ResultPolicy;
  /** Reclaim when `takenUntil` is nearer than this, and a quarter of the claim is over. */
  readonly reclaimThresholdMs: number;
  /** How long a mapping with nothing to do may go unseen. */
  readonly recheckMs: number;
  /** How long something seen before may be missing before that is believed. */
  readonly absentGraceMs: number;
  /** How many requests may be submitted for one run, when they are collapsed or lost to a master's shutdown. */
  readonly maxSubmissions: number;
  /** How many reruns the bridge may ask for itself. */
  readonly maxReruns: number;
  /** After so many failed passes in a row, an upload that fails once more is given up. */
  readonly maxUploadAttempts: number;
}

/**
 * The actions to carry out now, in order.
 * @param now UTC milliseconds
 * @returns never empty while the mapping stays open: at the least it says when to look again
 */
export function decide(observation: Observation, policy: Policy, now: number): readonly Action[] {
  const { mapping, task } = observation;
  if (mapping === null) {
    return decideUnmapped(observation, policy, now);
  }
  const takenUntil = claimEnd(mapping, task, policy);
  const facts: Facts = { mapping, request: observation.request, policy, now, takenUntil };
  if (task.kind === 'unreadable') {
    return unreadable(facts, 'the task could not be read');
  }
  if (observation.request.kind === 'unreadable') {
    return unreadable(facts, 'the build request could not be read');
  }
  const absence = decideAbsence(facts, task);
  if (absence) {
    return absence;
  }
  if (task.kind === 'absent') {
    return abandon(facts, 'the queue no longer has the task');
  }
  return decideMapped(facts, task.value, observation.admission);
}

/** Without a fresh reading of the task the mapping's own knowledge has to do. */
function claimEnd(mapping: Mapping, task: Seen<TaskStatus>, policy: Policy): number | null {
  if (task.kind !== 'present') {
    return mapping.takenUntil;
  }
  const run = lastRun(task.value);
  return run?.runId === mapping.runId && isRunningOn(run, policy) ? (run.takenUntil ?? mapping.takenUntil) : null;
}

function decideUnmapped({ task, admission }: Observation, policy: Policy, now: number): readonly Action[] {
  if (task.kind !== 'present' || task.value.taskQueueId !== policy.taskQueueId) {
    return [];
  }
  const run = lastRun(task.value);
  const isWanted = run?.state === 'pending' && now < task.value.deadline;
  if (!run || !(isWanted || isRunningOn(run, policy))) {
    return [];
  }
  if (admission === null || admission.kind === 'ignored' || admission.kind === 'unreadable') {
    return [];
  }
  const because =
    run.state === 'pending'
      ? `run ${run.runId} is pending`
      : `run ${run.runId} is claimed by this bridge, which has no mapping of it`;
  return [
    {
      do: 'recordIntent',
      runId: run.runId,
      state: admission.kind === 'refused' ? 'refusing' : 'intended',
      because: admission.kind === 'refused' ? `${because}, but the task is refused` : because,
    },
  ];
}

/**
 * Notes when the task or the request is first found missing and when it is back; waits out the grace in between. Each
 * has a grace of its own: a request that hides for a moment is not gone because its task is.
 */
function decideAbsence(facts: Facts, task: Seen<TaskStatus>): readonly Action[] | undefined {
  const { mapping, request, policy, now } = facts;
  const { buildRequestId } = mapping;
  const isRequestMissing = request.kind === 'absent' && buildRequestId !== null;
  const both: readonly Absence[] = [
    { of: 'task', name: 'the task', isMissing: task.kind === 'absent', since: mapping.absentSince },
    {
      of: 'request',
      name: `build request ${buildRequestId}`,
      isMissing: isRequestMissing,
      since: mapping.requestAbsentSince,
    },
  ];
  // Noted at once, also while the other one is waited for: what was there meanwhile begins its grace anew.
  // What is noted of a time to come was noted by a clock that was ahead.
  const changed = both.find(({ isMissing, since }) => (isMissing ? since === null || since > now : since !== null));
  if (changed !== undefined) {
    const { of, name, isMissing } = changed;
    return [{ do: 'noteAbsence', of, isMissing, because: `${name} is ${isMissing ? 'missing' : 'there again'}` }];
  }
  for (const { name, since } of both) {
    const believed = (since ?? now) + policy.absentGraceMs;
    if (since !== null && now < believed) {
      const because = `${name} has been missing for less than the grace period`;
      return [...reclaimIfNear(facts), lookAgain(Math.min(believed, nextLook(facts)), because)];
    }
  }
  return undefined;
}

interface Absence {
  readonly of: 'task' | 'request';
  readonly name: string;
  readonly isMissing: boolean;
  readonly since: number | null;
}

function decideMapped(facts: Facts, task: TaskStatus, admission: SeenAdmission | null): readonly Action[] {
  const { mapping, request, policy } = facts;
  const run = lastRun(task);
  if (!run || run.runId < mapping.runId) {
    return [lookAgain(nextLook(facts), 'the queue does not show the mapped run yet')];
  }
  if (mapping.state === 'intended' && request.kind === 'present') {
    return [
      {
        do: 'adopt',
        buildRequestId: request.value.buildRequestId,
        because: `build request ${request.value.buildRequestId} of this submission was found`,
      },
    ];
  }
  const priority = priorityRank(task.priority);
  const isWanted = run.state === 'pending' || isRunningOn(run, policy);
  if (mapping.state === 'held' && mapping.priority !== priority && isWanted) {
    return [{ do: 'notePriority', priority, because: `its priority is ${task.priority} now` }];
  }
  switch (run.state) {
    case 'pending':
      return run.runId > mapping.runId ? decideNextRun(facts, task, run) : decidePending(facts, task, run, admission);
    case 'running':
      if (!isRunningOn(run, policy)) {
        return abandon(
          facts,
          `run ${run.runId} was claimed by another worker, ${run.workerGroup}/${run.workerId}`,
          true,
        );
      }
      return run.runId > mapping.runId
        ? followClaimed(facts, run, `run ${run.runId} is claimed by this bridge`)
        : decideRunning(facts, run, admission);
    case 'completed':
    case 'failed':
    case 'exception':
      return decideResolved(facts, task, run);
    default:
      return run.state satisfies never;
  }
}
