/** What must hold when all faults are over: everything comes to its end in reasonable time, and then nothing moves. */

import { stateOf } from '../queue/state.ts';
import { isOpen, runningBuild, type SimRequest } from './master-state.ts';
import { shortName, taskIdOf } from './names.ts';
import type { World } from './world.ts';

const MINUTE = 60_000;
/** The longest that anything the bridge has to do may take when nothing hinders it. */
const PROMPT_MS = 20 * MINUTE;
/** Cancels that came to nothing are repeated with doubling waits, up to ten minutes. */
const CANCELLED_MS = 14 * MINUTE;

/** Whether all is done: every task resolved, every mapping closed, nothing built, nothing on its way. */
export function isAtRest({ queue, store, master, broker, plan, errands }: World): boolean {
  return (
    queue.taskIds().length === plan.tasks.length &&
    queue.taskIds().every(queue.isOver) &&
    store.allOpen().length === 0 &&
    !master.requests.some((request) => request.taskId !== null && isOpen(request)) &&
    broker.size() === 0 &&
    errands.open === 0
  );
}

/** In the calm: does anything take longer than it may? @param since when the calm began */
export function checkProgress(world: World, since: number): void {
  const { scheduler, master, store, history } = world;
  const age = (at: number) => scheduler.now() - Math.max(at, since);
  for (const request of master.requests) {
    const complaint = requestComplaint(world, request, age);
    if (complaint !== undefined) {
      history.complain(complaint);
    }
  }
  for (const { name, flavour } of world.plan.tasks) {
    const taskId = taskIdOf(name);
    const run = world.queue.view(taskId)?.runs.at(-1);
    const isOurs = flavour !== 'native' && flavour !== 'ignored';
    const isWaiting = isOurs && run?.state === 'pending' && store.open(taskId) === undefined;
    if (isWaiting && age(Math.max(run.scheduled, lastWrite(world, taskId))) > PROMPT_MS) {
      history.complain(`${name} has been pending for long, and has no mapping`);
    }
  }
  for (const row of store.allOpen()) {
    if (age(row.nextCheckAt) > 5 * MINUTE && age(row.leaseUntil) > 5 * MINUTE) {
      history.complain(`${shortName(row.taskId)} has been due for ${Math.round(age(row.nextCheckAt) / 1000)} s`);
    }
  }
}

/** Of a mapping of the task: a run before may have had to be followed to its end. */
function lastWrite({ store }: World, taskId: string): number {
  const own = [...store.rows.values()].filter((row) => row.taskId === taskId);
  return Math.max(0, ...own.map(({ updated }) => updated));
}

/** Whether somebody wants it, or did so until not long ago. */
function isWantedLately({ queue }: World, { taskId }: SimRequest, age: (at: number) => number): boolean {
  const run = taskId === null ? undefined : queue.state.tasks.get(taskId)?.runs.at(-1);
  return taskId === null || (run !== undefined && (run.resolved === undefined || age(run.resolved) < PROMPT_MS));
}

function requestComplaint(world: World, request: SimRequest, age: (at: number) => number): string | undefined {
  const { queue, master } = world;
  const { taskId, id, isPurged, completedAt } = request;
  const task = taskId === null || isPurged ? undefined : queue.state.tasks.get(taskId);
  if (taskId === null || isPurged) {
    return undefined;
  }
  const state = task === undefined ? 'absent' : stateOf(task);
  const since = Math.max(task?.runs.at(-1)?.resolved ?? 0, task?.runs.at(-1)?.scheduled ?? 0);
  const build = runningBuild(request);
  const isNewest = master.requests.findLast((other) => other.taskId === taskId) === request;
  const isWanted = state === 'pending' || state === 'running';
  // Whoever cannot be stopped, or not without others, is followed to the end; a later run waits for that.
  const isShared = request.builds.some(({ group }) =>
    // Of a zombie's request nobody knows whose it is.
    group.some((other) => other !== request && (world.rules.zombies.has(other) || isWantedLately(world, other, age))),
  );
  // Whoever made it may have died before it found out that it was one too many, or never learnt that it was made.
  const isOrphan = world.rules.zombies.has(request);
  const isKept = request.isUnstoppable || isShared || isOrphan;
  if (build && isNewest && state === 'pending' && !isKept && age(Math.max(build.startedAt, since)) > PROMPT_MS) {
    return `#${id} of ${shortName(taskId)} has been building for long, and its run is not claimed`;
  }
  if (isOpen(request) && !isWanted && age(Math.max(since, build?.startedAt ?? 0)) > CANCELLED_MS && !isKept) {
    return `#${id} goes on although ${shortName(taskId)} was ${state} long ago`;
  }
  const ended = Math.max(completedAt ?? 0, request.settledAt, since);
  // What a zombie made and withdrew is the newest, and the one before it is built.
  const isWaitedFor = master.requests.some((other) => other.taskId === taskId && isOpen(other));
  const isLate = isNewest && !isWaitedFor && state === 'running' && age(ended) > PROMPT_MS;
  const isLost = request.endedBy === 'collapse' || request.endedBy === 'shutdown';
  return isLate && !isLost ? `#${id} ended long ago, and ${shortName(taskId)} is still ${state}` : undefined;
}

/** At rest: is everything as it ought to be? */
export function checkRest(world: World): void {
  const { queue, store, master, history, plan, rules, scheduler } = world;
  for (const { name } of plan.tasks) {
    if (!queue.taskIds().some((taskId) => shortName(taskId) === name)) {
      history.complain(`${name} was never made`);
    }
  }
  for (const taskId of queue.taskIds().filter((id) => !queue.isOver(id))) {
    const task = queue.state.tasks.get(taskId);
    history.complain(`${shortName(taskId)} is ${task ? stateOf(task) : 'absent'}, and nothing happens any more`);
  }
  for (const row of store.allOpen()) {
    history.complain(`the mapping of ${shortName(row.taskId)} is ${row.state}, and stays so`);
  }
  for (const request of master.requests.filter(
    (one) => one.taskId !== null && isOpen(one) && !rules.zombies.has(one),
  )) {
    history.complain(`#${request.id} of ${shortName(request.taskId ?? '')} is open, and stays so`);
  }
  for (const { taskId, runId, reason } of rules.endings) {
    const deadline = Date.parse(queue.state.tasks.get(taskId)?.definition.deadline ?? '');
    if (reason === 'deadline-exceeded' && deadline > scheduler.now()) {
      history.complain(`${shortName(taskId)}/${runId} is ${reason} before its deadline`);
    }
  }
  for (const untold of rules.untold()) {
    history.complain(untold);
  }
}
