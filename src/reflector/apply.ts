/** Carries out actions, one by one. Each is idempotent, and what it brings to light goes into the pass's knowledge. */
import type { Logger } from 'pino';
import type { RequestView } from '../domain/build.ts';
import { lastBuild } from '../domain/build.ts';
import type { Mapping, MappingChanges, TraceEvent } from '../domain/mapping.ts';
import type { TaskRun, TaskStatus } from '../domain/task.ts';
import { lastRun, priorityRank } from '../domain/task.ts';
import { describeError, LegacyCiError, QueueError } from '../errors.ts';
import type { CancelAnswer, Clock, LegacyCi, MappingStore, Stored, TaskQueue } from '../ports.ts';
import type { Action } from './actions.ts';
import { reclaimDue, reclaimTime } from './claims.ts';
import { externalIdOf, type Knowledge, readDefinition, refusalLog } from './observe.ts';
import { resolutionName } from './outcome.ts';
import {
  announceBuild,
  announceNoStop,
  type UploadContext,
  type UploadTarget,
  uploadExplanation,
  uploadOutcome,
} from './upload.ts';

/** How long things take at most, in milliseconds. */
export interface Timing {
  /** How long a pass keeps a mapping to itself without renewing its lease. */
  readonly leaseMs: number;
  /** How long a submission without an answer may still take effect. */
  readonly submitGraceMs: number;
  /** How long a cancel is given before it is repeated. */
  readonly cancelRetryMs: number;
}

/** Each repetition of a cancel waits twice as long, up to this. */
const MAX_CANCEL_RETRY_MS = 600_000;

export interface ApplyContext {
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly store: MappingStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly upload: UploadContext;
  readonly timing: Timing;
  /** When a claim has to be renewed during a long upload. */
  readonly reclaimThresholdMs: number;
  /** `Policy.maxCancels` */
  readonly maxCancels: number;
}

/** One pass over one task: what is known, and whose lease it runs under. */
export interface Pass {
  readonly taskId: string;
  readonly owner: string;
  readonly knowledge: Knowledge;
  /** Whether uploads are left to another pass. */
  readonly isBrief: boolean;
  leaseUntil: number;
  readonly trace: Omit<TraceEvent, 'instance'>[];
  /** Collapse keys whose one place became free. */
  readonly freedKeys: Set<string>;
}

/** What comes after an action: the next one, a fresh look at what is known, or the end of the pass. */
export type Next = 'next' | 'observe' | { readonly end: number };

/** Another pass, here or elsewhere, has moved the mapping: whatever this pass knows is old. */
export class MappingMoved extends Error {
  constructor(taskId: string) {
    super(`the mapping of task ${taskId} was moved by another pass`);
    this.name = 'MappingMoved';
  }
}

/**
 * Carries out one action.
 * @throws MappingMoved, or the error of whatever failed; `grace` of a thrown SubmissionUnknown says how long to wait
 */
export async function perform(action: Action, pass: Pass, context: ApplyContext): Promise<Next> {
  const next = await performOne(action, pass, context);
  // What ends a pass has changed nothing: a look at a later time, or a held task whose turn has not come.
  if (typeof next !== 'object') {
    const { mapping } = pass.knowledge;
    pass.trace.push({
      taskId: pass.taskId,
      runId: 'runId' in action ? action.runId : (mapping?.runId ?? null),
      at: context.clock.now(),
      what: action.do,
      detail: action.because,
    });
    const level = action.do === 'cancelRequest' && action.isLoud ? 'warn' : 'info';
    context.log[level](
      {
        taskId: pass.taskId,
        runId: 'runId' in action ? action.runId : mapping?.runId,
        buildRequestId: mapping?.buildRequestId ?? undefined,
        action: action.do,
        because: action.because,
      },
      'action carried out',
    );
  }
  return next;
}

