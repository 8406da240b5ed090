/** What the bridge can do about a task. Every action says why, in plain words, for the log and the task's trace. */
import type { Resolution } from '../ports.ts';

type Deed =
  /** Ties the run to a request that is to be made, or to be refused. First of all, so that a crash leaves a trace. */
  | { readonly do: 'recordIntent'; readonly runId: number; readonly state: 'refusing' | 'intended' }
  /** From `held` to `intended`, if no unclaimed request of the same collapse key is in the way. */
  | { readonly do: 'takeSlot' }
  /** A task that waits for its turn has another priority (`priorityRank`) now. */
  | { readonly do: 'notePriority'; readonly priority: number }
  /** Makes the build request. */
  | { readonly do: 'submit' }
  /** Records a request that was found. */
  | { readonly do: 'adopt'; readonly buildRequestId: number }
  /** From `intended` to `refusing`. */
  | { readonly do: 'refuse' }
  /** Forgets the request, which came to nothing, for a living one of the same submission, or to make another one. */
  | { readonly do: 'resubmit' }
  /** The mapping moves on to a later run of the task, with the same request. */
  | {
      readonly do: 'follow';
      readonly runId: number;
      readonly takenUntil: number | null;
      readonly retriesReported: number;
      readonly submissions: number;
    }
  | { readonly do: 'claimRun'; readonly runId: number; readonly retriesReported: number }
  | { readonly do: 'reclaimRun'; readonly runId: number }
  /** While the build runs, `live.log` leads to its page. */
  | { readonly do: 'announceBuild'; readonly runId: number }
  /** Properties, log and status of the request's builds become artifacts of the run. */
  | {
      readonly do: 'uploadOutcome';
      readonly runId: number;
      readonly resolution: Resolution | 'canceled';
      readonly isLastTry: boolean;
    }
  /** A log that says why there is no build. */
  | {
      readonly do: 'uploadExplanation';
      readonly runId: number;
      readonly about: 'refused' | 'request-gone' | 'collapsed';
      readonly isLastTry: boolean;
    }
  | { readonly do: 'resolveRun'; readonly runId: number; readonly resolution: Resolution }
  /** Only while this run is the last one: what the queue cancels is the task. */
  | { readonly do: 'cancelTask'; readonly runId: number }
  | { readonly do: 'rerunTask' }
  /** Cancels the pending request or stops its build. `isLoud`: a person should know. */
  | { readonly do: 'cancelRequest'; readonly isLoud: boolean }
  /** Something seen before is missing from now on, or is back. */
  | { readonly do: 'noteAbsence'; readonly of: 'task' | 'request'; readonly isMissing: boolean }
  | { readonly do: 'closeMapping' }
  /** Nothing to do until then, unless something happens. */
  | { readonly do: 'lookAgain'; readonly at: number };

export type Action = Deed & { readonly because: string };

export type ActionKind = Action['do'];

/** All that change something; one that is missing here does not compile. */
export const ACTION_KINDS = Object.keys({
  recordIntent: true,
  takeSlot: true,
  notePriority: true,
  submit: true,
  adopt: true,
  refuse: true,
  resubmit: true,
  follow: true,
  claimRun: true,
  reclaimRun: true,
  announceBuild: true,
  uploadOutcome: true,
  uploadExplanation: true,
  resolveRun: true,
  cancelTask: true,
  rerunTask: true,
  cancelRequest: true,
  noteAbsence: true,
  closeMapping: true,
} satisfies Record<Exclude<ActionKind, 'lookAgain'>, true>);

/** What is done about a task that Buildbot was asked for nothing for, but for one whose run is claimed. */
const NEW: ReadonlySet<ActionKind> = new Set<ActionKind>(['recordIntent', 'takeSlot', 'submit', 'refuse']);

/** How the bridge behaves: as always; taking on nothing new; or changing nothing anywhere. */
export type Mode = 'normal' | 'drain' | 'observe';

/**
 * Filters what was decided by the mode.
 * @param isClaimed whether the run is claimed by the bridge
 * @returns the actions to carry out, and those left out
 */
export function applyMode(
  actions: readonly Action[],
  mode: Mode,
  isClaimed: boolean,
): { todo: readonly Action[]; left: readonly Action[] } {
  switch (mode) {
    case 'normal':
      return { todo: actions, left: [] };
    case 'observe':
      return { todo: [], left: actions };
    case 'drain': {
      if (isClaimed) {
        // A run that is claimed comes to its end only with a build.
        return { todo: actions, left: [] };
      }
      // Also what would be refused is somebody else's from now on, who may have it under way already.
      const isNew = ({ do: what }: Action) => NEW.has(what);
      return { todo: actions.filter((a) => !isNew(a)), left: actions.filter(isNew) };
    }
    default:
      return mode satisfies never;
  }
}
