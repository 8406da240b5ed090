/** What has to be done in time where nothing hinders it, also between faults. */
import type { Mapping } from '../../domain/mapping.ts';
import { LAST_CHANCE_MS } from '../../reflector/upload-time.ts';
import type { Run } from '../queue/state.ts';
import type { Hindrances } from './hindrances.ts';
import type { Call, Host } from './host.ts';
import type { Master } from './master.ts';
import { isOpen, runningBuild, type SimRequest } from './master-state.ts';
import { shortName, taskIdOf } from './names.ts';
import type { Plan } from './plan.ts';
import type { Ending, QueueServer } from './queue-server.ts';
import { POLICY, ROUND_MS, WORKER } from './settings.ts';
import type { StoreState } from './store-state.ts';
import type { Truth } from './truth.ts';

export interface PromptRules {
  onEnding(ending: Ending): void;
  /** Closed mappings that the bridge forgets. */
  onPruned(rows: readonly Mapping[]): void;
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  /** A call of a process has its effect. */
  onEffect(host: Host, call: Call): void;
  /** A process hears what became of its call. */
  onEnd(call: Call): void;
}

export interface PromptRulesContext {
  readonly plan: Pick<Plan, 'climate' | 'databaseOffsets' | 'tasks' | 'policy'>;
  readonly complain: (what: string) => void;
  readonly now: () => number;
  readonly hindrances: Hindrances;
  readonly master: () => Master;
  readonly queue: () => QueueServer;
  readonly store: () => StoreState;
  readonly truth: () => Truth;
  /** Whose they are, nobody has to know. */
  readonly zombies: ReadonlyMap<SimRequest, unknown>;
}

interface Upload {
  readonly host: Host;
  readonly begun: number;
}

/** Longer than one that nothing hinders. */
const LONG_UPLOAD_MS = 5000;
/** Cancels that came to nothing are repeated with waits of up to this. */
const MAX_CANCEL_WAIT_MS = 600_000;
/** Until what is due is seen to by a round, and a restart in between. */
const SLACK_MS = 3 * ROUND_MS;
/** The same for what only a list of the queue's tells of, and is a hint before it is looked at. */
const LISTED_MS = 5 * ROUND_MS;