async function performOne(action: Action, pass: Pass, context: ApplyContext): Promise<Next> {
  if (action.do === 'recordIntent') {
    return recordIntent(action, pass, context);
  }
  const mapping = mappingOf(pass);
  switch (action.do) {
    case 'takeSlot':
      return takeSlot(mapping, pass, context);
    case 'notePriority':
      await update(pass, context, { priority: action.priority });
      return 'observe';
    case 'submit':
      return submit(mapping, pass, context);
    case 'adopt':
      await update(pass, context, { state: 'submitted', buildRequestId: action.buildRequestId });
      return 'observe';
    case 'refuse':
      await update(pass, context, { state: 'refusing', hasSlot: false });
      return 'observe';
    case 'resubmit':
      await update(pass, context, { state: 'held', buildRequestId: null, hasSlot: false, cancels: 0 });
      pass.knowledge.request = { kind: 'none' };
      return 'observe';
    case 'follow':
      await update(pass, context, {
        runId: action.runId,
        takenUntil: action.takenUntil,
        reclaimAt: null,
        retriesReported: action.retriesReported,
        resolution: null,
        ...(mapping.state === 'submitted' && action.takenUntil !== null ? { hasSlot: false } : {}),
      });
      return 'observe';
    case 'claimRun':
      return claimRun(action, pass, context);
    case 'reclaimRun':
      await reclaim(action.runId, pass, context);
      return 'observe';
    case 'announceBuild':
      return announce(action.runId, pass, context);
    case 'uploadOutcome': {
      const request = requestOf(pass);
      const target = await uploadTarget(action.runId, action.resolution, pass, context);
      await keepingAlive(pass, context, () => uploadOutcome(context.upload, target, request, action.isLastTry));
      return 'next';
    }
    case 'uploadExplanation':
      return explain(action, pass, context);
    case 'resolveRun': {
      const status = await context.queue.resolve(pass.taskId, action.runId, action.resolution);
      return resolved(status, resolutionName(action.resolution).reason, pass, context);
    }
    case 'cancelTask':
      return cancelTask(action.runId, pass, context);
    case 'rerunTask':
      return rerunTask(mapping, pass, context);
    case 'cancelRequest':
      return cancelRequest(action.because, pass, context);
    case 'noteAbsence':
      await update(pass, context, { absentSince: action.since });
      return 'observe';
    case 'closeMapping':
      return closeMapping(mapping, pass, context);
    case 'lookAgain':
      return { end: action.at };
    default:
      return action satisfies never;
  }
}

async function recordIntent(
  action: Extract<Action, { do: 'recordIntent' }>,
  pass: Pass,
  { store, clock, timing }: ApplyContext,
): Promise<Next> {
  const { knowledge, taskId } = pass;
  const task = taskOf(pass);
  const { admission } = knowledge;
  const run = lastRun(task);
  const collapseKey = admission?.kind === 'admitted' ? admission.collapseKey : null;
  const isBlocked = collapseKey !== null && (await hasToWait(collapseKey, null, store));
  const now = clock.now();
  pass.leaseUntil = now + timing.leaseMs;
  const insert = (isHeld: boolean) =>
    store.insert(
      {
        taskId,
        runId: action.runId,
        taskGroupId: task.taskGroupId,
        builder: (admission?.kind === 'admitted' ? admission.spec.builder : (admission?.builder ?? '')).slice(0, 255),
        state: isHeld ? 'held' : action.state,
        externalId: externalIdOf(taskId, action.runId, 1),
        submissions: action.state === 'intended' && !isHeld ? 1 : 0,
        collapseKey,
        hasSlot: collapseKey !== null && !isHeld,
        priority: priorityRank(task.priority),
        deadline: task.deadline,
        takenUntil: run?.takenUntil ?? null,
      },
      { owner: pass.owner, leaseUntil: pass.leaseUntil, now },
    );
  let stored = await insert(isBlocked);
  if (stored.kind === 'slot-taken') {
    stored = await insert(true);
  }
  if (stored.kind !== 'stored') {
    throw new MappingMoved(taskId);
  }
  knowledge.mapping = stored.mapping;
  // It was read before the lease was taken: meanwhile another instance may have brought the task to its end.
  knowledge.task = undefined;
  // A run that is claimed already had a mapping once, and perhaps a request: that one is looked for.
  knowledge.request = run?.state === 'running' ? undefined : { kind: 'none' };
  return 'observe';
}

/** Whether an unclaimed request would be collapsed, or somebody else's turn comes first. */
async function hasToWait(collapseKey: string, mapping: Mapping | null, store: MappingStore): Promise<boolean> {
  if (await store.hasUnclaimed(collapseKey, mapping?.id ?? null)) {
    return true;
  }
  const first = await store.nextHeld(collapseKey);
  return first !== undefined && first !== mapping?.taskId;
}

