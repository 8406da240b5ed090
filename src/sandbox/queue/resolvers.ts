/** What the real queue's background services do: claims that run out, deadlines, dependencies, expiry. */
import { followResolution } from './create-task.ts';
import type { QueueState, Task } from './state.ts';
import { deadlineOf, isResolved, removeClaims } from './state.ts';
import { exceedDeadline, expireClaim } from './transitions.ts';

interface Due {
  readonly at: number;
  resolve(): void;
}

/** The next thing that time alone does to a task that is not resolved; undefined: nothing yet. */
function nextDue(state: QueueState, task: Task, now: number): Due | undefined {
  const run = task.runs.at(-1);
  const deadline = deadlineOf(task);
  // Past the deadline a claim is no longer watched: the deadline itself resolves the run, a little later.
  if (run?.state === 'running' && run.takenUntil !== undefined && run.takenUntil < deadline && run.takenUntil <= now) {
    return { at: run.takenUntil, resolve: () => expireClaim(state, task, now) };
  }
  const at = deadline + state.deadlineDelayMs;
  return at <= now ? { at, resolve: () => exceedDeadline(state, task, now) } : undefined;
}

function resolveDue(state: QueueState, now: number): boolean {
  const due = [...state.tasks.values()]
    .filter((task) => !isResolved(task))
    .flatMap((task) => nextDue(state, task, now) ?? [])
    .sort((a, b) => a.at - b.at);
  for (const { resolve } of due) {
    resolve();
  }
  return due.length > 0;
}

/** Releases what waited for tasks that are resolved, and announces groups that are. */
export function followResolutions(state: QueueState, now: number): void {
  for (let next = state.resolutions[0]; next !== undefined && next.at <= now; next = state.resolutions[0]) {
    state.resolutions.shift();
    const task = state.tasks.get(next.taskId);
    if (task) {
      followResolution(state, task, now);
    }
  }
}

/** Does everything that is due at `now`, and forgets tasks past their `expires`. */
export function resolveAllDue(state: QueueState, now: number): void {
  // A claim that ran out can leave a pending run whose deadline is over, too.
  while (resolveDue(state, now)) {
    // Until nothing is due any more; each step resolves runs for good.
  }
  followResolutions(state, now);
  for (const [taskId, task] of state.tasks) {
    if (Date.parse(task.definition.expires) <= now) {
      state.tasks.delete(taskId);
      removeClaims(state, (claim) => claim.taskId === taskId);
      state.dependents.delete(taskId);
    }
  }
  removeClaims(state, (claim) => claim.takenUntil <= now);
}
