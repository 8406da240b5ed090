/** What has to be done in time where nothing hinders it, also between faults. */
import type { Hindrances } from './hindrances.ts';
import type { Call, Host } from './host.ts';
import type { Master } from './master.ts';
import { isOpen, type SimRequest } from './master-state.ts';
import { shortName } from './names.ts';
import type { Plan } from './plan.ts';
import type { Ending, QueueServer } from './queue-server.ts';
import { POLICY, ROUND_MS } from './settings.ts';
import type { StoreState } from './store-state.ts';

export interface PromptRules {
  onEnding(ending: Ending): void;
  /** A call of a process has its effect. */
  onEffect(host: Host, call: Call): void;
}

export interface PromptRulesContext {
  readonly plan: Pick<Plan, 'climate' | 'databaseOffsets'>;
  readonly complain: (what: string) => void;
  readonly now: () => number;
  readonly hindrances: Hindrances;
  readonly master: () => Master;
  readonly queue: () => QueueServer;
  readonly store: () => StoreState;
  /** Whose they are, nobody has to know. */
  readonly zombies: ReadonlyMap<SimRequest, unknown>;
}

/** Cancels that came to nothing are repeated with waits of up to this. */
const MAX_CANCEL_WAIT_MS = 600_000;
/** Until what is due is seen to by a round, and a restart in between. */
const SLACK_MS = 3 * ROUND_MS;

export function createPromptRules(context: PromptRulesContext): PromptRules {
  const { plan, complain, now, hindrances, master, queue, store, zombies } = context;
  /** By request: when a cancel reached Buildbot last, whatever came of it. */
  const asked = new Map<number, number>();
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

  return {
    onEnding(ending) {
      if (ending.by === 'queue' && ending.reason === 'claim-expired' && ending.wasOurs) {
        checkExpiry(ending);
      }
    },
    onEffect(host, { method, about }) {
      if (method === 'cancel') {
        asked.set(Number(about.slice(1)), now());
      } else if (method === 'heartbeat') {
        // A sign of life of each process, once a minute.
        hindrances.onBegun(host);
        checkCancels();
        checkFirstCancels();
      }
    },
  };
}
