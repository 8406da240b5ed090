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

/** As an adapter would read it. */
export function viewOf(request: SimRequest, now: number): RequestView {
  const running = runningBuild(request);
  const state = request.completedAt !== undefined ? 'complete' : running ? 'building' : 'pending';
  const others = running?.group.filter((other) => other !== request).map(({ id }) => id) ?? [];
  const { results } = request;
  return {
    buildRequestId: request.id,
    builder: request.builder,
    state,
    builds: request.builds.map(buildView),
    ...(state === 'complete' && results !== undefined ? { results } : {}),
    ...(state === 'complete' && results === 'CANCELLED'
      ? { cancelledBy: request.endedBy === 'shutdown' ? 'master-shutdown' : 'person' }
      : {}),
    ...(state === 'complete' && request.settledAt > now ? { isSettling: true } : {}),
    ...(others.length > 0 ? { sharedWith: others } : {}),
  };
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
