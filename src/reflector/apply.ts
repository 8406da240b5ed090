/** Carries out actions, one by one. Each is idempotent, and what it brings to light goes into the pass's knowledge. */
import type { Action } from './actions.ts';
import { cancelRequest, isCancelOldNews } from './apply/cancel.ts';
import { announce, claimRun, reclaim } from './apply/claim.ts';
import { cancelTask, closeMapping, explain, rerunTask, resolveRun, upload } from './apply/ending.ts';
import { type ApplyContext, idsOf, mappingOf, type Next, type Pass, update } from './apply/pass.ts';
import { recordIntent, refuse, resubmit, submit, takeSlot } from './apply/submission.ts';

/**
 * Carries out one action.
 * @throws MappingMoved, or the error of whatever failed; `retryAt` of a thrown SubmissionUnknown says until when to wait
 */
export async function perform(action: Action, pass: Pass, context: ApplyContext): Promise<Next> {
  const before = pass.knowledge.mapping;
  const isOldNews = action.do === 'cancelRequest' && before !== null && isCancelOldNews(before);
  const next = await performOne(action, pass, context);
  // What ends a pass has changed nothing either: a look at a later time, or a held task whose turn has not come.
  if (typeof next !== 'object' && next !== 'undone') {
    context.onAction?.(action.do);
    const ids = idsOf(pass);
    const runId = 'runId' in action ? action.runId : ids.runId;
    if (!isOldNews) {
      pass.trace.push({
        taskId: pass.taskId,
        runId: runId ?? null,
        at: context.clock.now(),
        what: action.do,
        detail: action.because,
      });
    }
    const level = isOldNews ? 'debug' : action.do === 'cancelRequest' && action.isLoud ? 'warn' : 'info';
    context.log[level]({ ...ids, runId, action: action.do, because: action.because }, 'action carried out');
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
      return refuse(pass, context);
    case 'resubmit':
      return resubmit(mapping, pass, context);
    case 'follow':
      await update(pass, context, {
        runId: action.runId,
        takenUntil: action.takenUntil,
        reclaimAt: null,
        retriesReported: action.retriesReported,
        submissions: action.submissions,
        resolution: null,
        // Tries of another run's. Why a task is refused is its author's to read.
        ...(mapping.state === 'refusing' || mapping.runId === action.runId ? {} : { attempts: 0, lastError: null }),
        ...(mapping.state === 'submitted' && action.takenUntil !== null ? { hasSlot: false } : {}),
      });
      if (action.takenUntil === null && !isOver(pass)) {
        // The run before may have been uploaded for very long: by now the request may be over.
        pass.knowledge.request = undefined;
      }
      return 'next';
    case 'claimRun':
      return claimRun(action, pass, context);
    case 'reclaimRun':
      await reclaim(action.runId, pass, context);
      return 'observe';
    case 'announceBuild':
      return announce(action.runId, pass, context);
    case 'uploadOutcome':
      return upload(action, pass, context);
    case 'uploadExplanation':
      return explain(action, pass, context);
    case 'resolveRun':
      return resolveRun(action, pass, context);
    case 'cancelTask':
      return cancelTask(pass, context);
    case 'rerunTask':
      return rerunTask(mapping, pass, context);
    case 'cancelRequest':
      return cancelRequest(action.because, pass, context);
    case 'noteAbsence': {
      // By a time after the look, so that the grace is not cut short by how long that took.
      const since = action.isMissing ? context.clock.now() : null;
      await update(pass, context, action.of === 'task' ? { absentSince: since } : { requestAbsentSince: since });
      return 'observe';
    }
    case 'closeMapping':
      return closeMapping(mapping, pass, context);
    case 'lookAgain':
      return { end: action.at };
    default:
      return action satisfies never;
  }
}

/** Whether the request is known to be over, which it stays. */
function isOver({ knowledge: { request } }: Pass): boolean {
  return request?.kind === 'present' && request.value.state === 'complete';
}
