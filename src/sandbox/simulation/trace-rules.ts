/** What a trace says is what happened. It is judged as it is written: later it may be gone with its mapping. */
import type { TraceEvent } from '../../domain/mapping.ts';
import type { Call, Host } from './host.ts';
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
  /** External ids of submissions that were taken over by a later run before their end was known. */
  readonly carried: ReadonlySet<string>;
}

export interface TraceRules {
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  onTrace(event: TraceEvent): void;
}

/** As the bridge words it where a task is over. */
const RESOLVED = /^run (\d+) is resolved: ([\w-]+)/;

export function createTraceRules(context: TraceContext): TraceRules {
  const { plan, complain, queue, master, endings, wasCalled, carried } = context;
  /** By process and task: the cancels that it has asked for, whatever came of them, and that no trace has told of yet. */
  const untold = new Map<string, number>();
  const buildable = new Set(plan.tasks.filter(({ flavour }) => isBuildable(flavour)).map(({ name }) => name));

  /** Each is told once, at the end of its pass. */
  function checkCancel({ instance, taskId, runId }: TraceEvent): void {
    const key = `${instance} ${taskId}`;
    const left = untold.get(key) ?? 0;
    if (left === 0) {
      complain(
        `the trace says cancelRequest of ${shortName(taskId)}/${runId}, and ${instance} asked Buildbot for none`,
      );
    }
    untold.set(key, Math.max(0, left - 1));
  }

  function onTrace(event: TraceEvent): void {
    const { taskId, runId, what, detail } = event;
    if (what === 'cancelRequest') {
      checkCancel(event);
    }
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
      (request) =>
        request.taskId === taskId &&
        (request.runId === runId || (request.runId < (runId ?? -1) && carried.has(request.externalId ?? ''))),
    );
    // A submission that was refused is in the trace as well.
    if (what === 'submit' && !isSubmitted && buildable.has(shortName(taskId))) {
      complain(`the trace says that a request was made for ${name}, and there was none`);
    }
  }

  return {
    onCall(host, { method, taskId }) {
      if (method === 'cancel' && taskId !== undefined) {
        const key = `${host.name} ${taskId}`;
        untold.set(key, (untold.get(key) ?? 0) + 1);
      }
    },
    onTrace,
  };
}
