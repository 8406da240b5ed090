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
 *  submitted   pending n+1, run n canceled   open                     cancelRequest: run n+1 gets a request of its own
 *  submitted   pending n+1, run n reported   complete, absent         closeMapping: run n+1 gets a request of its own
 *  submitted   pending n+1, otherwise        complete                 follow: its result was never reported
 *  submitted   pending                       pending                  wait
 *  submitted   pending                       building                 claimRun
 *  submitted   pending                       complete, CANCELLED      cancelTask; by a master's shutdown: resubmit
 *  submitted   pending                       collapsed                resubmit, bounded; then claimRun
 *  submitted   pending                       complete                 claimRun
 *  submitted   running, ours                 open, a new RETRY        uploadOutcome, resolveRun worker-shutdown
 *  submitted   running, ours                 open                     reclaimRun when takenUntil is near
 *  submitted   running, ours                 complete, CANCELLED      uploadOutcome, cancelTask; past the deadline: wait;
 *                                                                     by a master's shutdown: resolve worker-shutdown
 *  submitted   running, ours                 collapsed                resubmit, bounded; then resolveRun
 *  submitted   running, ours                 complete, settling       wait for its properties and log
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
 */
import type { RequestView } from '../domain/build.ts';
import { isCollapsed, retryCount } from '../domain/build.ts';
import type { Mapping } from '../domain/mapping.ts';
import type { TaskRun, TaskStatus } from '../domain/task.ts';
import { isRunningOn, lastRun, priorityRank } from '../domain/task.ts';
import type { Resolution, Seen } from '../ports.ts';
import type { Action } from './actions.ts';
import type { Admission } from './admission.ts';
import { reclaimDue } from './claims.ts';
import { type ResultPolicy, resolutionName, resolutionOf, runResults } from './outcome.ts';

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
  readonly admission: Admission | null;
}

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

/** The queue retries these by itself; after them the build request that is under way belongs to the next run. */
const RETRY_REASONS = new Set(['worker-shutdown', 'intermittent-task', 'claim-expired']);

/** After these nobody wants what the request would still bring, or has brought. */
const ABANDONED_REASONS = new Set(['canceled', 'deadline-exceeded', 'superseded']);

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

