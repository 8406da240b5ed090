/** What only messages tell of a build, kept until its run is resolved. */

/** What tells kept builds apart, and all that a view of a request needs of them. */
export interface KeptNote {
  readonly buildRequestId: number;
  /** Of the build, per master and builder. */
  readonly number: number;
  /** `<host>:<absolute basedir>` */
  readonly master: string;
  /** When the build started by its own account; the database may have the next second. UTC milliseconds. */
  readonly startedAt: number;
  /** Whether the log was uploaded: nothing more comes. */
  readonly isFinal: boolean;
  readonly worker: string | null;
}

/** One that was found where they are kept. */
export interface FoundNote extends KeptNote {
  readonly id: number;
}

export interface KeptBuild extends KeptNote {
  readonly properties: Readonly<Record<string, readonly [unknown, string]>>;
  readonly logUrl: string | null;
}

/** A build says when it started, and so does its row, though not always in the same second. */
export const SAME_START_MS = 60_000;

/** What was kept of a build, by the database's row of it; the number alone counts per master and builder. */
export function matchOf<Note extends KeptNote>(
  build: { readonly brid: number; readonly number: number; readonly startTime: number },
  kept: readonly Note[],
): Note | undefined {
  const away = ({ startedAt }: KeptNote) => Math.abs(startedAt - build.startTime * 1000);
  return kept
    .filter((one) => one.buildRequestId === build.brid && one.number === build.number && away(one) < SAME_START_MS)
    .toSorted((a, b) => Number(b.isFinal) - Number(a.isFinal) || away(a) - away(b))[0];
}
