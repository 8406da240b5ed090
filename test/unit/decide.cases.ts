/** The decision table, row by row: what is seen, and what is to be done about it. */
import type { RequestView } from '../../src/domain/build.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import type { TaskStatus } from '../../src/domain/task.ts';
import { QueueError } from '../../src/errors.ts';
import type { Seen } from '../../src/ports.ts';
import type { Action } from '../../src/reflector/actions.ts';
import type { Admission } from '../../src/reflector/admission.ts';
import type { Observation } from '../../src/reflector/decide.ts';
import {
  aBuild,
  aMapping,
  anothers,
  aRequest,
  aTask,
  exception,
  MINUTE,
  NOW,
  ours,
  pending,
  requestBuilding,
  requestComplete,
  requestPending,
  TASK_ID,
} from '../support/builders.ts';

/** An action by its name, or with what else matters of it. */
type Expected = Action['do'] | (Partial<Action> & { do: Action['do'] });

export interface Case {
  readonly name: string;
  readonly mapping?: Partial<Mapping> | null;
  readonly task: TaskStatus | 'absent' | 'unreadable';
  readonly request?: RequestView | 'absent' | 'unreadable' | 'none';
  readonly admission?: Admission;
  readonly todo: readonly Expected[];
}

export const ADMITTED: Admission = {
  kind: 'admitted',
  collapseKey: null,
  spec: {
    taskId: TASK_ID,
    runId: 0,
    externalId: `${TASK_ID}/0/1`,
    scheduled: NOW,
    priority: 'low',
    builder: 'linux64-build',
    branch: null,
    revision: null,
    repository: null,
    project: null,
    properties: {},
  },
};
export const REFUSED: Admission = {
  kind: 'refused',
  builder: 'nope',
  problems: [{ where: 'payload.buildername', what: 'there is no builder "nope"', mend: 'use another' }],
};
const IGNORED: Admission = { kind: 'ignored', builder: 'theirs' };

const running = { takenUntil: NOW + 20 * MINUTE };
const intended = { state: 'intended', buildRequestId: null } as const;
const held = { state: 'held', buildRequestId: null, submissions: 0 } as const;
const refusing = { state: 'refusing', buildRequestId: null, submissions: 0 } as const;
const cancelling = { state: 'cancelling' } as const;
const SHUTDOWN = { ...requestComplete('CANCELLED', aBuild('CANCELLED')), cancelledBy: 'master-shutdown' } as const;