async function takeSlot(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  const { collapseKey } = mapping;
  const later = { end: Number.POSITIVE_INFINITY };
  if (collapseKey !== null && (await hasToWait(collapseKey, mapping, context.store))) {
    // Should a place be free after all, the first in line is told of it at the end of the pass.
    pass.freedKeys.add(collapseKey);
    return later;
  }
  const submissions = mapping.submissions + 1;
  const stored = await context.store.update(
    mapping,
    {
      state: 'intended',
      hasSlot: collapseKey !== null,
      submissions,
      externalId: externalIdOf(pass.taskId, mapping.runId, submissions),
    },
    context.clock.now(),
  );
  if (stored.kind === 'slot-taken') {
    return later;
  }
  accept(pass, stored);
  pass.knowledge.request = { kind: 'none' };
  pass.knowledge.admission = undefined;
  return 'observe';
}

/** The call to the legacy CI may have taken effect although it failed: look for the request before another one. */
export class SubmissionUnknown extends Error {
  readonly retryAt: number;
  constructor(retryAt: number, cause: unknown) {
    super('it is not known whether the build request was made', { cause });
    this.name = 'SubmissionUnknown';
    this.retryAt = retryAt;
  }
}

async function submit(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  const { ci, clock, timing } = context;
  const { admission } = pass.knowledge;
  if (admission?.kind !== 'admitted') {
    return 'observe';
  }
  // Under a fresh lease: whoever takes this mapping over after a crash looks for the request first.
  await renew(pass, context);
  const spec = { ...admission.spec, runId: mapping.runId, externalId: mapping.externalId };
  let buildRequestId: number;
  try {
    buildRequestId = await ci.submit(spec);
  } catch (error) {
    if (error instanceof LegacyCiError && error.code === 'legacy-ci-rejected') {
      context.log.warn({ taskId: pass.taskId, runId: mapping.runId, err: error }, 'build request rejected');
      await update(pass, context, { state: 'refusing', hasSlot: false, lastError: describeError(error) });
      pass.knowledge.request = { kind: 'none' };
      return 'observe';
    }
    throw new SubmissionUnknown(clock.now() + timing.submitGraceMs, error);
  }
  const view: RequestView = { buildRequestId, builder: spec.builder, state: 'pending', builds: [] };
  try {
    await update(pass, context, { state: 'submitted', buildRequestId });
  } catch (error) {
    if (error instanceof MappingMoved) {
      await withdrawDoubled(view, pass, context);
    }
    throw error;
  }
  pass.knowledge.request = { kind: 'present', value: view };
  return 'observe';
}

/** Another pass took over between our call and its record. If it made a request of its own, ours is one too many. */
async function withdrawDoubled(view: RequestView, pass: Pass, context: ApplyContext): Promise<void> {
  const { clock, log } = context;
  for (let attempt = 1; ; attempt += 1) {
    try {
      await withdraw(view, pass, context);
      return;
    } catch (error) {
      if (attempt === WITHDRAWALS) {
        const fields = { taskId: pass.taskId, buildRequestId: view.buildRequestId, err: error };
        log.error(fields, 'a build request too many could not be withdrawn: cancel it by hand');
        return;
      }
      await clock.sleep(1000 * 4 ** attempt);
    }
  }
}

/** Nobody else knows of that request: with waits of 4, 16 and 64 seconds. */
const WITHDRAWALS = 4;

async function withdraw(view: RequestView, pass: Pass, { store, ci, log }: ApplyContext): Promise<void> {
  const open = await store.openMapping(pass.taskId);
  if (open?.buildRequestId === view.buildRequestId) {
    return;
  }
  if (open !== undefined && open.buildRequestId === null) {
    // It has yet to look for a request under the external id, and will find ours.
    return;
  }
  log.warn(
    { taskId: pass.taskId, buildRequestId: view.buildRequestId, kept: open?.buildRequestId },
    'build request withdrawn: the task has another one or is no longer wanted',
  );
  await ci.cancel(view, 'another build request of the same task exists');
}

async function claimRun(action: Extract<Action, { do: 'claimRun' }>, pass: Pass, context: ApplyContext): Promise<Next> {
  const status = await context.queue.claim(pass.taskId, action.runId);
  pass.knowledge.task = { kind: 'present', value: status };
  await update(pass, context, {
    runId: action.runId,
    ...claimTimes(status.runs.find(({ runId }) => runId === action.runId)?.takenUntil ?? null, context),
    retriesReported: action.retriesReported,
    hasSlot: false,
  });
  return 'next';
}

