/** What only messages tell of a build, kept until its run is resolved. */

export interface KeptBuild {
  readonly buildRequestId: number;
  /** Of the build, per master and builder. */
  readonly number: number;
  /** `<host>:<absolute basedir>` */
  readonly master: string;
  /** When the build started by its own account; the database may have the next second. UTC milliseconds. */
  readonly startedAt: number;
  /** Whether the log was uploaded: nothing more comes. */
  readonly isFinal: boolean;
  readonly properties: Readonly<Record<string, readonly [unknown, string]>>;
  readonly logUrl: string | null;
  readonly worker: string | null;
}

/** A build says when it started, and so does its row, though not always in the same second. */
export const SAME_START_MS = 60_000;

/** What was kept of a build, by the database's row of it; the number alone counts per master and builder. */
export function matchOf(
  build: { readonly brid: number; readonly number: number; readonly startTime: number },
  kept: readonly KeptBuild[],
): KeptBuild | undefined {
  const away = ({ startedAt }: KeptBuild) => Math.abs(startedAt - build.startTime * 1000);
  return kept
    .filter((one) => one.buildRequestId === build.brid && one.number === build.number && away(one) < SAME_START_MS)
    .toSorted((a, b) => Number(b.isFinal) - Number(a.isFinal) || away(a) - away(b))[0];
}