export const CASES: readonly Case[] = [
  // No mapping.
  {
    name: 'a new task is pending and admitted',
    mapping: null,
    task: aTask([pending()]),
    admission: ADMITTED,
    todo: [{ do: 'recordIntent', state: 'intended', runId: 0 }],
  },
  {
    name: 'a new task is pending and refused',
    mapping: null,
    task: aTask([pending()]),
    admission: REFUSED,
    todo: [{ do: 'recordIntent', state: 'refusing' }],
  },
  { name: 'a new task is for another bridge', mapping: null, task: aTask([pending()]), admission: IGNORED, todo: [] },
  {
    name: 'a new task is past its deadline',
    mapping: null,
    task: aTask([pending()], { deadline: NOW }),
    admission: ADMITTED,
    todo: [],
  },
  {
    name: 'a run claimed by this bridge has no mapping',
    mapping: null,
    task: aTask([ours()]),
    admission: ADMITTED,
    todo: [{ do: 'recordIntent', state: 'intended' }],
  },
  {
    name: 'a run claimed by another worker has no mapping',
    mapping: null,
    task: aTask([anothers()]),
    admission: ADMITTED,
    todo: [],
  },
  { name: 'an unmapped task is resolved', mapping: null, task: aTask([{ state: 'completed' }]), todo: [] },
  { name: 'an unmapped task is unscheduled', mapping: null, task: aTask([]), todo: [] },
  {
    name: 'an unmapped task is in another task queue',
    mapping: null,
    task: aTask([pending()], { taskQueueId: 'a/b' }),
    admission: ADMITTED,
    todo: [],
  },
  { name: 'an unmapped task is absent', mapping: null, task: 'absent', todo: [] },
  { name: 'an unmapped task is unreadable', mapping: null, task: 'unreadable', todo: [] },

  // Unreadable leads to nothing but another look, and to a reclaim.
  {
    name: 'the task is unreadable',
    task: 'unreadable',
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['lookAgain'],
  },
  { name: 'the request is unreadable', task: aTask([pending()]), request: 'unreadable', todo: ['lookAgain'] },
  {
    name: 'the request is unreadable and the task canceled',
    task: aTask([exception('canceled')]),
    request: 'unreadable',
    todo: ['lookAgain'],
  },
  {
    name: 'the request is unreadable, and the claim has expired',
    mapping: { takenUntil: NOW - MINUTE },
    task: aTask([exception('claim-expired'), pending()]),
    request: 'unreadable',
    todo: ['lookAgain'],
  },
  {
    name: 'the request is unreadable, and a claim near its end was not recorded',
    task: aTask([ours(NOW + 9 * MINUTE)]),
    request: 'unreadable',
    todo: ['reclaimRun', 'lookAgain'],
  },
  {
    name: 'the request is unreadable and the claim near its end',
    mapping: { takenUntil: NOW + 9 * MINUTE },
    task: aTask([ours(NOW + 9 * MINUTE)]),
    request: 'unreadable',
    todo: ['reclaimRun', 'lookAgain'],
  },
  {
    name: 'the task is unreadable and the claim near its end',
    mapping: { takenUntil: NOW + 9 * MINUTE },
    task: 'unreadable',
    request: requestBuilding(),
    todo: ['reclaimRun', 'lookAgain'],
  },
  {
    name: 'an intent is known and its request unreadable',
    mapping: intended,
    task: aTask([pending()]),
    request: 'unreadable',
    admission: ADMITTED,
    todo: ['lookAgain'],
  },

  // Absent waits out its grace.
  {
    name: 'the request is found missing',
    mapping: running,
    task: aTask([ours()]),
    request: 'absent',
    todo: [{ do: 'noteAbsence', of: 'request', isMissing: true }],
  },
  {
    name: 'the request has been missing for a moment',
    mapping: { ...running, requestAbsentSince: NOW - MINUTE },
    task: aTask([ours()]),
    request: 'absent',
    todo: [{ do: 'lookAgain', at: NOW + MINUTE }],
  },
  {
    name: 'the request has been missing for a moment and the claim is near its end',
    mapping: { takenUntil: NOW + MINUTE, requestAbsentSince: NOW - MINUTE },
    task: aTask([ours(NOW + MINUTE)]),
    request: 'absent',
    todo: ['reclaimRun', 'lookAgain'],
  },
  {
    name: 'the missing request is back',
    mapping: { requestAbsentSince: NOW - MINUTE },
    task: aTask([pending()]),
    request: requestPending(),
    todo: [{ do: 'noteAbsence', of: 'request', isMissing: false }],
  },
  {
    name: 'the request is gone, run pending',
    mapping: { requestAbsentSince: NOW - 3 * MINUTE },
    task: aTask([pending()]),
    request: 'absent',
    todo: ['claimRun'],
  },
  {
    name: 'the request is gone, run running',
    mapping: { ...running, requestAbsentSince: NOW - 3 * MINUTE },
    task: aTask([ours()]),
    request: 'absent',
    todo: ['uploadExplanation', { do: 'resolveRun', resolution: { state: 'exception', reason: 'internal-error' } }],
  },
  {
    name: 'the request is gone, task resolved',
    mapping: { requestAbsentSince: NOW - 3 * MINUTE },
    task: aTask([exception('internal-error')]),
    request: 'absent',
    todo: ['closeMapping'],
  },
  {
    name: 'the task is found missing',
    task: 'absent',
    request: requestBuilding(),
    todo: [{ do: 'noteAbsence', of: 'task', isMissing: true }],
  },
  {
    name: 'the task is missing, and was found so by a clock that was ahead',
    mapping: { absentSince: NOW + 60 * MINUTE },
    task: 'absent',
    request: requestBuilding(),
    todo: [{ do: 'noteAbsence', of: 'task', isMissing: true }],
  },
  {
    name: 'the task expired, and its request was found missing by a clock that was ahead',
    mapping: { absentSince: NOW - 3 * MINUTE, requestAbsentSince: NOW + 60 * MINUTE },
    task: 'absent',
    request: 'absent',
    todo: [{ do: 'noteAbsence', of: 'request', isMissing: true }],
  },
  {
    name: 'the task expired, request open',
    mapping: { absentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'the task expired, request complete',
    mapping: { absentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['closeMapping'],
  },
  {
    name: 'the task expired, and its request is found missing only now',
    mapping: { absentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: 'absent',
    todo: [{ do: 'noteAbsence', of: 'request', isMissing: true }],
  },
  {
    name: 'the task expired, and its request has been missing for a moment',
    mapping: { absentSince: NOW - 3 * MINUTE, requestAbsentSince: NOW - MINUTE },
    task: 'absent',
    request: 'absent',
    todo: [{ do: 'lookAgain', at: NOW + MINUTE }],
  },
  {
    name: 'the task has been missing for a moment, and its missing request is back',
    mapping: { absentSince: NOW - MINUTE, requestAbsentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: requestBuilding(),
    todo: [{ do: 'noteAbsence', of: 'request', isMissing: false }],
  },
  {
    name: 'the request was gone before the task was found missing',
    mapping: { requestAbsentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: 'absent',
    todo: [{ do: 'noteAbsence', of: 'task', isMissing: true }],
  },
  {
    name: 'the task expired, and its request is gone',
    mapping: { absentSince: NOW - 3 * MINUTE, requestAbsentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: 'absent',
    todo: ['closeMapping'],
  },
  {
    name: 'the task expired before anything was submitted',
    mapping: { ...held, absentSince: NOW - 3 * MINUTE },
    task: 'absent',
    request: 'none',
    todo: ['closeMapping'],
  },

  // A refused task.
  {
    name: 'a refused task is pending',
    mapping: refusing,
    task: aTask([pending()]),
    request: 'none',
    admission: REFUSED,
    todo: ['claimRun'],
  },
  {
    name: 'a refused task is claimed',
    mapping: { ...refusing, ...running },
    task: aTask([ours()]),
    request: 'none',
    admission: REFUSED,
    todo: [
      { do: 'uploadExplanation', about: 'refused' },
      { do: 'resolveRun', resolution: { state: 'exception', reason: 'malformed-payload' } },
    ],
  },
  {
    name: 'a refused task is resolved',
    mapping: refusing,
    task: aTask([exception('malformed-payload')]),
    request: 'none',
    todo: ['closeMapping'],
  },

  // Submission.
  {
    name: 'nothing was submitted yet',
    mapping: intended,
    task: aTask([pending()]),
    request: 'none',
    admission: ADMITTED,
    todo: ['submit'],
  },
  {
    name: 'a crash left an intent, and a request',
    mapping: intended,
    task: aTask([pending()]),
    request: requestPending(),
    admission: ADMITTED,
    todo: [{ do: 'adopt', buildRequestId: 17 }],
  },
  {
    name: 'a crash left an intent and no request',
    mapping: intended,
    task: aTask([pending()]),
    request: 'absent',
    admission: ADMITTED,
    todo: ['submit'],
  },
  {
    name: 'a task was taken over, and its request is found',
    mapping: { ...intended, submissions: 0 },
    task: aTask([pending()]),
    request: requestPending(),
    admission: ADMITTED,
    todo: [{ do: 'adopt', buildRequestId: 17 }],
  },
  {
    name: 'a task was taken over, and no request was made for it',
    mapping: { ...intended, submissions: 0 },
    task: aTask([pending()]),
    request: 'absent',
    admission: ADMITTED,
    todo: ['resubmit'],
  },
  {
    name: 'a submission got no answer a moment ago',
    mapping: { ...intended, nextCheckAt: NOW + MINUTE },
    task: aTask([pending()]),
    request: 'absent',
    admission: ADMITTED,
    todo: [{ do: 'lookAgain', at: NOW + MINUTE }],
  },
  {
    name: 'an intent is refused meanwhile',
    mapping: intended,
    task: aTask([pending()]),
    request: 'absent',
    admission: REFUSED,
    todo: ['refuse'],
  },
  {
    name: "an intent became another bridge's",
    mapping: intended,
    task: aTask([pending()]),
    request: 'absent',
    admission: IGNORED,
    todo: ['lookAgain'],
  },
  { name: 'a task is held back', mapping: held, task: aTask([pending()]), request: 'none', todo: ['takeSlot'] },
  {
    name: 'a held task has another priority',
    mapping: { ...held, priority: 1 },
    task: aTask([pending()], { priority: 'highest' }),
    request: 'none',
    todo: [{ do: 'notePriority', priority: 6 }],
  },
  {
    name: 'a held task whose run is claimed has another priority',
    mapping: { ...held, ...running },
    task: aTask([ours()], { priority: 'lowest' }),
    request: 'none',
    todo: [{ do: 'notePriority', priority: 0 }],
  },
  {
    name: 'a submitted task has another priority',
    task: aTask([pending()], { priority: 'highest' }),
    request: requestPending(),
    todo: ['lookAgain'],
  },
  {
    name: 'a held task is canceled',
    mapping: held,
    task: aTask([exception('canceled')]),
    request: 'none',
    todo: ['closeMapping'],
  },
  {
    name: 'a task is canceled while it is being submitted, request made',
    mapping: intended,
    task: aTask([exception('canceled')]),
    request: requestPending(),
    todo: ['adopt'],
  },
  {
    name: 'a task is canceled while it is being submitted, no answer yet',
    mapping: { ...intended, nextCheckAt: NOW + MINUTE },
    task: aTask([exception('canceled')]),
    request: 'absent',
    todo: ['lookAgain'],
  },
  {
    name: 'a task is canceled before it was submitted',
    mapping: intended,
    task: aTask([exception('canceled')]),
    request: 'absent',
    todo: ['closeMapping'],
  },
  {
    name: 'the deadline passes before anything was submitted',
    mapping: held,
    task: aTask([pending()], { deadline: NOW }),
    request: 'none',
    todo: ['lookAgain'],
  },

  // Run pending.
  {
    name: 'request pending, run pending',
    task: aTask([pending()]),
    request: requestPending(),
    todo: [{ do: 'lookAgain', at: NOW + MINUTE }],
  },
  {
    name: 'build started, run pending',
    task: aTask([pending()]),
    request: requestBuilding(),
    todo: [{ do: 'claimRun', runId: 0 }, 'announceBuild'],
  },
  {
    name: 'build started after a RETRY that nobody claimed',
    task: aTask([pending()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: [{ do: 'claimRun', retriesReported: 1 }, 'announceBuild'],
  },
  {
    name: 'build over before the run was claimed',
    task: aTask([pending()]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['claimRun'],
  },
  {
    name: 'cancelled in Buildbot before it started',
    task: aTask([pending()]),
    request: requestComplete('CANCELLED'),
    todo: ['cancelTask'],
  },
  {
    name: 'cancelled in Buildbot while building, run pending',
    task: aTask([pending()]),
    request: requestComplete('CANCELLED', aBuild('CANCELLED')),
    todo: ['cancelTask'],
  },
  { name: 'lost to a master shutdown, run pending', task: aTask([pending()]), request: SHUTDOWN, todo: ['resubmit'] },
  {
    name: 'lost to a master shutdown once too often, run pending',
    mapping: { submissions: 5 },
    task: aTask([pending()]),
    request: SHUTDOWN,
    todo: ['claimRun'],
  },
  { name: 'collapsed', task: aTask([pending()]), request: requestComplete('SKIPPED'), todo: ['resubmit'] },
  {
    name: 'collapsed after a RETRY',
    task: aTask([pending()]),
    request: requestComplete('SKIPPED', aBuild('RETRY')),
    todo: ['resubmit'],
  },
  {
    name: 'collapsed once too often',
    mapping: { submissions: 5 },
    task: aTask([pending()]),
    request: requestComplete('SKIPPED'),
    todo: ['claimRun'],
  },
  {
    name: 'the deadline has passed, run still pending',
    task: aTask([pending()], { deadline: NOW }),
    request: requestBuilding(),
    todo: ['lookAgain'],
  },

  // Run running, ours.
  {
    name: 'building',
    mapping: running,
    task: aTask([ours()]),
    request: requestBuilding(),
    todo: [{ do: 'lookAgain', at: NOW + MINUTE }],
  },
  {
    name: 'building, reclaim due within the interval',
    mapping: { takenUntil: NOW + 10.5 * MINUTE },
    task: aTask([ours(NOW + 10.5 * MINUTE)]),
    request: requestBuilding(),
    todo: [{ do: 'lookAgain', at: NOW + 0.5 * MINUTE }],
  },
  {
    name: 'building, claim near its end',
    mapping: { takenUntil: NOW + 9 * MINUTE },
    task: aTask([ours(NOW + 9 * MINUTE)]),
    request: requestBuilding(),
    todo: ['reclaimRun'],
  },
  {
    name: 'building, a short claim that was just made',
    mapping: { takenUntil: NOW + 20_000, reclaimAt: NOW + 5000 },
    task: aTask([ours(NOW + 20_000)]),
    request: requestBuilding(),
    todo: [{ do: 'lookAgain', at: NOW + 5000 }],
  },
  {
    name: 'building, a short claim half of which is over',
    mapping: { takenUntil: NOW + 10_000, reclaimAt: NOW },
    task: aTask([ours(NOW + 10_000)]),
    request: requestBuilding(),
    todo: ['reclaimRun'],
  },
  {
    name: 'building, and another claim than the recorded one',
    mapping: { takenUntil: NOW + 5 * MINUTE, reclaimAt: NOW },
    task: aTask([ours(NOW + 10.5 * MINUTE)]),
    request: requestBuilding(),
    todo: [{ do: 'lookAgain', at: NOW + 0.5 * MINUTE }],
  },
  {
    name: 'building, its claim renewed while the database was away',
    mapping: { takenUntil: NOW - MINUTE },
    task: aTask([ours(NOW + 15 * MINUTE)]),
    request: requestBuilding(),
    todo: ['reclaimRun'],
  },
  {
    name: 'building past the deadline',
    mapping: { takenUntil: NOW + MINUTE, deadline: NOW },
    task: aTask([ours(NOW + MINUTE)], { deadline: NOW }),
    request: requestBuilding(),
    todo: ['lookAgain'],
  },
  {
    name: 'cancelled in Buildbot, past the deadline',
    mapping: { takenUntil: NOW + MINUTE, deadline: NOW },
    task: aTask([ours(NOW + MINUTE)], { deadline: NOW }),
    request: requestComplete('CANCELLED', aBuild('CANCELLED')),
    todo: ['lookAgain'],
  },
  {
    name: 'a claim that was not recorded',
    task: aTask([ours()]),
    request: requestBuilding(),
    todo: [
      { do: 'follow', runId: 0, takenUntil: NOW + 20 * MINUTE },
      { do: 'announceBuild', runId: 0 },
    ],
  },
  {
    name: 'success',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'completed' } }],
  },
  {
    name: 'warnings',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('WARNINGS', aBuild('WARNINGS')),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'failed' } }],
  },
  {
    name: 'failure',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('FAILURE', aBuild('FAILURE')),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'failed' } }],
  },
  {
    name: 'exception',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('EXCEPTION', aBuild('EXCEPTION')),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'exception', reason: 'internal-error' } }],
  },
  {
    name: 'a build that skipped everything',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('SKIPPED', aBuild('SKIPPED')),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'exception', reason: 'internal-error' } }],
  },
  {
    name: 'results that nobody knows',
    mapping: running,
    task: aTask([ours()]),
    request: aRequest({ state: 'complete', builds: [aBuild(undefined, { isComplete: true })] }),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'exception', reason: 'internal-error' } }],
  },
  {
    name: 'success, claim near its end',
    mapping: { takenUntil: NOW + MINUTE },
    task: aTask([ours(NOW + MINUTE)]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['reclaimRun', 'uploadOutcome', 'resolveRun'],
  },
  {
    name: 'RETRY, request waiting',
    mapping: running,
    task: aTask([ours()]),
    request: requestPending(aBuild('RETRY')),
    todo: [
      { do: 'uploadOutcome', resolution: { state: 'exception', reason: 'worker-shutdown' } },
      { do: 'resolveRun', resolution: { state: 'exception', reason: 'worker-shutdown' } },
    ],
  },
  {
    name: 'RETRY, building again already',
    mapping: running,
    task: aTask([ours()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: ['uploadOutcome', 'resolveRun'],
  },
  {
    name: 'RETRY accounted for, building again',
    mapping: { ...running, retriesReported: 1 },
    task: aTask([ours()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: ['lookAgain'],
  },
  {
    name: 'a RETRY that was missed, then success',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('SUCCESS', aBuild('RETRY'), aBuild('SUCCESS')),
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'completed' } }],
  },
  {
    name: 'cancelled in Buildbot while building',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('CANCELLED', aBuild('CANCELLED')),
    todo: [{ do: 'uploadOutcome', resolution: 'canceled' }, 'cancelTask'],
  },
  {
    name: 'master shut down while building',
    mapping: running,
    task: aTask([ours()]),
    request: SHUTDOWN,
    todo: ['uploadOutcome', { do: 'resolveRun', resolution: { state: 'exception', reason: 'worker-shutdown' } }],
  },
  {
    name: 'collapsed while claimed',
    mapping: running,
    task: aTask([ours()]),
    request: requestComplete('SKIPPED', aBuild('RETRY')),
    todo: ['resubmit'],
  },
  {
    name: 'collapsed while claimed, once too often',
    mapping: { ...running, submissions: 5 },
    task: aTask([ours()]),
    request: requestComplete('SKIPPED'),
    todo: [
      { do: 'uploadExplanation', about: 'collapsed' },
      { do: 'resolveRun', resolution: { state: 'exception', reason: 'internal-error' } },
    ],
  },
  {
    name: 'built, and its properties and log are on their way',
    mapping: running,
    task: aTask([ours()]),
    request: { ...requestComplete('SUCCESS', aBuild('SUCCESS')), isSettling: true },
    todo: ['lookAgain'],
  },
  {
    name: 'the same, and its claim is near its end',
    mapping: { ...running, takenUntil: NOW + 5 * MINUTE },
    task: aTask([ours(NOW + 5 * MINUTE)]),
    request: { ...requestComplete('SUCCESS', aBuild('SUCCESS')), isSettling: true },
    todo: ['reclaimRun', 'lookAgain'],
  },
  {
    name: 'built before it was claimed, and its properties and log are on their way',
    mapping: {},
    task: aTask([pending()]),
    request: { ...requestComplete('SUCCESS', aBuild('SUCCESS')), isSettling: true },
    todo: ['claimRun'],
  },
  {
    name: 'canceled while its properties and log are on their way',
    mapping: running,
    task: aTask([exception('canceled')]),
    request: { ...requestComplete('SUCCESS', aBuild('SUCCESS')), isSettling: true },
    todo: ['closeMapping'],
  },
  {
    name: 'uploads have failed too often',
    mapping: { ...running, attempts: 5 },
    task: aTask([ours()]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: [{ do: 'uploadOutcome', isLastTry: true }, 'resolveRun'],
  },
  {
    name: 'claimed, and the intent has no request',
    mapping: { ...intended, ...running },
    task: aTask([ours()]),
    request: 'absent',
    admission: ADMITTED,
    todo: ['submit'],
  },
  {
    name: 'claimed while its request is being cancelled',
    mapping: { ...cancelling, ...running },
    task: aTask([ours()]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'claimed and its request was cancelled by the bridge',
    mapping: { ...cancelling, ...running },
    task: aTask([ours()]),
    request: requestComplete('CANCELLED'),
    todo: ['resubmit'],
  },

  // The next run.
  {
    name: 'after RETRY, request waiting',
    mapping: running,
    task: aTask([exception('worker-shutdown'), pending()]),
    request: requestPending(aBuild('RETRY')),
    todo: [{ do: 'follow', runId: 1, takenUntil: null, retriesReported: 1 }],
  },
  {
    name: 'after RETRY, building again',
    mapping: running,
    task: aTask([exception('worker-shutdown'), pending()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: [{ do: 'follow', runId: 1 }],
  },
  {
    name: 'claim expired, build goes on',
    mapping: running,
    task: aTask([exception('claim-expired'), pending()]),
    request: requestBuilding(),
    todo: [{ do: 'follow', runId: 1 }],
  },
  {
    name: 'claim expired, build over',
    mapping: running,
    task: aTask([exception('claim-expired'), pending()]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: [{ do: 'follow', runId: 1 }],
  },
  {
    name: 'claim expired, build cancelled in Buildbot',
    mapping: running,
    task: aTask([exception('claim-expired'), pending()]),
    request: requestComplete('CANCELLED', aBuild('CANCELLED')),
    todo: [{ do: 'follow', runId: 1 }],
  },
  {
    name: 'a final result that was reported as a retry',
    mapping: { ...running, retriesReported: 1 },
    task: aTask([exception('intermittent-task'), pending()]),
    request: requestComplete('EXCEPTION', aBuild('RETRY'), aBuild('EXCEPTION')),
    todo: ['closeMapping'],
  },
  {
    name: 'a RETRY reported, and the request complete since',
    mapping: running,
    task: aTask([exception('worker-shutdown'), pending()]),
    request: requestComplete('SUCCESS', aBuild('RETRY'), aBuild('SUCCESS')),
    todo: [{ do: 'follow', runId: 1, retriesReported: 1 }],
  },
  {
    name: 'a retry that a person canceled and reran before it was seen, request complete',
    mapping: running,
    task: aTask([exception('worker-shutdown'), exception('canceled'), pending()]),
    request: requestComplete('SUCCESS', aBuild('RETRY'), aBuild('SUCCESS')),
    todo: ['closeMapping'],
  },
  {
    name: 'a retry that a person canceled and reran before it was seen, request open',
    mapping: running,
    task: aTask([exception('worker-shutdown'), exception('canceled'), pending()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: ['cancelRequest'],
  },
  {
    name: 'two retries at once',
    mapping: running,
    task: aTask([exception('worker-shutdown'), exception('claim-expired'), pending()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: [{ do: 'follow', runId: 2 }],
  },
  {
    name: 'a RETRY never reported, and the final result reported as one that the queue tries again',
    mapping: running,
    task: aTask([exception('intermittent-task'), pending()]),
    request: requestComplete('EXCEPTION', aBuild('RETRY'), aBuild('EXCEPTION')),
    todo: ['closeMapping'],
  },
  {
    name: 'a RETRY reported, and the build cancelled by a person since',
    mapping: running,
    task: aTask([exception('worker-shutdown'), pending()]),
    request: requestComplete('CANCELLED', aBuild('RETRY'), aBuild('CANCELLED')),
    todo: [{ do: 'follow', runId: 1, retriesReported: 1 }],
  },
  {
    name: 'an intent of an older run under which nothing was ever submitted',
    mapping: intended,
    task: aTask([exception('claim-expired'), pending()]),
    request: 'none',
    admission: ADMITTED,
    todo: ['closeMapping'],
  },
  {
    name: 'after a master shutdown',
    mapping: running,
    task: aTask([exception('worker-shutdown'), pending()]),
    request: SHUTDOWN,
    todo: ['closeMapping'],
  },
  {
    name: 'rerun by a person after success',
    mapping: running,
    task: aTask([{ state: 'completed', reasonResolved: 'completed' }, pending()]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['closeMapping'],
  },
  {
    name: 'rerun by a person after failure',
    mapping: running,
    task: aTask([{ state: 'failed', reasonResolved: 'failed' }, pending()]),
    request: requestComplete('FAILURE', aBuild('FAILURE')),
    todo: ['closeMapping'],
  },
  {
    name: 'canceled and rerun by a person, the build goes on',
    mapping: running,
    task: aTask([exception('canceled'), pending()]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'canceled and rerun by a person, the build being stopped',
    mapping: { ...cancelling, nextCheckAt: NOW + 5000 },
    task: aTask([exception('canceled'), pending()]),
    request: requestBuilding(),
    todo: [{ do: 'lookAgain', at: NOW + 5000 }],
  },
  {
    name: 'canceled and rerun by a person, the build stopped',
    mapping: cancelling,
    task: aTask([exception('canceled'), pending()]),
    request: requestComplete('CANCELLED', aBuild('CANCELLED')),
    todo: ['closeMapping'],
  },
  {
    name: 'resolved by somebody else and rerun, the build goes on',
    mapping: running,
    task: aTask([{ state: 'completed' }, pending()]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'a new run of a held task',
    mapping: held,
    task: aTask([exception('claim-expired'), pending()]),
    request: 'none',
    todo: [{ do: 'follow', runId: 1 }],
  },
  {
    name: 'a new run claimed by this bridge, mapping behind',
    mapping: running,
    task: aTask([exception('worker-shutdown'), ours()]),
    request: requestBuilding(aBuild('RETRY')),
    todo: [
      { do: 'follow', runId: 1, takenUntil: NOW + 20 * MINUTE },
      { do: 'announceBuild', runId: 1 },
    ],
  },
  {
    name: 'a new run and the old request is gone',
    mapping: { ...running, requestAbsentSince: NOW - 3 * MINUTE },
    task: aTask([exception('claim-expired'), pending()]),
    request: 'absent',
    todo: [{ do: 'follow', runId: 1 }],
  },
  {
    name: 'a new run after a result that is tried again, and the old request is gone',
    mapping: { ...running, requestAbsentSince: NOW - 3 * MINUTE },
    task: aTask([exception('intermittent-task'), pending()]),
    request: 'absent',
    todo: ['closeMapping'],
  },
  {
    name: 'a reading older than the mapping',
    mapping: { runId: 1 },
    task: aTask([pending()]),
    request: requestPending(),
    todo: ['lookAgain'],
  },

  // Resolved.
  {
    name: 'canceled while pending',
    task: aTask([exception('canceled')]),
    request: requestPending(),
    todo: [{ do: 'cancelRequest', isLoud: false }],
  },
  {
    name: 'canceled while building',
    mapping: running,
    task: aTask([exception('canceled')]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'deadline exceeded before start',
    task: aTask([exception('deadline-exceeded')]),
    request: requestPending(),
    todo: ['cancelRequest'],
  },
  {
    name: 'deadline exceeded while building',
    mapping: running,
    task: aTask([exception('deadline-exceeded')]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'a cancel was asked for a moment ago',
    mapping: { ...cancelling, nextCheckAt: NOW + 5000 },
    task: aTask([exception('canceled')]),
    request: requestBuilding(),
    todo: ['lookAgain'],
  },
  {
    name: 'a cancel had no effect',
    mapping: { ...cancelling, nextCheckAt: NOW - 1 },
    task: aTask([exception('canceled')]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'the claim ran out while the request cannot be read',
    mapping: { ...running, takenUntil: NOW - MINUTE },
    task: aTask([exception('claim-expired'), pending()]),
    request: 'unreadable',
    todo: ['lookAgain'],
  },
  {
    name: 'another worker has the run, and the request cannot be read',
    mapping: { ...running, takenUntil: NOW + MINUTE },
    task: aTask([anothers()]),
    request: 'unreadable',
    todo: ['lookAgain'],
  },
  {
    name: 'many cancels had no effect',
    mapping: { ...cancelling, cancels: 10, nextCheckAt: NOW - 1 },
    task: aTask([exception('canceled')]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'many cancels had no effect, and it ended by itself',
    mapping: { ...cancelling, cancels: 10 },
    task: aTask([exception('canceled')]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['closeMapping'],
  },
  {
    name: 'canceled, build stopped',
    mapping: cancelling,
    task: aTask([exception('canceled')]),
    request: requestComplete('CANCELLED', aBuild('CANCELLED')),
    todo: ['closeMapping'],
  },
  {
    name: 'canceled, build ended RETRY and waits',
    mapping: running,
    task: aTask([exception('canceled')]),
    request: requestPending(aBuild('RETRY')),
    todo: ['cancelRequest'],
  },
  {
    name: 'completed and reported',
    mapping: running,
    task: aTask([{ state: 'completed', reasonResolved: 'completed' }]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['closeMapping'],
  },
  {
    name: 'resolved for a reason that nobody knows, request open',
    task: aTask([exception('made-up-yesterday')]),
    request: requestPending(),
    todo: ['cancelRequest'],
  },
  {
    name: 'resolved without a reason, request open',
    task: aTask([{ state: 'exception' }]),
    request: requestPending(),
    todo: ['cancelRequest'],
  },
  {
    name: 'RETRY with no retries left',
    mapping: running,
    task: aTask([exception('worker-shutdown')], { retriesLeft: 0 }),
    request: requestPending(aBuild('RETRY')),
    todo: ['rerunTask'],
  },
  {
    name: 'RETRY with no retries left, building again',
    mapping: running,
    task: aTask([exception('worker-shutdown')], { retriesLeft: 0 }),
    request: requestBuilding(aBuild('RETRY')),
    todo: ['rerunTask'],
  },
  {
    name: 'RETRY with no retries left, built again already',
    mapping: running,
    task: aTask([exception('worker-shutdown')], { retriesLeft: 0 }),
    request: requestComplete('SUCCESS', aBuild('RETRY'), aBuild('SUCCESS')),
    todo: ['rerunTask'],
  },
  {
    name: 'RETRY with no retries left, rerun too often',
    mapping: { ...running, reruns: 5 },
    task: aTask([exception('worker-shutdown')], { retriesLeft: 0 }),
    request: requestPending(aBuild('RETRY')),
    todo: ['cancelRequest'],
  },
  {
    name: 'RETRY with no retries left, past the deadline',
    mapping: running,
    task: aTask([exception('worker-shutdown')], { retriesLeft: 0, deadline: NOW }),
    request: requestPending(aBuild('RETRY')),
    todo: ['cancelRequest'],
  },
  {
    name: 'master shut down with no retries left',
    mapping: running,
    task: aTask([exception('worker-shutdown')], { retriesLeft: 0 }),
    request: SHUTDOWN,
    todo: ['closeMapping'],
  },
  {
    name: 'claim expired with no retries left, build goes on',
    mapping: running,
    task: aTask([exception('claim-expired')], { retriesLeft: 0 }),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },

  // Another worker.
  {
    name: 'another worker has the run, request pending',
    task: aTask([anothers()]),
    request: requestPending(),
    todo: [{ do: 'cancelRequest', isLoud: true }],
  },
  {
    name: 'another worker has the run, building',
    task: aTask([anothers()]),
    request: requestBuilding(),
    todo: ['cancelRequest'],
  },
  {
    name: 'another worker has the run, request complete',
    task: aTask([anothers()]),
    request: requestComplete('SUCCESS', aBuild('SUCCESS')),
    todo: ['closeMapping'],
  },
  {
    name: 'another worker has the run of a held task',
    mapping: held,
    task: aTask([anothers()]),
    request: 'none',
    todo: ['closeMapping'],
  },
];

function seen<T>(value: T | 'absent' | 'unreadable'): Seen<T> {
  if (value === 'absent') {
    return { kind: 'absent' };
  }
  if (value === 'unreadable') {
    const error = new QueueError('queue-unavailable', 'no answer', { isTransient: true });
    return { kind: 'unreadable', error };
  }
  return { kind: 'present', value };
}

/** The observation of a row. */
export function observationOf(row: Case): Observation {
  const request: Observation['request'] =
    row.request === undefined || row.request === 'none' ? { kind: 'none' } : seen(row.request);
  return {
    mapping: row.mapping === null ? null : aMapping(row.mapping),
    task: seen(row.task),
    request,
    admission: row.admission ?? null,
  };
}
