/** What one call for many tasks could not read: said once for each reason, whoever needs it afterwards. */
import type { Logger } from 'pino';
import { type BridgeError, describeError, levelOf } from '../errors.ts';
import type { Seen } from '../ports.ts';

export interface Unread {
  readonly taskId: string;
  readonly buildRequestId?: number | undefined;
  readonly error: BridgeError;
}

/** As many tasks as a line names. */
const MAX_NAMED = 5;

/** @returns nothing where it was read */
export function unreadOf(
  seen: Seen<unknown> | { readonly kind: 'none' } | undefined,
  whose: Omit<Unread, 'error'>,
): readonly Unread[] {
  return seen?.kind === 'unreadable' ? [{ ...whose, error: seen.error }] : [];
}

/** Logs a line for each reason, with the tasks that it is about: an answer about many that is bad is one bad answer. */
export function tellUnread(log: Logger, unread: readonly Unread[], message: string): void {
  const byReason = new Map<string, Unread[]>();
  for (const one of unread) {
    const reason = describeError(one.error);
    byReason.set(reason, [...(byReason.get(reason) ?? []), one]);
  }
  for (const group of byReason.values()) {
    const [first] = group;
    const level = levelOf(group.find(({ error }) => !error.isTransient)?.error ?? first?.error);
    const whose =
      group.length === 1
        ? { taskId: first?.taskId, buildRequestId: first?.buildRequestId }
        : { taskIds: group.slice(0, MAX_NAMED).map(({ taskId }) => taskId) };
    log[level]({ count: group.length, ...whose, err: first?.error }, message);
  }
}
