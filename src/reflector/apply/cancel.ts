/** Cancels of build requests that no run wants: repeated until they end, and never of a build that others want. */
import type { RequestView } from '../../domain/build.ts';
import type { Mapping } from '../../domain/mapping.ts';
import { describeError, LegacyCiError } from '../../errors.ts';
import type { CancelAnswer, MappingStore } from '../../ports.ts';
import { announceNoStop } from '../upload.ts';
import { type ApplyContext, idsOf, mappingOf, type Next, type Pass, requestOf, update } from './pass.ts';

/** Each repetition of a cancel waits twice as long, up to this. */
export const MAX_CANCEL_RETRY_MS = 600_000;

/**
 * After so many cancels in vain, three quarters of an hour, a person is told, once. They go on, since what carries them
 * out may be away, but the trace has enough of them.
 */
const VAIN_CANCELS = 10;

/** Whether the trace says all there is to say about the cancels of a mapping's build request. */
export function isCancelOldNews({ cancels }: Mapping): boolean {
  return cancels >= VAIN_CANCELS;
}

/**
 * Asks for the request to be cancelled, unless others want its build; from then on the mapping is `cancelling`, and due
 * again after a wait that doubles up to `MAX_CANCEL_RETRY_MS`. A refusal, or that there is no way, is told and no error.
 * @param because for the legacy CI and the trace
 * @throws MappingMoved, StoreError, or the LegacyCiError of a legacy CI that is away
 */
export async function cancelRequest(because: string, pass: Pass, context: ApplyContext): Promise<Next> {
  const request = requestOf(pass);
  const { clock, timing } = context;
  const { state, attempts } = mappingOf(pass);
  // A try that failed has asked nobody.
  const isFirst = state !== 'cancelling' || attempts > 0;
  if (state !== 'cancelling') {
    // Before anything is asked: whoever finds the build stopped has to know that no person did it, and those that are
    // canceled at once would take one another for wanted.
    await update(pass, context, { state: 'cancelling', hasSlot: false });
  }
  const answer = await askForCancel(request, because, context);
  const mapping = mappingOf(pass);
  const { cancels } = mapping;
  if (answer.kind === 'shared') {
    if (isFirst) {
      noteNoCancel(pass, context, `${because}; its build goes on, for build request ${answer.others.join(', ')}`);
    }
    // Whoever is the last to want the build stops it. That it still goes on is no news.
    await update(pass, context, { nextCheckAt: clock.now() + MAX_CANCEL_RETRY_MS });
    return 'undone';
  }
  // What cannot be stopped while it is built can be when its build ends RETRY and it waits again.
  const asked = answer.kind === 'impossible' ? Math.max(cancels + 1, VAIN_CANCELS) : cancels + 1;
  pass.knowledge.request = undefined;
  await update(pass, context, {
    cancels: asked,
    nextCheckAt: clock.now() + Math.min(timing.cancelRetryMs * 2 ** (asked - 1), MAX_CANCEL_RETRY_MS),
  });
  if (!isCancelOldNews(mapping)) {
    await tell(answer, asked, pass, context);
  }
  return 'observe';
}

/** Nothing was asked: the build serves these requests, too, and somebody wants them. */
type Shared = { readonly kind: 'shared'; readonly others: readonly number[] };
type Answer = CancelAnswer | { readonly kind: 'refused'; readonly error: LegacyCiError };

/**
 * The only way to cancel: of a build that others want, too, nothing is cancelled.
 * @throws what the legacy CI or the mapping database throw
 */
export async function cancelUnlessShared(
  request: RequestView,
  because: string,
  { ci, store }: Pick<ApplyContext, 'ci' | 'store'>,
): Promise<CancelAnswer | Shared> {
  const others = await stillWanted(request.sharedWith ?? [], store);
  return others.length > 0 ? { kind: 'shared', others } : ci.cancel(request, because);
}

/** A refusal counts as asked. What is away is asked again without counting. */
async function askForCancel(request: RequestView, because: string, context: ApplyContext): Promise<Answer | Shared> {
  try {
    return await cancelUnlessShared(request, because, context);
  } catch (error) {
    if (error instanceof LegacyCiError && !error.isTransient) {
      return { kind: 'refused', error };
    }
    throw error;
  }
}

async function tell(answer: Answer, asked: number, pass: Pass, context: ApplyContext): Promise<void> {
  if (answer.kind === 'impossible') {
    noteNoCancel(pass, context, answer.why);
    await tellNoStop(answer.why, pass, context);
    return;
  }
  if (answer.kind === 'refused') {
    noteNoCancel(pass, context, describeError(answer.error));
  }
  if (asked >= VAIN_CANCELS) {
    const vain = `its cancel was asked for ${asked} times and nothing came of it; somebody should look at its build`;
    noteNoCancel(pass, context, `${vain}. It is asked for every ten minutes from now on`);
  }
}

/** Which of the build requests that share a build somebody still wants: all but those that are being cancelled. */
async function stillWanted(buildRequestIds: readonly number[], store: MappingStore): Promise<readonly number[]> {
  if (buildRequestIds.length === 0) {
    return [];
  }
  const unwanted = await store.unwantedAmong(buildRequestIds);
  return buildRequestIds.filter((id) => !unwanted.has(id));
}

/** The task's people are told, too, where a build runs; the queue takes artifacts of such a run for some time yet. */
async function tellNoStop(why: string, pass: Pass, { upload, log }: ApplyContext): Promise<void> {
  const { taskId, knowledge } = pass;
  const { runId, builder, takenUntil } = mappingOf(pass);
  if (takenUntil === null || knowledge.task?.kind !== 'present') {
    return;
  }
  try {
    const { expires } = knowledge.task.value;
    await announceNoStop(upload, { taskId, runId, builder, expires }, why);
  } catch (error) {
    log.warn({ ...idsOf(pass), err: error }, 'the task does not say that its build goes on');
  }
}

/** A build that goes on although its task does not want it: a person should know, from the log and from the trace. */
function noteNoCancel(pass: Pass, { clock, log }: ApplyContext, why: string): void {
  const { runId } = mappingOf(pass);
  pass.trace.push({ taskId: pass.taskId, runId, at: clock.now(), what: 'notCancelled', detail: why });
  log.warn({ ...idsOf(pass), because: why }, 'build request not cancelled');
}
