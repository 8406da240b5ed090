/**
 * One pass over one task: read, decide, act, until nothing is left to do. Listeners and the reflector both come through
 * here; there is no second way to claim, resolve or cancel.
 */
import type { Mapping } from '../domain/mapping.ts';
import { lastRun } from '../domain/task.ts';
import {
  type BridgeError,
  describeError,
  isForbidden,
  isTransient,
  levelOf,
  QueueError,
  StoreError,
} from '../errors.ts';
import { type Action, applyMode, type Mode } from './actions.ts';
import type { BuilderRules } from './admission.ts';
import { type ApplyContext, idsOf, MappingMoved, mappingOf, type Pass, renewIfOver } from './apply/pass.ts';
import { SubmissionUnknown } from './apply/submission.ts';
import { perform } from './apply.ts';
import { decide, type Observation, type Policy } from './decide.ts';
import { type Knowledge, observe, readErrors } from './observe.ts';
import { createRefusals } from './refusals.ts';
import { attemptsAfter, FIRST_RETRY_MS, isInGrace, LONG, nextLookAt, retryTime } from './retries.ts';
import { createUnkeptFailures } from './unkept-failures.ts';
import { isLastChance } from './upload-time.ts';

export interface ReconcileContext extends ApplyContext {
  readonly rules: BuilderRules;
  readonly policy: Policy;
  readonly mode: Mode;
  /** Of this process; part of every lease's owner and of the trace. */
  readonly instance: string;
  /** Called for a task whose turn has come because another one's request was claimed. */
  readonly poke: (taskId: string) => void;
  /** Called for a task whose look leaves long work to a whole pass; `isLast` where its deadline is near. */
  readonly handOver: (taskId: string, isLast: boolean) => void;
  /** Called at the end of each pass. */
  readonly onPass?: ((result: PassResult['kind']) => void) | undefined;
  /** Uniform in [0, 1): jitter. */
  readonly random: () => number;
}

/**
 * How a pass ended: well; while another pass had the task; or with an error that was logged, to be tried again then.
 */
export type PassResult =
  | { readonly kind: 'done' }
  /** The task is another bridge's, or nothing that this bridge does anything about. */
  | { readonly kind: 'not-ours' }
  | { readonly kind: 'busy' }
  /** The reason is kept in the mapping or, once it seems to last, in the trace. A row that cannot be read is its own. */
  | { readonly kind: 'failed'; readonly retryAt: number }
  /** The mapping database failed, without which nothing can be done about any task. */
  | { readonly kind: 'store-away' };

const RESULTS: Readonly<Record<PassResult['kind'], true>> = {
  ...{ done: true, 'not-ours': true, busy: true, failed: true, 'store-away': true },
};
export const PASS_RESULTS = Object.keys(RESULTS);

/** What a sweep has read beforehand; what it could not read is in the log already. */
export type Seed = Pick<Knowledge, 'task' | 'request'>;

export interface Reconciler {
  /**
   * A whole pass over a task, with what takes long. Does not throw.
   * @param share of the time that is left for uploads, where the task's deadline is near and others' are, too; 0 to 1, and
   *   1 while nobody waits
   */
  reconcile(taskId: string, share?: () => number): Promise<PassResult>;
  /** The same for a task of which something was heard; long work is handed over to a whole pass. */
  look(taskId: string): Promise<PassResult>;
  /** The same for a mapping that was leased and read in a batch. */
  reconcileLeased(mapping: Mapping, lease: Pick<Pass, 'owner' | 'leaseEnd'>, seed: Seed): Promise<PassResult>;
  /**
   * What would be done first about a leased mapping, for a sweep, which lets go in bulk of what is only to be seen
   * again; undefined when more has to be read to know.
   */
  preview(mapping: Mapping, seed: Seed): readonly Action[] | undefined;
}

/** More steps than any task needs in one pass: a task that gets there goes round in circles. */
const MAX_STEPS = 24;

