/**
 * What ought to come of a task, told from what really happened in Buildbot and in the queue. It knows the documented
 * rules and nothing of the bridge's own decisions: it is what those are judged by.
 */
import type { TaskStatus } from '../../domain/task.ts';
import type { ResultPolicy } from '../../reflector/outcome.ts';
import type { Master } from './master.ts';
import type { SimRequest } from './master-state.ts';
import { type Flavour, isBuildable } from './plan.ts';
import type { Ending } from './queue-server.ts';

export interface Truth {
  /** Why this ending of a run, by the bridge, is wrong; undefined if it is right. */
  objection(ending: Ending, task: TaskStatus, flavour: Flavour): string | undefined;
  /** The request whose result ended the run. */
  requestOf(ending: Pick<Ending, 'taskId' | 'runId'>): SimRequest | undefined;
}

/** After these the queue makes the next run by itself, for the same request. */
const RETRIED = new Set(['worker-shutdown', 'claim-expired', 'intermittent-task']);
const MOST_SUBMISSIONS = 5;

/** @param carried external ids of submissions that nobody knew the end of when their run ended: the next run took them over */
export function createTruth(
  policy: ResultPolicy,
  master: Master,
  endings: readonly Ending[],
  zombies: ReadonlyMap<SimRequest, unknown>,
  carried: ReadonlySet<string>,
): Truth {
  const used = new Map<SimRequest, number>();

  /** Requests that serve this run: made for it, or for one before it from which only retries lead here. */
  function serving({ runs, taskId }: TaskStatus, runId: number): readonly SimRequest[] {
    let first = runId;
    while (first > 0 && RETRIED.has(runs[first - 1]?.reasonResolved ?? '')) {
      first -= 1;
    }
    return master.requests.filter(
      (request) =>
        request.taskId === taskId &&
        request.runId <= runId &&
        (request.runId >= first || carried.has(request.externalId ?? '')),
    );
  }

  function expected(request: SimRequest, submissions: number): string | undefined {
    switch (request.endedBy) {
      case 'person':
        return 'canceled';
      case 'shutdown':
        return 'worker-shutdown';
      case 'collapse':
        return submissions >= MOST_SUBMISSIONS ? 'internal-error' : undefined;
      case 'bridge':
      case undefined:
        return undefined;
      default:
        return byResults(request);
    }
  }

  /** What the operator's policy makes of what the build came to. */
  function byResults({ results, builds }: SimRequest): string {
    const table: Readonly<Record<string, string>> = {
      SUCCESS: 'completed',
      WARNINGS: policy.warnings,
      FAILURE: policy.failure,
      EXCEPTION: policy.exception,
      SKIPPED: builds.length > 0 ? policy.skipped : 'internal-error',
      RETRY: 'worker-shutdown',
    };
    return table[results ?? ''] ?? 'internal-error';
  }

  /** RETRY builds of a request of which no run has told yet. */
  function untoldRetries(request: SimRequest, task: TaskStatus, runId: number): number {
    const retries = request.builds.filter(({ results }) => results === 'RETRY').length;
    const told = endings.filter(
      (ending) =>
        ending.taskId === task.taskId &&
        ending.by === 'bridge' &&
        ending.reason === 'worker-shutdown' &&
        ending.runId >= request.runId &&
        ending.runId < runId,
    ).length;
    return retries - told;
  }

  function objection(ending: Ending, task: TaskStatus, flavour: Flavour): string | undefined {
    const { runId, reason } = ending;
    const requests = serving(task, runId);
    if (reason === 'malformed-payload') {
      return isBuildable(flavour) || flavour === 'ignored' ? 'nothing is wrong with the task' : undefined;
    }
    const last = requests.filter((request) => !zombies.has(request)).at(-1) ?? requests.at(-1);
    if (last === undefined) {
      return 'no build request serves the run';
    }
    // What a zombie made may have been adopted, where there was nothing else to adopt.
    const meant = new Set([last.externalId, requests.at(-1)?.externalId]);
    const candidates = requests.filter(({ externalId }) => meant.has(externalId)).reverse();
    const right = candidates.find((request) => {
      const isTold = reason === 'worker-shutdown' && untoldRetries(request, task, runId) > 0;
      // What was read before it was purged counts as well as that it is gone.
      const isGone = request.isPurged && reason === 'internal-error';
      return isTold || isGone || expected(request, requests.length) === reason;
    });
    if (right === undefined) {
      const seen = candidates.map(
        (request) => `#${request.id} asks for ${expected(request, requests.length) ?? 'nothing'}`,
      );
      return `${seen.join(', ')}, and it was resolved ${reason}`;
    }
    const before = used.get(right);
    if (before !== undefined && before !== runId && reason !== 'worker-shutdown') {
      return `the result of #${right.id} was run ${before}'s`;
    }
    if (reason !== 'worker-shutdown') {
      used.set(right, runId);
    }
    return undefined;
  }

  return {
    objection,
    requestOf: ({ taskId, runId }) =>
      [...used].find(([request, run]) => request.taskId === taskId && run === runId)?.[0],
  };
}