async function reclaim(runId: number, pass: Pass, context: ApplyContext): Promise<void> {
  const { takenUntil } = await context.queue.reclaim(pass.taskId, runId);
  const { task } = pass.knowledge;
  if (task?.kind === 'present') {
    const runs = task.value.runs.map((run: TaskRun) => (run.runId === runId ? { ...run, takenUntil } : run));
    pass.knowledge.task = { kind: 'present', value: { ...task.value, runs } };
  }
  await update(pass, context, claimTimes(takenUntil, context));
}

/** What a mapping keeps of a claim that was just made or renewed. */
function claimTimes(
  takenUntil: number | null,
  { clock, reclaimThresholdMs }: ApplyContext,
): Pick<Mapping, 'takenUntil' | 'reclaimAt'> {
  const reclaimAt = takenUntil === null ? null : reclaimTime(takenUntil, reclaimThresholdMs, clock.now());
  return { takenUntil, reclaimAt };
}

/** Only a convenience for people: a failure is noted and nothing depends on it. */
async function announce(runId: number, pass: Pass, { upload, log }: ApplyContext): Promise<Next> {
  const url = lastBuild(requestOf(pass))?.url;
  if (url !== undefined) {
    try {
      const { taskId } = pass;
      const { builder } = mappingOf(pass);
      await announceBuild(upload, { taskId, runId, builder, expires: taskOf(pass).expires }, url);
    } catch (error) {
      log.warn({ taskId: pass.taskId, runId, err: error }, 'live log not linked to the build');
    }
  }
  return 'observe';
}

/** After so many failed passes a log that cannot be uploaded is given up. */
const EXPLANATION_TRIES = 20;

const EXPLANATIONS = {
  'request-gone': (id: number | null) =>
    `Build request ${id} of this task is gone from Buildbot (it was purged, or its database was replaced), so the bridge cannot tell what became of it. Rerun the task to build it again.\n`,
  collapsed: () =>
    `Buildbot collapsed every build request of this task into newer ones of the same builder and revision, without building it. Somebody else asks for the same builds: set collapseRequests = False for this builder in master.cfg, or rerun the task when the builder is quieter.\n`,
} as const;

async function explain(
  action: Extract<Action, { do: 'uploadExplanation' }>,
  pass: Pass,
  context: ApplyContext,
): Promise<Next> {
  const mapping = mappingOf(pass);
  const isRefusal = action.about === 'refused';
  const text =
    action.about === 'refused'
      ? refusalLog(mapping, pass.knowledge.admission)
      : EXPLANATIONS[action.about](mapping.buildRequestId);
  const reason = isRefusal ? ('malformed-payload' as const) : ('internal-error' as const);
  const target = await uploadTarget(action.runId, { state: 'exception', reason }, pass, context);
  await uploadExplanation(context.upload, target, text, mapping.attempts >= EXPLANATION_TRIES);
  return 'next';
}

async function uploadTarget(
  runId: number,
  resolution: UploadTarget['resolution'],
  pass: Pass,
  { queue }: ApplyContext,
): Promise<UploadTarget> {
  const { expires } = await readDefinition(pass.taskId, pass.knowledge, queue);
  return { taskId: pass.taskId, runId, builder: mappingOf(pass).builder, expires, resolution };
}

async function resolved(status: TaskStatus, resolution: string, pass: Pass, context: ApplyContext): Promise<Next> {
  pass.knowledge.task = { kind: 'present', value: status };
  await update(pass, context, { takenUntil: null, reclaimAt: null, resolution });
  return 'observe';
}

/** A person may have asked for another run since the task was read, not least while something was uploaded. */
async function cancelTask(runId: number, pass: Pass, context: ApplyContext): Promise<Next> {
  const seen = await context.queue.status(pass.taskId);
  pass.knowledge.task = seen;
  const run = seen.kind === 'present' ? lastRun(seen.value) : undefined;
  if (run?.runId !== runId || (run.state !== 'pending' && run.state !== 'running')) {
    return 'observe';
  }
  return resolved(await context.queue.cancelTask(pass.taskId), 'canceled', pass, context);
}

/** What is forbidden or never heard uses nothing up; what is refused for good, such as one run too many, does. */
async function rerunTask(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  pass.knowledge.task = undefined;
  try {
    pass.knowledge.task = { kind: 'present', value: await context.queue.rerunTask(pass.taskId) };
  } catch (error) {
    if (!(error instanceof QueueError && error.code === 'queue-conflict')) {
      throw error;
    }
    context.log.warn({ taskId: pass.taskId, runId: mapping.runId, err: error }, 'rerun refused');
  }
  await update(pass, context, { reruns: mapping.reruns + 1 });
  return 'observe';
}

