/** From an intent to a build request, at most one that is wanted. */
import { isCollapsed, type RequestView } from '../../domain/build.ts';
import type { Mapping } from '../../domain/mapping.ts';
import { lastRun, priorityRank } from '../../domain/task.ts';
import { BridgeError, describeError, LegacyCiError } from '../../errors.ts';
import { plain } from '../../plain.ts';
import type { MappingStore } from '../../ports.ts';
import type { Action } from '../actions.ts';
import { externalIdOf } from '../observe.ts';
import {
  type ApplyContext,
  accept,
  idsOf,
  MappingMoved,
  mappingOf,
  type Next,
  type Pass,
  renew,
  taskOf,
  update,
} from './pass.ts';

/**
 * Inserts the mapping of a task that has none, under a lease of this pass: as `held` where another mapping has the one
 * place of its collapse key. What was read of the task before is forgotten.
 * @throws MappingMoved if the task has a mapping by now; StoreError
 */
export async function recordIntent(
  action: Extract<Action, { do: 'recordIntent' }>,
  pass: Pass,
  context: ApplyContext,
): Promise<Next> {
  const { store, clock, timing } = context;
  const { knowledge, taskId } = pass;
  const task = taskOf(pass);
  const { admission } = knowledge;
  const run = lastRun(task);
  const collapseKey = admission?.kind === 'admitted' ? admission.collapseKey : null;
  const externalId = externalIdOf(taskId, action.runId, 1);
  // A run that is claimed already had a mapping once, and perhaps a request. That one is in nobody's way.
  const isClaimed = run?.state === 'running';
  const found =
    isClaimed && action.state === 'intended'
      ? await context.ci.findByExternalId({ taskId, externalId, deadline: task.deadline })
      : undefined;
  const isFree = collapseKey === null || found?.kind === 'present';
  const isBlocked = !isFree && (await hasToWait(collapseKey, null, store));
  const now = clock.now();
  pass.leaseEnd = clock.uptime() + timing.leaseMs;
  const insert = (isHeld: boolean) =>
    store.insert(
      {
        taskId,
        runId: action.runId,
        taskGroupId: task.taskGroupId,
        builder: builderOf(admission).slice(0, 255),
        state: isHeld ? 'held' : action.state,
        externalId,
        submissions: action.state === 'intended' && !isHeld ? 1 : 0,
        collapseKey,
        hasSlot: !isFree && !isHeld,
        priority: priorityRank(task.priority),
        deadline: task.deadline,
        takenUntil: run?.takenUntil ?? null,
      },
      { owner: pass.owner, leaseUntil: now + timing.leaseMs, now },
    );
  let stored = await insert(isBlocked);
  if (stored.kind === 'slot-taken') {
    stored = await insert(true);
  }
  if (stored.kind !== 'stored') {
    throw new MappingMoved(taskId);
  }
  knowledge.mapping = stored.mapping;
  noteRefusal(pass, context);
  // It was read before the lease was taken: meanwhile another instance may have brought the task to its end.
  knowledge.task = undefined;
  knowledge.request = found?.kind === 'present' ? found : isClaimed ? undefined : { kind: 'none' };
  return 'observe';
}

function builderOf(admission: Pass['knowledge']['admission']): string {
  switch (admission?.kind) {
    case 'admitted':
      return admission.spec.builder;
    case 'refused':
    case 'ignored':
      return admission.builder;
    case 'unreadable':
    case undefined:
      return '';
    default:
      return admission satisfies never;
  }
}

/** From an intent that turned out to be one for a task that cannot be built. */
export async function refuse(pass: Pass, context: ApplyContext): Promise<Next> {
  await update(pass, context, { state: 'refusing', hasSlot: false });
  noteRefusal(pass, context);
  return 'observe';
}

const MAX_PROBLEM = 200;

/** Its author reads all of it in the task's log; whoever runs the bridge sees that somebody sends such tasks. */
function noteRefusal({ taskId, knowledge: { mapping, admission } }: Pass, { log, inputs }: ApplyContext): void {
  if (admission?.kind === 'refused' && mapping?.state === 'refusing') {
    inputs?.rejected('payload');
    const [first] = admission.problems;
    const problem = plain(`${first?.where}: ${first?.what}`.slice(0, MAX_PROBLEM));
    log.info({ taskId, runId: mapping.runId, problem }, 'task refused');
  }
}

