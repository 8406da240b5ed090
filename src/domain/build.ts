/** Buildbot's side: build requests and builds, in Buildbot's own words. Times are UTC milliseconds. */

/** Buildbot's result codes. */
export const RESULT_NAMES = ['SUCCESS', 'WARNINGS', 'FAILURE', 'SKIPPED', 'EXCEPTION', 'RETRY', 'CANCELLED'] as const;
export type ResultName = (typeof RESULT_NAMES)[number];

/** One attempt at a build request. */
export interface Build {
  /** Unique in the whole installation. */
  readonly buildId: number;
  /** Counts per builder; what people see. */
  readonly number: number;
  /** Absent while the build runs, and where Buildbot gives a code this bridge does not know. */
  readonly results?: ResultName;
  readonly isComplete: boolean;
  /** What Buildbot says in words, such as `build successful` or `cancelled (Master Shutdown)`. */
  readonly stateText: string;
  readonly startedAt: number;
  readonly completedAt?: number;
  readonly worker?: string;
  /** The build's page, for people. */
  readonly url?: string;
}

export type RequestState = 'pending' | 'building' | 'complete';

/** What Buildbot says of a build request. */
export interface RequestView {
  readonly buildRequestId: number;
  readonly builder: string;
  /** `building` means that a build of it is running now; between a RETRY and the next build it is `pending` again. */
  readonly state: RequestState;
  /** In the order in which they started. */
  readonly builds: readonly Build[];
  /** Only when complete, and absent where Buildbot gives a code this bridge does not know. */
  readonly results?: ResultName;
  /**
   * Why a complete request with results CANCELLED was cancelled: by somebody, or because its master was stopped or
   * restarted, which nobody meant as a cancel.
   */
  readonly cancelledBy?: 'person' | 'master-shutdown';
  /** Complete, but what its build leaves behind (properties, log), or how it ended, is still on its way; never for long. */
  readonly isSettling?: boolean;
  /** Other build requests that the running build serves too, whoever made them: stopping it would end them all. */
  readonly sharedWith?: readonly number[];
}

/** The build that counts: the last one. */
export function lastBuild(request: RequestView): Build | undefined {
  return request.builds.at(-1);
}

/** How many builds of the request ended in RETRY. */
export function retryCount(request: RequestView): number {
  return request.builds.filter((build) => build.results === 'RETRY').length;
}

/** Complete without a result of its own, because a newer request took its place (or would have built the same). */
export function isCollapsed(request: RequestView): boolean {
  const build = lastBuild(request);
  return request.results === 'SKIPPED' && (build === undefined || build.results === 'RETRY');
}