async function cancelRequest(because: string, pass: Pass, context: ApplyContext): Promise<Next> {
  const request = requestOf(pass);
  const mapping = mappingOf(pass);
  const { cancels } = mapping;
  const { ci, clock, timing, maxCancels } = context;
  const others = await stillWanted(request.sharedWith ?? [], context);
  if (others.length > 0) {
    // Whoever is the last to want the build stops it.
    if (mapping.state !== 'cancelling') {
      noteNoCancel(pass, context, `its build goes on, for build request ${others.join(', ')}`);
    }
    await update(pass, context, {
      state: 'cancelling',
      hasSlot: false,
      nextCheckAt: clock.now() + MAX_CANCEL_RETRY_MS,
    });
    return 'observe';
  }
  const answer = await askForCancel(ci, request, because);
  const asked = answer.kind === 'impossible' ? maxCancels : cancels + 1;
  pass.knowledge.request = undefined;
  await update(pass, context, {
    state: 'cancelling',
    hasSlot: false,
    cancels: asked,
    nextCheckAt: clock.now() + Math.min(timing.cancelRetryMs * 2 ** cancels, MAX_CANCEL_RETRY_MS),
  });
  if (answer.kind === 'impossible') {
    noteNoCancel(pass, context, answer.why);
    await tellNoStop(answer.why, pass, context);
  } else if (answer.kind === 'refused') {
    noteNoCancel(pass, context, describeError(answer.error));
  }
  if (answer.kind !== 'impossible' && asked >= maxCancels) {
    noteNoCancel(pass, context, `its cancel was asked for ${asked} times and nothing came of it; it is given up`);
  }
  return 'observe';
}

/** A refusal counts as asked: repeated for as long, and not for ever. What is away is asked again without counting. */
async function askForCancel(
  ci: LegacyCi,
  request: RequestView,
  because: string,
): Promise<CancelAnswer | { readonly kind: 'refused'; readonly error: LegacyCiError }> {
  try {
    return await ci.cancel(request, because);
  } catch (error) {
    if (error instanceof LegacyCiError && !error.isTransient) {
      return { kind: 'refused', error };
    }
    throw error;
  }
}

/** Which of the build requests that share a build somebody still wants: all but those that are being cancelled. */
async function stillWanted(buildRequestIds: readonly number[], { store }: ApplyContext): Promise<readonly number[]> {
  if (buildRequestIds.length === 0) {
    return [];
  }
  const unwanted = await store.unwantedAmong(buildRequestIds);
  return buildRequestIds.filter((id) => !unwanted.has(id));
}

/** The task's people are told, too, where a build runs; the queue takes artifacts of such a run for some time yet. */
async function tellNoStop(why: string, pass: Pass, { queue, upload, log }: ApplyContext): Promise<void> {
  const { taskId, knowledge } = pass;
  const { runId, builder, takenUntil } = mappingOf(pass);
  if (takenUntil === null) {
    return;
  }
  try {
    const { expires } = await readDefinition(taskId, knowledge, queue);
    await announceNoStop(upload, { taskId, runId, builder, expires }, why);
  } catch (error) {
    log.warn({ taskId, runId, err: error }, 'the task does not say that its build goes on');
  }
}

/** A build that goes on although its task does not want it: a person should know, from the log and from the trace. */
function noteNoCancel(pass: Pass, { clock, log }: ApplyContext, why: string): void {
  const { runId, buildRequestId } = mappingOf(pass);
  pass.trace.push({ taskId: pass.taskId, runId, at: clock.now(), what: 'notCancelled', detail: why });
  log.warn({ taskId: pass.taskId, runId, buildRequestId, because: why }, 'build request not cancelled');
}

async function closeMapping(mapping: Mapping, pass: Pass, { store, clock }: ApplyContext): Promise<Next> {
  const { task } = pass.knowledge;
  const run = task?.kind === 'present' ? task.value.runs.find(({ runId }) => runId === mapping.runId) : undefined;
  const now = clock.now();
  const stored = await store.release(
    mapping,
    {
      state: 'closed',
      hasSlot: false,
      resolved: now,
      resolution: run?.reasonResolved ?? mapping.resolution ?? run?.state ?? 'gone',
    },
    now,
  );
  accept(pass, stored);
  pass.knowledge.mapping = null;
  pass.knowledge.request = { kind: 'none' };
  pass.knowledge.admission = undefined;
  return 'observe';
}

async function update(pass: Pass, { store, clock }: ApplyContext, changes: MappingChanges): Promise<void> {
  accept(pass, await store.update(mappingOf(pass), changes, clock.now()));
}

