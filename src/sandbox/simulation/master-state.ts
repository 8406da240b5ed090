/** What really happened in the simulated Buildbot: requests and builds, and who ended them. */
import type { Build, RequestView, ResultName } from '../../domain/build.ts';

/** How the legacy CI is reached, and so what it does: see the two adapters' facts. */
export type Kind = 'data-api' | 'scheduler-db';

export interface SimBuild {
  readonly id: number;
  readonly number: number;
  readonly startedAt: number;
  /** Everybody whom this build serves. */
  readonly group: readonly SimRequest[];
  completedAt?: number;
  /** Absent while it runs, and for codes that nobody knows. */
  results?: ResultName;
  stateText: string;
}

export interface SimRequest {
  readonly id: number;
  readonly builder: string;
  /** Branch and revision. */
  readonly stamp: string;
  /** Null for requests that are none of the bridge's. */
  readonly externalId: string | null;
  readonly taskId: string | null;
  /** The run for which it was made. */
  readonly runId: number;
  readonly priority: number;
  readonly submittedAt: number;
  readonly builds: SimBuild[];
  completedAt?: number;
  results?: ResultName;
  /** What made it complete. */
  endedBy?: 'build' | 'collapse' | 'person' | 'bridge' | 'shutdown';
  /** When what its build left behind is there to be read. */
  settledAt: number;
  /** Gone from the database. */
  isPurged: boolean;
  /** Until then nobody finds it, though it is there. */
  hiddenUntil: number;
  /** Cancels that the bridge asked for. */
  cancels: number;
  /** Whether the bridge may still stop it. */
  isUnstoppable: boolean;
}

export function isOpen(request: SimRequest): boolean {
  return request.completedAt === undefined && !request.isPurged;
}

export function runningBuild(request: SimRequest): SimBuild | undefined {
  const last = request.builds.at(-1);
  return last !== undefined && last.completedAt === undefined ? last : undefined;
}

/** What a request itself says, at the moment in which it is read. Its builds are read after it, and may be newer. */
export interface Head extends Pick<SimRequest, 'id' | 'completedAt' | 'results' | 'endedBy'> {
  /** Whether a master has it, to build it. */
  readonly isClaimed: boolean;
}

export function headOf(request: SimRequest): Head {
  const { id, completedAt, results, endedBy } = request;
  return {
    id,
    isClaimed: runningBuild(request) !== undefined,
    ...(completedAt === undefined ? {} : { completedAt }),
    ...(results === undefined ? {} : { results }),
    ...(endedBy === undefined ? {} : { endedBy }),
  };
}

/**
 * As an adapter would read it.
 * @param head of the same request, read a little earlier
 */
export function viewOf(request: SimRequest, head: Head, kind: Kind, now: number): RequestView {
  const base = { buildRequestId: request.id, builder: request.builder };
  const builds = request.builds.map(buildView);
  const running = runningBuild(request);
  const { results } = head;
  if (head.completedAt !== undefined) {
    return {
      ...base,
      state: 'complete',
      builds,
      ...(results === undefined ? {} : { results }),
      ...(results === 'CANCELLED' ? { cancelledBy: head.endedBy === 'shutdown' ? 'master-shutdown' : 'person' } : {}),
      ...(request.settledAt > now ? { isSettling: true } : {}),
    };
  }
  if (kind === 'scheduler-db') {
    return { ...base, ...openInRows(request, head, builds) };
  }
  return { ...base, state: running ? 'building' : 'pending', builds, ...sharedWith(request) };
}

/** Rows do not say how a build ended: a claim says whether the last one goes on, and the ones before it were retried. */
function openInRows(
  request: SimRequest,
  { isClaimed }: Head,
  builds: readonly Build[],
): Pick<RequestView, 'state' | 'builds' | 'sharedWith'> {
  const last = builds.at(-1);
  if (isClaimed && last !== undefined) {
    const { completedAt: _ended, results: _results, ...running } = last;
    const open = { ...running, isComplete: false, stateText: 'building' };
    return { state: 'building', builds: [...builds.slice(0, -1), open], ...sharedWith(request) };
  }
  const over = builds.filter(({ isComplete }) => isComplete);
  return { state: 'pending', builds: over.map((build): Build => ({ ...build, results: 'RETRY' })) };
}

/** Of whom the running build is, too. */
function sharedWith(request: SimRequest): Pick<RequestView, 'sharedWith'> {
  const others = (runningBuild(request)?.group ?? []).filter((other) => other !== request).map(({ id }) => id);
  return others.length > 0 ? { sharedWith: others } : {};
}

function buildView(build: SimBuild): Build {
  const { id, number, startedAt, stateText, completedAt, results } = build;
  return {
    buildId: id,
    number,
    startedAt,
    stateText,
    isComplete: completedAt !== undefined,
    url: `http://buildbot.example.com/builds/${id}`,
    ...(results === undefined ? {} : { results }),
    ...(completedAt === undefined ? {} : { completedAt }),
  };
}