export function createPromptRules(context: PromptRulesContext): PromptRules {
  const { plan, complain, now, hindrances, master, queue, store, truth, zombies } = context;
  /** By request: when a cancel reached Buildbot last, whatever came of it. */
  const asked = new Map<number, number>();
  const uploads = new Map<Call, Upload>();
  /** When an upload was over that had kept others waiting. */
  let slowUntil = 0;
  /** By taskId: when the last of its mappings that are pruned by now was written. */
  const pruned = new Map<string, number>();
  /** What waits by a clock of the database's that is set back since may wait for as long as a cancel at most. */
  const waitedOutMs = plan.databaseOffsets.length > 1 ? MAX_CANCEL_WAIT_MS : 0;

  /** Nobody but the bridge could have kept it alive, and it had ten minutes for that. */
  function checkExpiry({ taskId, runId }: Ending): void {
    const task = queue().state.tasks.get(taskId);
    const takenUntil = task?.runs[runId]?.takenUntil ?? 0;
    const isReclaimable = takenUntil < Date.parse(task?.definition.deadline ?? '');
    const free = hindrances.freeSince();
    if (isReclaimable && free !== undefined && free < takenUntil) {
      complain(`the claim of ${shortName(taskId)}/${runId} ran out, and nothing hindered the bridge at its end`);
    }
    const freeButForStore = hindrances.freeButForStoreSince();
    const isGone = plan.climate.outages.some(
      ({ service, from, to }) => service === 'store' && from <= takenUntil - POLICY.reclaimThresholdMs && now() < to,
    );
    if (isReclaimable && isGone && freeButForStore !== undefined && freeButForStore < takenUntil - SLACK_MS) {
      complain(`the claim of ${shortName(taskId)}/${runId} ran out, and only the mapping database was away`);
    }
  }

  /** What its build came to was there to be told in time, with everything that could be uploaded. */
  function checkDeadline({ taskId, runId }: Ending): void {
    const deadline = Date.parse(queue().state.tasks.get(taskId)?.definition.deadline ?? '');
    const free = hindrances.freeSince();
    const request = master().requests.findLast((one) => one.taskId === taskId);
    const isOver = request?.endedBy === 'build' && request.results !== 'RETRY' && !zombies.has(request);
    if (free === undefined || request === undefined || !isOver || now() < deadline || wasTold(request, runId)) {
      return;
    }
    const since = Math.max(request.completedAt ?? 0, request.settledAt, request.hiddenUntil, free);
    if (since + LAST_CHANCE_MS + SLACK_MS < deadline) {
      complain(`${shortName(taskId)}/${runId} is over with its deadline, and #${request.id} had ended long before`);
    }
  }

  /** Whether a run before it was resolved by the request's result, which asks for another try. */
  function wasTold(request: SimRequest, runId: number): boolean {
    const { taskId, results } = request;
    const isRetry = Object.entries(plan.policy).some(
      ([name, reason]) => name === results?.toLowerCase() && reason === 'worker-shutdown',
    );
    const before = [...Array(runId).keys()];
    // Of `worker-shutdown` it cannot be said whether it was for that, or for a RETRY.
    return isRetry || before.some((one) => truth().requestOf({ taskId: taskId ?? '', runId: one }) === request);
  }

  /** A build that its task does not want, and of whose cancel nothing came. */
  function checkCancels(): void {
    const free = hindrances.freeSince();
    if (asked.size === 0 || free === undefined) {
      return;
    }
    for (const { state, buildRequestId, taskId } of store().allOpen()) {
      const last = buildRequestId === null ? undefined : asked.get(buildRequestId);
      const request = master().requests.find(({ id }) => id === buildRequestId);
      if (state !== 'cancelling' || last === undefined || request === undefined || !isOpen(request)) {
        continue;
      }
      // While others want its build, it is not asked for either.
      const isLeft = request.isUnstoppable || request.builds.some(({ group }) => group.length > 1);
      if (!isLeft && now() > Math.max(last + MAX_CANCEL_WAIT_MS, free) + SLACK_MS) {
        complain(`#${request.id} of ${shortName(taskId)} was cancelled in vain, and not again in time`);
      }
    }
  }

  /**
   * A build that its task has not wanted for long, and whose cancel nobody has asked for yet. Of a request that the
   * mapping database does not know the bridge cannot know either.
   */
  function checkFirstCancels(): void {
    const free = hindrances.freeSince();
    if (free === undefined) {
      return;
    }
    for (const { buildRequestId, taskId } of store().allOpen()) {
      const over = queue().state.tasks.get(taskId)?.runs.at(-1)?.resolved;
      const request = master().requests.find(({ id }) => id === buildRequestId);
      if (over === undefined || request === undefined || !isOpen(request) || asked.has(request.id)) {
        continue;
      }
      const isLeft =
        request.isUnstoppable || zombies.has(request) || request.builds.some(({ group }) => group.length > 1);
      const since = Math.max(over, request.submittedAt, request.hiddenUntil, free);
      if (!isLeft && now() > since + SLACK_MS + waitedOutMs) {
        complain(`#${request.id} goes on, no run of ${shortName(taskId)} wants it, and nobody asked for its cancel`);
      }
    }
  }

  /** A task that waits, and that nobody has looked at. */
  function checkPending(): void {
    const free = hindrances.freeSince();
    if (free === undefined) {
      return;
    }
    for (const { name, flavour } of plan.tasks) {
      const taskId = taskIdOf(name);
      const run = queue().state.tasks.get(taskId)?.runs.at(-1);
      const isOurs = flavour !== 'native' && flavour !== 'ignored';
      if (!isOurs || run?.state !== 'pending' || store().open(taskId) !== undefined) {
        continue;
      }
      // A run before it may have had to be followed to its end.
      const own = [...store().rows.values()].filter((row) => row.taskId === taskId);
      const since = Math.max(run.scheduled, free, pruned.get(taskId) ?? 0, ...own.map(({ updated }) => updated));
      if (now() > since + LISTED_MS + waitedOutMs) {
        complain(`${name} has been pending for long, has no mapping, and nothing hinders the bridge`);
      }
    }
  }

  function endUpload(call: Call): void {
    if (isSlow(uploads.get(call))) {
      slowUntil = now();
    }
    uploads.delete(call);
  }

  function isSlow(upload: Upload | undefined): boolean {
    return upload !== undefined && now() - upload.begun > LONG_UPLOAD_MS;
  }

  /** Uploads have so many places: whoever waits for one that hangs waits as long as it does. */
  function isUploadSlow(): boolean {
    for (const [call, upload] of uploads) {
      if (!upload.host.isAlive()) {
        endUpload(call);
      }
    }
    return [...uploads.values()].some(isSlow);
  }

  /** What the request of an open mapping has come to, and its run does not say for long. */
  function checkTellings(): void {
    const free = hindrances.freeSince();
    if (isUploadSlow() || free === undefined) {
      return;
    }
    for (const { taskId, runId, state, buildRequestId, retriesReported } of store().allOpen()) {
      const task = queue().state.tasks.get(taskId);
      const last = (task?.runs.length ?? 0) - 1;
      const run = task?.runs[last];
      const request = master().requests.find(({ id }) => id === buildRequestId);
      const isOver = now() >= Date.parse(task?.definition.deadline ?? '');
      if (state !== 'submitted' || last !== runId || run === undefined || request === undefined || isOver) {
        continue;
      }
      const untold = request.isPurged || zombies.has(request) ? undefined : untoldOf(request, run, retriesReported);
      const since = Math.max(untold?.at ?? 0, run.scheduled, request.hiddenUntil, request.settledAt, slowUntil, free);
      if (untold !== undefined && now() > since + SLACK_MS + waitedOutMs) {
        complain(`#${request.id} of ${shortName(taskId)}/${runId} ${untold.what} long ago, and nobody was told`);
      }
    }
  }

  return {
    onEnding(ending) {
      if (ending.by === 'queue' && ending.reason === 'claim-expired' && ending.wasOurs) {
        checkExpiry(ending);
      } else if (ending.by === 'queue' && ending.reason === 'deadline-exceeded') {
        checkDeadline(ending);
      }
    },
    onPruned(rows) {
      for (const { taskId, updated } of rows) {
        pruned.set(taskId, Math.max(updated, pruned.get(taskId) ?? 0));
      }
    },
    onCall(host, call) {
      if (call.method === 'putContent') {
        uploads.set(call, { host, begun: now() });
      }
    },
    onEnd(call) {
      endUpload(call);
    },
    onEffect(host, { method, about }) {
      if (method === 'cancel') {
        asked.set(Number(about.slice(1)), now());
      } else if (method === 'heartbeat') {
        // A sign of life of each process, once a minute.
        checkCancels();
        checkFirstCancels();
        checkPending();
        checkTellings();
      } else if (method === 'leaseDue') {
        // It has heard of the database: the answer to its first sign of life may have been lost, and it waits for another.
        hindrances.onBegun(host);
      }
    },
  };
}

/**
 * What the queue ought to be told of a request by its run, and since when.
 * @param retriesReported as the mapping has it: whoever finds a claim that was not recorded does not know which came after it
 */
function untoldOf(
  request: SimRequest,
  run: Run,
  retriesReported: number,
): { readonly what: string; readonly at: number } | undefined {
  const { completedAt, endedBy, builds } = request;
  if (completedAt !== undefined) {
    // What the bridge cancelled itself is another mapping's business.
    return endedBy === 'bridge' ? undefined : { what: `was ended by ${endedBy}`, at: completedAt };
  }
  if (run.state === 'pending') {
    const build = runningBuild(request);
    return build && { what: 'began to be built', at: build.startedAt };
  }
  const isOurs = run.state === 'running' && run.workerId === WORKER.workerId;
  const retries = builds.filter(({ results }) => results === 'RETRY').slice(retriesReported);
  const retry = retries.find(({ completedAt: at }) => (at ?? 0) > (run.started ?? 0));
  return isOurs && retry ? { what: 'was to be built again', at: retry.completedAt ?? 0 } : undefined;
}