interface Facts {
  readonly mapping: Mapping;
  readonly request: Observation['request'];
  readonly policy: Policy;
  readonly now: number;
  /** Until when the mapped run is claimed by this bridge; null: it is not. */
  readonly takenUntil: number | null;
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
  if (!run || !admission || admission.kind === 'ignored' || !(isWanted || isRunningOn(run, policy))) {
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

function decideMapped(facts: Facts, task: TaskStatus, admission: Admission | null): readonly Action[] {
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

/** A run after the mapped one is pending: does the request serve it, or does it get one of its own? */
function decideNextRun(facts: Facts, task: TaskStatus, run: TaskRun): readonly Action[] {
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
    return [follow(facts, run, `run ${run.runId} is pending and nothing was built for run ${mapping.runId} yet`)];
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

function decidePending(facts: Facts, task: TaskStatus, run: TaskRun, admission: Admission | null): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  if (now >= task.deadline) {
    return [lookAgain(now + policy.recheckMs, 'the deadline has passed; the queue will resolve the run')];
  }
  switch (mapping.state) {
    case 'refusing':
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

/** Nothing was submitted yet, or it is not known whether it was. */
function decideUnsubmitted(facts: Facts, admission: Admission | null): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  const near = reclaimIfNear(facts);
  if (mapping.state === 'held') {
    return [...near, { do: 'takeSlot', because: 'an older request that it would collapse may be out of the way' }];
  }
  if (request.kind === 'absent' && now < mapping.nextCheckAt) {
    return [...near, lookAgain(mapping.nextCheckAt, 'the answer to an earlier submission may still take effect')];
  }
  if (admission?.kind === 'refused') {
    return [...near, { do: 'refuse', because: 'the task can no longer be built here' }];
  }
  if (admission?.kind !== 'admitted') {
    return [...near, lookAgain(now + policy.recheckMs, 'another bridge looks after this builder now')];
  }
  if (mapping.submissions === 0) {
    // Taken over from another bridge, with the external id that its request would have: ours gets one of our own.
    return [...near, { do: 'resubmit', because: 'the bridge before this one has made no build request' }];
  }
  return [
    ...near,
    {
      do: 'submit',
      because:
        request.kind === 'absent' ? 'no build request of this submission exists' : 'the task is wanted and admitted',
    },
  ];
}

function decideRunning(facts: Facts, run: TaskRun, admission: Admission | null): readonly Action[] {
  const { mapping, request } = facts;
  if (mapping.takenUntil === null) {
    return followClaimed(facts, run, 'the run was claimed, but the claim was not recorded');
  }
  const near = reclaimIfNear(facts);
  switch (mapping.state) {
    case 'refusing':
      return [
        { do: 'uploadExplanation', runId: run.runId, about: 'refused', because: 'the author has to know why' },
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
      { do: 'uploadExplanation', runId: run.runId, about: 'request-gone', because: 'the author has to know why' },
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
  if (retryCount(request) > mapping.retriesReported) {
    return uploadAndResolve(
      facts,
      run,
      resolutionOf('RETRY', policy.results),
      'its build ended RETRY and Buildbot builds the same request again',
    );
  }
  const near = reclaimIfNear(facts);
  return near.length > 0 ? near : [lookAgain(nextLook(facts), `the build request is ${request.state}`)];
}

/** Our run is running and its request is complete. */
function decideOutcome(facts: Facts, run: TaskRun, request: RequestView): readonly Action[] {
  const { mapping, policy, now } = facts;
  if (request.isSettling) {
    return [lookAgain(nextLook(facts), 'its build is over; properties and log are on their way')];
  }
  if (isCollapsed(request)) {
    return (
      resubmit(facts, request) ?? [
        { do: 'uploadExplanation', runId: run.runId, about: 'collapsed', because: 'the author has to know why' },
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

/** The task is resolved: nobody wants the request, unless Buildbot alone keeps the task from its result. */
function decideResolved(facts: Facts, task: TaskStatus, run: TaskRun): readonly Action[] {
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

/** The request, if it is open, is to be cancelled; then the mapping is history. */
function abandon(facts: Facts, because: string, isLoud = false): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  if (mapping.state === 'intended' && request.kind === 'absent' && now < mapping.nextCheckAt) {
    return [lookAgain(mapping.nextCheckAt, `${because}, and the answer to a submission may still take effect`)];
  }
  if (mapping.state === 'intended' && request.kind === 'present') {
    return [{ do: 'adopt', buildRequestId: request.value.buildRequestId, because }];
  }
  if (request.kind !== 'present' || request.value.state === 'complete') {
    return [{ do: 'closeMapping', because }];
  }
  if (mapping.state === 'cancelling' && now < mapping.nextCheckAt) {
    return [lookAgain(Math.min(mapping.nextCheckAt, now + policy.recheckMs), 'a cancel takes a moment')];
  }
  return [{ do: 'cancelRequest', isLoud, because }];
}

/** Another request for the same run, while there may be one. */
function resubmit({ mapping, policy }: Facts, request: RequestView): readonly Action[] | undefined {
  if (mapping.submissions >= policy.maxSubmissions) {
    return undefined;
  }
  const because = isLostToShutdown(request)
    ? 'its build was cancelled by a stopping master'
    : 'a newer request collapsed its build request';
  return [{ do: 'resubmit', because: `${because}; it was submitted ${mapping.submissions} times` }];
}

function unreadable(facts: Facts, because: string): readonly Action[] {
  return [...reclaimIfNear(facts), lookAgain(facts.now + facts.policy.recheckMs, because)];
}

/** Reclaims when the claim is near its end. */
function reclaimIfNear({ mapping, policy, now, takenUntil }: Facts): readonly Action[] {
  if (takenUntil === null || now >= mapping.deadline) {
    return [];
  }
  if (now < reclaimDue(mapping, takenUntil, policy.reclaimThresholdMs, now)) {
    return [];
  }
  return [{ do: 'reclaimRun', runId: mapping.runId, because: 'its claim is near its end' }];
}

/** When to look again if nothing happens: after the usual interval, or when a reclaim is due. */
function nextLook({ mapping, policy, now, takenUntil }: Facts): number {
  const usual = now + policy.recheckMs;
  return takenUntil === null || now >= mapping.deadline
    ? usual
    : Math.min(usual, Math.max(now, reclaimDue(mapping, takenUntil, policy.reclaimThresholdMs, now)));
}

/** Whether a `worker-shutdown` that was reported was one of the request's RETRY builds, and not its final result. */
function wasRetry({ mapping, policy }: Facts, request: RequestView): boolean {
  const isFinal =
    request.state === 'complete' &&
    request.results !== 'CANCELLED' &&
    RETRY_REASONS.has(resolutionName(resolutionOf(request.results, policy.results)).reason);
  return !isFinal && retryCount(request) > mapping.retriesReported;
}

/** Complete, but nobody meant it: the master went down. A final RETRY is the same: the build was taken away. */
function isLostToShutdown(request: RequestView): boolean {
  return request.results === 'RETRY' || (request.results === 'CANCELLED' && request.cancelledBy === 'master-shutdown');
}

function lookAgain(at: number, because: string): Action {
  return { do: 'lookAgain', at, because };
}

function claimRun({ request }: Facts, run: TaskRun, because: string): Action {
  return {
    do: 'claimRun',
    runId: run.runId,
    retriesReported: request.kind === 'present' ? retryCount(request.value) : 0,
    because,
  };
}

function resolveRun(run: TaskRun, resolution: Resolution, because: string): Action {
  return { do: 'resolveRun', runId: run.runId, resolution, because };
}

/** Upload before resolving: afterwards the queue takes no artifacts any more. */
function uploadAndResolve(facts: Facts, run: TaskRun, resolution: Resolution, because: string): readonly Action[] {
  return [uploadOutcome(facts, run, resolution, because), resolveRun(run, resolution, because)];
}

function uploadOutcome(
  { mapping, policy }: Facts,
  run: TaskRun,
  resolution: Resolution | 'canceled',
  because: string,
): Action {
  return {
    do: 'uploadOutcome',
    runId: run.runId,
    resolution,
    isLastTry: mapping.attempts >= policy.maxUploadAttempts,
    because,
  };
}

/** Whoever claimed it may not have come to linking the build. */
function followClaimed(facts: Facts, run: TaskRun, because: string): readonly Action[] {
  const { request } = facts;
  const isBuilding = request.kind === 'present' && request.value.state === 'building';
  return [follow(facts, run, because), ...(isBuilding ? [announceBuild(run)] : [])];
}

function announceBuild(run: TaskRun): Action {
  return { do: 'announceBuild', runId: run.runId, because: 'people want to see the build while it runs' };
}

function follow({ request }: Facts, run: TaskRun, because: string): Action {
  return {
    do: 'follow',
    runId: run.runId,
    takenUntil: run.state === 'running' ? (run.takenUntil ?? null) : null,
    retriesReported: request.kind === 'present' ? retryCount(request.value) : 0,
    because,
  };
}