export function createReconciler(context: ReconcileContext): Reconciler {
  const { store, clock, timing, log, instance, policy, mode } = context;
  const unkeptFailures = createUnkeptFailures();
  const refusals = createRefusals();
  let passes = 0;

  function newPass(
    taskId: string,
    lease: Pick<Pass, 'owner' | 'leaseEnd'>,
    knowledge: Knowledge,
    isBrief: boolean,
  ): Pass {
    const told = new Set(readErrors(knowledge));
    return { taskId, ...lease, knowledge, isBrief, doing: undefined, trace: [], freedKeys: new Set(), told };
  }

  async function reconcile(taskId: string, isBrief: boolean, uploadShare?: () => number): Promise<PassResult> {
    passes += 1;
    const owner = `${instance}#${passes}`;
    try {
      if (mode === 'observe') {
        return await watchOnly(taskId);
      }
      const now = clock.now();
      const leaseEnd = clock.uptime() + timing.leaseMs;
      const leased = await store.lease(taskId, { owner, leaseUntil: now + timing.leaseMs, now });
      if (leased.kind === 'busy') {
        return { kind: 'busy' };
      }
      const mapping = leased.kind === 'leased' ? leased.mapping : null;
      if (mapping === null || isBrief) {
        return await run(newPass(taskId, { owner, leaseEnd }, { mapping }, isBrief));
      }
      const result = await run({
        ...newPass(taskId, { owner, leaseEnd }, { mapping, admission: refusals.of(mapping.id) }, isBrief),
        uploadShare,
      });
      if (result.kind !== 'failed') {
        refusals.forget(mapping.id);
      }
      return result;
    } catch (error) {
      log[levelOf(error)]({ taskId, err: error }, 'no look could be had; it will be tried again');
      return failure(error, clock.now() + FIRST_RETRY_MS);
    }
  }

  /** Runs the steps; never throws. */
  async function run(pass: Pass): Promise<PassResult> {
    let result: PassResult;
    try {
      result = await steps(pass);
    } catch (error) {
      result = await failed(pass, error);
    }
    if (await finish(pass)) {
      return result;
    }
    unkeptFailures.wasNotTold(pass.taskId);
    return result.kind === 'failed' ? { kind: 'store-away' } : result;
  }

  async function steps(pass: Pass): Promise<PassResult> {
    let conflicts = 0;
    for (let step = 0; step < MAX_STEPS; step += 1) {
      // What is not there now may come before the grace of a submission is over: who sleeps meanwhile decides by this time.
      const now = clock.now();
      forgetMissing(pass.knowledge);
      // At its last chance there is no time to find out again why a task is refused.
      const leavesReasons =
        pass.isBrief || isLastChance(pass.knowledge.mapping?.deadline ?? Number.POSITIVE_INFINITY, now);
      const observation = await observe(pass.taskId, pass.knowledge, context, leavesReasons);
      const { todo, left } = applyMode(decide(observation, policy, now), mode, isClaimed(pass.knowledge.mapping));
      const brief = pass.isBrief ? untilLong(todo) : todo;
      if (brief.length === 0 && todo.length > 0) {
        return await handOver(pass);
      }
      if (left.length > 0) {
        log.debug({ ...idsOf(pass), mode, actions: left.map((action) => action.do) }, 'left out by mode');
      }
      try {
        const end = await performAll(brief, pass);
        if (end !== undefined) {
          return await rest(pass, observation, end);
        }
      } catch (error) {
        const isConflict =
          error instanceof QueueError && (error.code === 'queue-conflict' || error.code === 'queue-not-found');
        conflicts += 1;
        if (!isConflict || conflicts > 2) {
          throw error;
        }
        pass.doing = undefined;
        // The queue knows better than what was read: read it again and decide anew.
        pass.knowledge.task = undefined;
        log.debug({ ...idsOf(pass), err: error }, 'the run was moved meanwhile');
      }
    }
    throw new Error(`no rest after ${MAX_STEPS} steps: the last actions were ${lastActions(pass)}`);
  }

  /** @returns when to look again if the pass is over, undefined if there is more to see */
  async function performAll(actions: readonly Action[], pass: Pass): Promise<number | undefined> {
    for (const action of actions) {
      if (await renewIfOver(pass, context)) {
        return undefined;
      }
      pass.doing = action.do;
      const next = await perform(action, pass, context);
      pass.doing = undefined;
      if (next === 'observe' || next === 'undone') {
        return undefined;
      }
      if (next !== 'next') {
        return next.end;
      }
    }
    return actions.length === 0 ? Number.POSITIVE_INFINITY : undefined;
  }

  /** Nothing to do for now: let go of the mapping until then. */
  async function rest(pass: Pass, observation: Observation, at: number): Promise<PassResult> {
    const { mapping } = pass.knowledge;
    if (mapping === null) {
      const { task, admission } = observation;
      if (task.kind === 'unreadable') {
        return failedUnmapped(pass, task.error);
      }
      if (admission?.kind === 'unreadable') {
        return failed(pass, admission.error);
      }
      const isOurs = task.kind !== 'present' || admission?.kind !== 'ignored';
      return { kind: isOurs ? 'done' : 'not-ours' };
    }
    const [error, ...others] = readErrors(observation);
    if (error) {
      tellOthers(pass, others);
      return failed(pass, error, Math.min(at, clock.now() + policy.recheckMs));
    }
    const now = clock.now();
    const nextCheckAt = isInGrace(mapping, now) ? mapping.nextCheckAt : Math.min(at, nextLookAt(mapping, policy, now));
    await store.release(
      mapping,
      mapping.attempts > 0 && mapping.state !== 'refusing'
        ? { nextCheckAt, attempts: 0, lastError: null }
        : { nextCheckAt },
      now,
    );
    return { kind: 'done' };
  }

  /** Of all that cannot be read one is what the pass failed for; each was a bad answer of its own. */
  function tellOthers(pass: Pass, errors: readonly BridgeError[]): void {
    for (const err of errors.filter((error) => !pass.told.has(error))) {
      log[levelOf(err)]({ ...idsOf(pass), err }, 'this could not be read either');
    }
  }

  /** An upload can take long, and others wait for a look, or to have their claims kept alive: it gets a pass of its own. */
  async function handOver(pass: Pass): Promise<PassResult> {
    const { admission } = pass.knowledge;
    const mapping = mappingOf(pass);
    if (admission?.kind === 'refused') {
      refusals.keep(mapping.id, admission);
    }
    const now = clock.now();
    await store.release(mapping, { nextCheckAt: nextLookAt(mapping, policy, now) }, now);
    context.handOver(pass.taskId, isLastChance(mapping.deadline, now));
    return { kind: 'done' };
  }

  function failedUnmapped(pass: Pass, error: unknown): PassResult {
    tellFailure(pass, error, { retryInMs: FIRST_RETRY_MS });
    traceUnkept(pass, error);
    return { kind: 'failed', retryAt: clock.now() + FIRST_RETRY_MS };
  }

  function tellFailure(pass: Pass, err: unknown, fields: Readonly<Record<string, number>>): void {
    if (pass.told.has(err)) {
      log.debug({ ...idsOf(pass), ...fields, err }, 'pass failed for what could not be read before');
    } else {
      const outlook = isTransient(err) ? 'it will be tried again' : 'a person should look';
      log[levelOf(err)]({ ...idsOf(pass), ...fields, err }, `pass failed; ${outlook}`);
    }
  }

  /** Where no mapping keeps the reason, the trace does. */
  function traceUnkept({ taskId, knowledge, trace }: Pass, error: unknown): void {
    const detail = describeError(error);
    const { mapping, task } = knowledge;
    // What does not come to be tried again soon has no second time to wait for.
    const isSure = isForbidden(error) || (mapping?.attempts ?? 0) >= 2;
    if (unkeptFailures.isLasting(taskId, detail, isSure)) {
      const run = mapping ?? (task?.kind === 'present' ? lastRun(task.value) : undefined);
      const what = mapping === null ? 'notAdmitted' : 'notRefused';
      trace.push({ taskId, runId: run?.runId ?? null, at: clock.now(), what, detail });
    }
  }

  async function failed(pass: Pass, error: unknown, notAfter = Number.POSITIVE_INFINITY): Promise<PassResult> {
    if (error instanceof MappingMoved) {
      return { kind: 'busy' };
    }
    const { mapping } = pass.knowledge;
    const attempts = attemptsAfter(mapping, pass.doing, error);
    const now = clock.now();
    const { reclaimThresholdMs } = policy;
    const random = context.random();
    const retryAt = retryTime({ mapping, error, attempts, now, notAfter, reclaimThresholdMs, random });
    tellFailure(pass, error, { attempts, retryInMs: retryAt - now });
    if (error instanceof StoreError) {
      return failure(error, retryAt);
    }
    // A refusal keeps its reason: the author is to read it.
    if (mapping === null || mapping.state === 'refusing') {
      traceUnkept(pass, error);
    }
    return mapping === null
      ? { kind: 'failed', retryAt }
      : keepFailure(mapping, error, { nextCheckAt: retryAt, attempts }, now);
  }

  /** A failure counts as one only where its reason is kept. */
  async function keepFailure(
    mapping: Mapping,
    error: unknown,
    rest: { readonly nextCheckAt: number; readonly attempts: number },
    now: number,
  ): Promise<PassResult> {
    const retryAt = rest.nextCheckAt;
    const cause = error instanceof SubmissionUnknown ? error.cause : error;
    try {
      const { kind } = await store.release(
        mapping,
        mapping.state === 'refusing' ? rest : { ...rest, lastError: describeError(cause) },
        now,
      );
      return kind === 'stored' ? { kind: 'failed', retryAt } : { kind: 'busy' };
    } catch (err) {
      log.warn(
        { ...idsOf({ taskId: mapping.taskId, knowledge: { mapping } }), err },
        'lease not released; it runs out',
      );
      return failure(err, retryAt);
    }
  }

  /**
   * Trace and pokes come last: neither may keep a task from its end.
   * @returns whether the trace was written
   */
  async function finish(pass: Pass): Promise<boolean> {
    let isTraced = false;
    try {
      if (pass.trace.length > 0) {
        await store.addEvents(pass.trace.map((event) => ({ ...event, instance })));
      }
      isTraced = true;
      for (const key of pass.freedKeys) {
        const next = (await store.hasUnclaimed(key, null)) ? undefined : await store.nextHeld(key);
        if (next !== undefined && next !== pass.taskId) {
          context.poke(next);
        }
      }
    } catch (error) {
      log.warn({ ...idsOf(pass), err: error }, 'trace not written');
    }
    return isTraced;
  }

  /** Changes nothing anywhere; says what would be done. */
  async function watchOnly(taskId: string): Promise<PassResult> {
    const knowledge: Knowledge = { mapping: (await store.openMapping(taskId)) ?? null };
    const observation = await observe(taskId, knowledge, context);
    const ids = idsOf({ taskId, knowledge });
    for (const err of readErrors(observation)) {
      log[levelOf(err)]({ ...ids, err }, 'could not be read');
    }
    for (const action of decide(observation, policy, clock.now())) {
      if (action.do !== 'lookAgain') {
        log.info({ ...ids, action: action.do, because: action.because }, 'would act, but only observes');
      }
    }
    return { kind: 'done' };
  }

  async function counted(pass: Promise<PassResult>): Promise<PassResult> {
    const result = await pass;
    context.onPass?.(result.kind);
    return result;
  }

  return {
    reconcile: (taskId, share) => counted(reconcile(taskId, false, share)),
    look: (taskId) => counted(reconcile(taskId, true)),
    reconcileLeased: (mapping, lease, seed) => counted(run(newPass(mapping.taskId, lease, { mapping, ...seed }, true))),
    preview(mapping, seed) {
      const { task, request } = seed;
      const isUnclear = mapping.state === 'intended' || mapping.state === 'refusing';
      if (task === undefined || request === undefined || isUnclear) {
        return undefined;
      }
      return applyMode(
        decide({ mapping, task, request, admission: null }, policy, clock.now()),
        mode,
        isClaimed(mapping),
      ).todo;
    },
  };
}

/** Something was missing at the moment of its look: what a later time is held against has to be looked for then. */
function forgetMissing(knowledge: Knowledge): void {
  knowledge.task = knowledge.task?.kind === 'absent' ? undefined : knowledge.task;
  knowledge.request = knowledge.request?.kind === 'absent' ? undefined : knowledge.request;
}

function failure(error: unknown, retryAt: number): PassResult {
  const isAway = error instanceof StoreError && error.code !== 'store-row';
  return isAway ? { kind: 'store-away' } : { kind: 'failed', retryAt };
}

function isClaimed(mapping: Mapping | null): boolean {
  return mapping !== null && mapping.takenUntil !== null;
}

/** What can be done at once: a claim is renewed before an upload waits for its turn. */
function untilLong(actions: readonly Action[]): readonly Action[] {
  const first = actions.findIndex((action) => LONG.has(action.do));
  return first === -1 ? actions : actions.slice(0, first);
}

function lastActions(pass: Pass): string {
  return pass.trace
    .slice(-4)
    .map(({ what }) => what)
    .join(', ');
}
