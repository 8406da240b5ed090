/** Rows that this version of the bridge cannot read: each time counted, but said once. */
import type { Logger } from 'pino';
import { z } from 'zod';
import type { InputCounter, InputSource } from '../ports.ts';

export interface RowReports {
  readonly log?: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
}

/** Rows that were said to be unreadable; beyond that, they are left out without a word. */
const MAX_SAID = 1000;
const named = z.object({ id: z.unknown(), task_id: z.unknown(), build_request_id: z.unknown() }).partial();

/** @returns to be called with every such row, and with what is wrong with it */
export function createUnreadableRows(
  source: InputSource,
  message: string,
  { log, inputs }: RowReports,
): (row: unknown, error: z.ZodError) => void {
  const said = new Set<unknown>();
  return (row, error) => {
    inputs?.rejected(source);
    const { id, task_id: taskId, build_request_id: buildRequestId } = named.safeParse(row).data ?? {};
    if (!said.has(id) && said.size < MAX_SAID) {
      said.add(id);
      log?.warn({ id, taskId, buildRequestId, reason: error.issues[0]?.path.join('.') }, message);
    }
  };
}
