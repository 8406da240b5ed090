/** What the first bridge kept: a row for each run that it had a build request for, or meant to. Times are UTC milliseconds. */

export interface FirstBridgeRow {
  readonly taskId: string;
  readonly runId: number;
  /** Null where it died between noting the task and making the request, or right after. */
  readonly buildRequestId: number | null;
  /** When the task was made; null where it cannot be read. */
  readonly created: number | null;
  /** When its claim was to end, as far as it knew; null where it claimed nothing. */
  readonly takenUntil: number | null;
}

/** A row as it was found: some are nothing that any bridge can follow. */
export type ReadRow =
  | { readonly kind: 'row'; readonly row: FirstBridgeRow }
  /** `shown`: the row's ids in a form that is safe to print on one line. */
  | { readonly kind: 'unusable'; readonly shown: string; readonly why: string };

/**
 * The id by which the first bridge's requests are known in the scheduler database: their buildset's external_idstring.
 * This bridge writes the same there, for every submission of the task.
 */
export function firstBridgeExternalId(taskId: string): string {
  return `taskId:${taskId}`;
}

/** A task's rows: the one to go by, and the others. */
export interface TaskRows {
  readonly best: FirstBridgeRow;
  readonly rest: readonly FirstBridgeRow[];
}

/**
 * Puts together the rows of each task: it had a key that covered one run only, so that two of its listeners could each
 * write one. The highest run that has a build request counts; of two such rows the one that was claimed, as its build has
 * started, and then the older request, since a newer one would be somebody's copy.
 */
export function byTask(rows: readonly FirstBridgeRow[]): readonly TaskRows[] {
  const groups = new Map<string, FirstBridgeRow[]>();
  for (const row of rows) {
    groups.set(row.taskId, [...(groups.get(row.taskId) ?? []), row]);
  }
  return [...groups.values()].flatMap((group) => {
    const [best, ...rest] = group.toSorted(compare);
    return best === undefined ? [] : [{ best, rest }];
  });
}

function compare(a: FirstBridgeRow, b: FirstBridgeRow): number {
  return (
    Number(b.buildRequestId !== null) - Number(a.buildRequestId !== null) ||
    b.runId - a.runId ||
    Number(b.takenUntil !== null) - Number(a.takenUntil !== null) ||
    (a.buildRequestId ?? 0) - (b.buildRequestId ?? 0)
  );
}
