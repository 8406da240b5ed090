/** Pages of long lists. Tokens are as good, and as bad, as the real queue's. */
import { z } from 'zod';
import type { Call } from './call.ts';
import { ApiError } from './errors.ts';

const MAX_PAGE = 1000;

/** What a list answers beside its items. */
export interface NextPage {
  readonly continuationToken?: string;
}

function sizeOf(call: Call): number {
  return Math.min(Number(call.query.limit ?? MAX_PAGE), MAX_PAGE);
}

/**
 * One page of a list by offset: what is added or removed between two calls may be seen twice or not at all. A token
 * that is none begins anew.
 * @throws ApiError `InputError`
 */
export function page<T>(call: Call, items: readonly T[]): { items: readonly T[]; next: NextPage } {
  const { continuationToken = '' } = call.query;
  if (!/^[A-Za-z0-9]*$/.test(continuationToken)) {
    throw new ApiError('InputError', 'Invalid continuation token');
  }
  const text = Buffer.from(continuationToken, 'base64url').toString();
  const offset = /^\d+$/.test(text) ? Number(text) : 0;
  const end = offset + sizeOf(call);
  const isLast = end >= items.length || end === 0;
  return {
    items: items.slice(offset, end),
    next: isLast ? {} : { continuationToken: Buffer.from(String(end)).toString('base64url') },
  };
}

const positionSchema = z.tuple([z.iso.datetime(), z.string()]);

/** The last entry of the page before; undefined for a token that is none. */
function positionOf(token: string | undefined): { readonly at: number; readonly taskId: string } | undefined {
  try {
    const [time, taskId] = positionSchema.parse(JSON.parse(Buffer.from(token ?? '', 'base64').toString()));
    return { at: Date.parse(time), taskId };
  } catch {
    return undefined;
  }
}

/**
 * One page of a list in the order of time. Seen on a real 106: a token holds whole milliseconds and one task, so that
 * others of the same millisecond come twice, and a token that is none begins anew.
 * @param timeOf UTC milliseconds
 */
export function pageByTime<T extends { readonly taskId: string }>(
  call: Call,
  entries: readonly T[],
  timeOf: (entry: T) => number,
): { items: readonly T[]; next: NextPage } {
  const after = positionOf(call.query.continuationToken);
  const rest = after ? entries.filter((entry) => timeOf(entry) >= after.at && entry.taskId !== after.taskId) : entries;
  const items = rest.slice(0, sizeOf(call));
  const last = items.at(-1);
  if (rest.length === items.length) {
    return { items, next: {} };
  }
  if (!last) {
    // Seen on a real 106: a page of nothing has no last entry to go on from.
    throw new ApiError('InternalServerError', 'Internal Server Error: a page of no entries');
  }
  const token = JSON.stringify([new Date(timeOf(last)).toJSON(), last.taskId]);
  return { items, next: { continuationToken: Buffer.from(token).toString('base64') } };
}
