/**
 * While the mapping database is away nobody knows what is to be done about a task, but the queue knows which runs this
 * bridge has claimed: their claims are renewed, so that what their builds come to can be reported afterwards.
 */
import pLimit from 'p-limit';
import type { Logger } from 'pino';
import { isRunningOn, lastRun } from '../domain/task.ts';
import { QueueError } from '../errors.ts';
import type { Clock, TaskQueue } from '../ports.ts';
import type { ActionKind } from './actions.ts';
import { reclaimDue } from './claims.ts';
import { tellUnread, unreadOf } from './unread.ts';

export interface KeepClaimsContext {
  readonly queue: TaskQueue;
  readonly clock: Clock;
  readonly log: Logger;
  /** Claims with no more than this left are renewed, milliseconds. */
  readonly reclaimThresholdMs: number;
  /** Calls at once. */
  readonly concurrency: number;
  /** Called for each claim that was renewed. */
  readonly onAction?: ((kind: ActionKind) => void) | undefined;
}

/**
 * Renews the claims of this bridge that are near their end, without leases: several instances may renew one twice, which
 * does no harm. A claim that cannot be renewed does not keep the others from it.
 * @throws QueueError if the queue does not say what is claimed
 */
export async function keepClaims(context: KeepClaimsContext, signal: AbortSignal): Promise<void> {
  const { queue, log } = context;
  const limit = pLimit(context.concurrency);
  const seen = new Set<string>();
  let renewed = 0;

  async function renew({ taskId, runId }: Claim): Promise<void> {
    if (signal.aborted) {
      return;
    }
    try {
      await queue.reclaim(taskId, runId);
      renewed += 1;
      context.onAction?.('reclaimRun');
    } catch (error) {
      // A run that is over by now needs no claim.
      const level = error instanceof QueueError && error.code === 'queue-conflict' ? 'debug' : 'warn';
      log[level]({ taskId, runId, err: error }, 'claim not renewed while the mapping database is away');
    }
  }

  for await (const page of queue.listClaimed()) {
    if (signal.aborted) {
      break;
    }
    // A task is listed once for each of its claims.
    const taskIds = [...new Set(page)].filter((taskId) => !seen.has(taskId));
    for (const taskId of taskIds) {
      seen.add(taskId);
    }
    const due = taskIds.length > 0 ? await nearTheirEnd(taskIds, context) : [];
    await Promise.all(due.map((claim) => limit(() => renew(claim))));
  }
  if (renewed > 0) {
    log.warn({ renewed }, 'the mapping database is away; claims were renewed without it');
  }
}

/** What the mapping knows of a claim cannot be read. */
const UNKNOWN = { takenUntil: null, reclaimAt: null };

interface Claim {
  readonly taskId: string;
  readonly runId: number;
}

async function nearTheirEnd(
  taskIds: readonly string[],
  { queue, clock, log, reclaimThresholdMs }: KeepClaimsContext,
): Promise<readonly Claim[]> {
  const statuses = await queue.statuses(taskIds);
  const unread = taskIds.flatMap((taskId) => unreadOf(statuses.get(taskId), { taskId }));
  tellUnread(log, unread, 'claimed tasks could not be read while the mapping database is away');
  const now = clock.now();
  return taskIds.flatMap((taskId) => {
    const status = statuses.get(taskId);
    if (status?.kind !== 'present' || now >= status.value.deadline) {
      return [];
    }
    const run = lastRun(status.value);
    if (run?.takenUntil === undefined || !isRunningOn(run, queue)) {
      return [];
    }
    return now >= reclaimDue(UNKNOWN, run.takenUntil, reclaimThresholdMs, now) ? [{ taskId, runId: run.runId }] : [];
  });
}