/** Whether an unclaimed request would be collapsed, or somebody else's turn comes first. */
async function hasToWait(collapseKey: string, mapping: Mapping | null, store: MappingStore): Promise<boolean> {
  if (await store.hasUnclaimed(collapseKey, mapping?.id ?? null)) {
    return true;
  }
  const first = await store.nextHeld(collapseKey);
  return first !== undefined && first !== mapping?.taskId;
}

/**
 * From `held` to `intended`, as another submission with an id of its own; ends the pass where an unclaimed request of the
 * same collapse key is in the way, or another task's turn comes first.
 * @throws MappingMoved, StoreError
 */
export async function takeSlot(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  const { collapseKey } = mapping;
  const later = { end: Number.POSITIVE_INFINITY };
  if (collapseKey !== null && (await hasToWait(collapseKey, mapping, context.store))) {
    // Should a place be free after all, the first in line is told of it at the end of the pass.
    pass.freedKeys.add(collapseKey);
    return later;
  }
  // A run that was claimed before its first submission here had a mapping once, and perhaps a request of this very id.
  const mayHaveOne = mapping.takenUntil !== null && mapping.submissions === 0;
  const submissions = mapping.submissions + 1;
  const now = context.clock.now();
  const stored = await context.store.update(
    mapping,
    {
      state: 'intended',
      hasSlot: collapseKey !== null,
      submissions,
      externalId: externalIdOf(pass.taskId, mapping.runId, submissions),
      // It was made long ago: what is not there now is not waited for.
      ...(mayHaveOne ? { nextCheckAt: now } : {}),
    },
    now,
  );
  if (stored.kind === 'slot-taken') {
    return later;
  }
  accept(pass, stored);
  pass.knowledge.request = mayHaveOne ? undefined : { kind: 'none' };
  pass.knowledge.admission = undefined;
  return 'observe';
}

/**
 * Gets ready for another request. A submission without an answer may have taken effect twice, and the one request have
 * collapsed the other: then there is one already.
 */
export async function resubmit(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  const found = mapping.buildRequestId === null ? undefined : await context.ci.findByExternalId(mapping);
  if (found?.kind === 'unreadable') {
    throw found.error;
  }
  // One that was cancelled is one that was withdrawn.
  const isOther = found?.kind === 'present' && found.value.buildRequestId !== mapping.buildRequestId;
  if (isOther && !isCollapsed(found.value) && found.value.results !== 'CANCELLED') {
    await update(pass, context, { state: 'submitted', buildRequestId: found.value.buildRequestId, cancels: 0 });
    pass.knowledge.request = found;
    return 'observe';
  }
  const anew = { buildRequestId: null, hasSlot: false, cancels: 0, retriesReported: 0 };
  await update(pass, context, { state: 'held', ...anew });
  pass.knowledge.request = { kind: 'none' };
  return 'observe';
}

/** The call to the legacy CI may have taken effect although it failed: look for the request before another one. */
export class SubmissionUnknown extends BridgeError<'submission-unknown'> {
  readonly retryAt: number;
  constructor(retryAt: number, cause: unknown) {
    super('submission-unknown', 'it is not known whether the build request was made', { cause, isTransient: true });
    this.retryAt = retryAt;
  }
}

/**
 * Makes the build request. A task whose request the legacy CI rejects is one to refuse; a request that could not be
 * recorded is left to the withdrawals.
 * @throws SubmissionUnknown for all other failures of the legacy CI; MappingMoved, StoreError
 */
export async function submit(mapping: Mapping, pass: Pass, context: ApplyContext): Promise<Next> {
  const { ci, clock, timing, withdrawals } = context;
  const { admission } = pass.knowledge;
  if (admission?.kind !== 'admitted') {
    return 'undone';
  }
  // Under a fresh lease: whoever takes this mapping over after a crash looks for the request first.
  await renew(pass, context);
  const spec = { ...admission.spec, runId: mapping.runId, externalId: mapping.externalId };
  let buildRequestId: number;
  try {
    buildRequestId = await ci.submit(spec);
  } catch (error) {
    if (error instanceof LegacyCiError && error.code === 'legacy-ci-rejected') {
      context.log.warn({ ...idsOf(pass), err: error }, 'build request rejected');
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
    // As it is since the lease was renewed: that version is what the record changes, if it takes effect late.
    withdrawals.begin(view, mappingOf(pass));
    throw error;
  }
  pass.knowledge.request = { kind: 'present', value: view };
  return 'observe';
}
