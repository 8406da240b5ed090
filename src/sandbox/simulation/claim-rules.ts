/** What must hold when the bridge claims a run: Buildbot has something to show for it. */
import type { Mapping } from '../../domain/mapping.ts';
import type { Call, Host } from './host.ts';
import type { Master } from './master.ts';
import { isOpen, runningBuild, type SimRequest } from './master-state.ts';
import { shortName } from './names.ts';
import type { QueueServer } from './queue-server.ts';
import { POLICY, WORKER } from './settings.ts';
import type { StoreState } from './store-state.ts';

export interface ClaimRules {
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  /** A call of a process has its effect. */
  onEffect(host: Host, call: Call): void;
}

export interface ClaimRulesContext {
  readonly complain: (what: string) => void;
  readonly now: () => number;
  readonly master: () => Master;
  readonly queue: () => QueueServer;
  readonly store: () => StoreState;
}

/**
 * Two passes of one process may look at one request, where it slept and one of them has lost its lease, and so may a
 * withdrawal beside them; the one that claims may be waiting for another answer meanwhile.
 */
const TWO_PASSES_MS = 10_000;

/** What a claim was decided from: a build can be lost, and its request wait again, while the claim is on its way. */
interface Grounds {
  readonly row: Mapping | undefined;
  /** Whether its build was running when the process read the request last. */
  readonly wasBuilding: boolean;
}

export function createClaimRules({ complain, now, master, queue, store }: ClaimRulesContext): ClaimRules {
  /** By process: when it read last that a request was being built, by request, until it has long read otherwise. */
  const building = new WeakMap<Host, Map<number, number>>();
  const grounds = new WeakMap<Call, Grounds>();
  /** By reading that is under way: what was being built when it began. Its answer may say so although it is over. */
  const begun = new WeakMap<Call, ReadonlySet<SimRequest>>();
  const isBuilding = (request: SimRequest) => isOpen(request) && runningBuild(request) !== undefined;

  function readBy({ method, about, taskId }: Call): readonly SimRequest[] {
    switch (method) {
      case 'readMany':
        // They are numbered from 1 on.
        return about.split(' ').flatMap((id) => master().requests[Number(id) - 1] ?? []);
      case 'findByExternalId':
        return master().requests.filter((request) => request.taskId === taskId);
      default:
        return [];
    }
  }

  function onRead(host: Host, call: Call): void {
    const seen = building.get(host) ?? new Map<number, number>();
    building.set(host, seen);
    for (const request of readBy(call)) {
      if (isBuilding(request) || begun.get(call)?.has(request)) {
        seen.set(request.id, now());
      } else if (now() - (seen.get(request.id) ?? 0) > TWO_PASSES_MS) {
        seen.delete(request.id);
      }
    }
  }

  function check(taskId: string, runId: number, { row, wasBuilding }: Grounds): void {
    if (row === undefined || row.state === 'refusing' || wasBuilding) {
      return;
    }
    const own = master().requests.filter((request) => request.taskId === taskId);
    // By a clock that is a little behind, another pass may have moved the mapping on meanwhile.
    const meant = row.state === 'submitted' ? own.filter(({ id }) => id === row.buildRequestId) : own;
    if (!meant.some((request) => isGround(request, row.submissions))) {
      const told = meant.map((request) => `#${request.id} ${stateOf(request)}`).join(', ');
      complain(`${shortName(taskId)}/${runId} was claimed for nothing: ${told || 'no request was made'}`);
    }
  }

  function onClaim(call: Call): void {
    const { taskId, about } = call;
    const found = grounds.get(call);
    const runId = Number(/\/(\d+)$/.exec(about)?.[1]);
    const run = queue().state.tasks.get(taskId ?? '')?.runs[runId];
    // Refused, or claimed by the bridge before, it says nothing new.
    const isNew = run?.started === now() && run.workerId === WORKER.workerId;
    if (found !== undefined && taskId !== undefined && isNew) {
      check(taskId, runId, found);
    }
  }

  return {
    onCall(host, call) {
      if (call.method === 'claim' && call.taskId !== undefined) {
        const row = store().open(call.taskId);
        const wasBuilding = building.get(host)?.has(row?.buildRequestId ?? 0) ?? false;
        grounds.set(call, { row, wasBuilding });
      }
      const requests = readBy(call).filter(isBuilding);
      if (requests.length > 0) {
        begun.set(call, new Set(requests));
      }
    },
    onEffect(host, call) {
      if (call.method === 'claim') {
        onClaim(call);
      } else {
        onRead(host, call);
      }
    },
  };
}

/** Whether a run may be claimed for this: it is being built, there is a result, or there will never be one. */
function isGround(request: SimRequest, submissions: number): boolean {
  if (request.isPurged || runningBuild(request)) {
    return true;
  }
  const isResult = request.endedBy === 'build' && request.results !== 'RETRY';
  const isLost = request.endedBy !== undefined && !isResult && request.endedBy !== 'person';
  return isResult || (isLost && submissions >= POLICY.maxSubmissions);
}

function stateOf({ completedAt, endedBy }: SimRequest): string {
  return completedAt === undefined ? 'waits' : `was ended by ${endedBy ?? 'nobody'}`;
}