/**
 * Whoever slept past the end of its lease acts on what is old, and perhaps beside another pass.
 * @returns whether the lease was over; it is taken again, and what was read is forgotten
 * @throws MappingMoved if another pass took over
 */
export async function renewIfOver(pass: Pass, context: ApplyContext): Promise<boolean> {
  const { knowledge } = pass;
  if (knowledge.mapping === null || context.clock.now() < knowledge.mapping.leaseUntil) {
    return false;
  }
  await renew(pass, context);
  knowledge.task = undefined;
  // What could not be read leads to no act, and would take as long again.
  knowledge.request = knowledge.request?.kind === 'unreadable' ? knowledge.request : undefined;
  return true;
}

async function renew(pass: Pass, { store, clock, timing }: ApplyContext): Promise<void> {
  const now = clock.now();
  accept(pass, await store.renewLease(mappingOf(pass), now + timing.leaseMs, now));
  pass.leaseUntil = now + timing.leaseMs;
}

/** Takes over what was stored, and notes whether a place for an unclaimed request became free. */
function accept(pass: Pass, stored: Stored): void {
  if (stored.kind !== 'stored') {
    throw new MappingMoved(pass.taskId);
  }
  const before = pass.knowledge.mapping;
  if (before?.hasSlot && !stored.mapping.hasSlot && before.collapseKey !== null) {
    pass.freedKeys.add(before.collapseKey);
  }
  pass.knowledge.mapping = stored.mapping;
}

/** Renews lease and claim while something long goes on, so that neither is lost to its length. */
async function keepingAlive(pass: Pass, context: ApplyContext, work: () => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const heart = beat(pass, context, stop.signal);
  let moved: MappingMoved | undefined;
  try {
    await work();
  } finally {
    stop.abort();
    // Also after a failure: whatever the mapping's version is now, the release has to know it.
    moved = await heart;
  }
  if (moved) {
    throw moved;
  }
}

/** Resolves when stopped, or with what was thrown when the mapping is no longer ours. */
async function beat(pass: Pass, context: ApplyContext, signal: AbortSignal): Promise<MappingMoved | undefined> {
  for (let hasFailed = false; ; ) {
    await context.clock.sleep(untilNextBeat(pass, context, hasFailed), signal);
    if (signal.aborted) {
      return undefined;
    }
    try {
      hasFailed = true;
      await renew(pass, context);
      if (context.clock.now() >= claimDue(pass, context)) {
        await reclaim(mappingOf(pass).runId, pass, context);
      }
      hasFailed = false;
    } catch (error) {
      if (error instanceof MappingMoved) {
        return error;
      }
      // The work goes on: the lease and the claim outlive a few failed renewals, and the resolution finds out the rest.
      context.log.warn({ taskId: pass.taskId, err: error }, 'claim not renewed during an upload');
    }
  }
}

const LEAST_BEAT_MS = 1000;
const FAILED_BEAT_MS = 10_000;

/** A claim that is shorter than the lease has to be renewed more often. */
function untilNextBeat(pass: Pass, context: ApplyContext, hasFailed: boolean): number {
  const least = hasFailed ? FAILED_BEAT_MS : LEAST_BEAT_MS;
  const untilClaimDue = Math.max(least, claimDue(pass, context) - context.clock.now());
  return Math.min(context.timing.leaseMs / 3, untilClaimDue);
}

/** When the claim is to be renewed; never, where there is none. */
function claimDue(pass: Pass, { reclaimThresholdMs }: ApplyContext): number {
  const mapping = mappingOf(pass);
  return mapping.takenUntil === null
    ? Number.POSITIVE_INFINITY
    : reclaimDue(mapping, mapping.takenUntil, reclaimThresholdMs);
}

function mappingOf(pass: Pass): Mapping {
  if (pass.knowledge.mapping === null) {
    throw new Error('an action needs a mapping and there is none: a bug in decide');
  }
  return pass.knowledge.mapping;
}

function taskOf(pass: Pass): TaskStatus {
  if (pass.knowledge.task?.kind !== 'present') {
    throw new Error('an action needs the task and it was not read: a bug in decide');
  }
  return pass.knowledge.task.value;
}

function requestOf(pass: Pass): RequestView {
  if (pass.knowledge.request?.kind !== 'present') {
    throw new Error('an action needs the build request and it was not read: a bug in decide');
  }
  return pass.knowledge.request.value;
}
