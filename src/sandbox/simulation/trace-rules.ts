/** What a trace says is what happened. It is judged as it is written: later it may be gone with its mapping. */
import type { TraceEvent } from '../../domain/mapping.ts';
import type { Master } from './master.ts';
import { shortName } from './names.ts';
import { isBuildable, type Plan } from './plan.ts';
import type { Ending, QueueServer } from './queue-server.ts';
import { WORKER } from './settings.ts';

export interface TraceContext {
  readonly plan: Plan;
  readonly complain: (what: string) => void;
  readonly queue: () => QueueServer;
  readonly master: () => Master;
  readonly endings: readonly Ending[];
  /** Whether this call about the task ever had its effect. */
  readonly wasCalled: (method: string, taskId: string) => boolean;
}

/** As the bridge words it where a task is over. */
const RESOLVED = /^run (\d+) is resolved: ([\w-]+)/;

/** @returns what judges an event */
export function createTraceRules(context: TraceContext): (event: TraceEvent) => void {
  const { plan, complain, queue, master, endings, wasCalled } = context;
  const buildable = new Set(plan.tasks.filter(({ flavour }) => isBuildable(flavour)).map(({ name }) => name));

  return ({ taskId, runId, what, detail }) => {
    const runs = queue().view(taskId)?.runs ?? [];
    const run = runs[runId ?? -1];
    const name = `${shortName(taskId)}/${runId}`;
    const [, number, resolution] = RESOLVED.exec(detail) ?? [];
    const named = runs[Number(number)];
    if (named !== undefined && resolution !== (named.reasonResolved ?? named.state)) {
      complain(
        `the trace says that ${shortName(taskId)}/${number} is ${resolution}, and it is ${named.reasonResolved ?? named.state}`,
      );
    }
    if (run === undefined) {
      return;
    }
    if (what === 'claimRun' && run.workerId !== WORKER.workerId) {
      complain(`the trace says that ${name} was claimed, and it was not`);
    }
    const isOwn = endings.some((end) => end.taskId === taskId && end.runId === runId && end.by === 'bridge');
    if (what === 'resolveRun' && !isOwn) {
      complain(`the trace says that ${name} was resolved, and the bridge did not do it`);
    }
    if ((what === 'cancelTask' || what === 'rerunTask') && !wasCalled(what, taskId)) {
      complain(`the trace says ${what} of ${name}, and nobody asked the queue for it`);
    }
    const isSubmitted = master().requests.some(
      (request) => request.taskId === taskId && request.runId <= (runId ?? -1),
    );
    // A submission that was refused is in the trace as well.
    if (what === 'submit' && !isSubmitted && buildable.has(shortName(taskId))) {
      complain(`the trace says that a request was made for ${name}, and there was none`);
    }
  };
}
