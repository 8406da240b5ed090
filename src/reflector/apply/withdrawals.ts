/**
 * Build requests too many. One is made where a pass was overtaken between its call to the legacy CI and its record of
 * it; nobody but this process knows of it. It is withdrawn beside the passes, none of which waits for that.
 */
import type { RequestView } from '../../domain/build.ts';
import { isCollapsed } from '../../domain/build.ts';
import type { Mapping } from '../../domain/mapping.ts';
import type { LegacyCi } from '../../ports.ts';
import { cancelUnlessShared } from './cancel.ts';
import type { ApplyContext } from './pass.ts';

export interface Withdrawals {
  /**
   * It could not be recorded that a request is a mapping's: perhaps another pass took over meanwhile. If that made a
   * request of its own, or the task is no longer wanted, this one is one too many, and is cancelled until it ends.
   * @param mapping as it was when that was to be recorded
   */
  begin(request: RequestView, mapping: Mapping): void;
  /** Resolves when none is under way. */
  settled(): Promise<void>;
  /** Each under way is tried once more; a person is told of what is left. */
  stop(): Promise<void>;
}

/** With waits of 4, 16, 64, 256 and then 300 seconds. */
const TRIES = 8;
const MAX_WAIT_MS = 300_000;

export function createWithdrawals(context: Pick<ApplyContext, 'ci' | 'store' | 'clock' | 'log'>): Withdrawals {
  const { clock, log } = context;
  const stopping = new AbortController();
  const underWay = new Set<Promise<void>>();

  async function withdraw(request: RequestView, mapping: Mapping): Promise<void> {
    const fields = { taskId: mapping.taskId, runId: mapping.runId, buildRequestId: request.buildRequestId };
    let last: Withdrawal | Failed | undefined;
    let isTold = false;
    for (let attempt = 1; attempt <= TRIES; attempt += 1) {
      const isLast = stopping.signal.aborted;
      last = await attemptTo(request, mapping);
      if (last.kind === 'settled') {
        return;
      }
      if (last.kind === 'asked' && !isTold) {
        isTold = true;
        log.warn({ ...fields, kept: last.kept }, ASKED);
      }
      if (isLast || last.kind === 'impossible') {
        break;
      }
      if ('error' in last && attempt < TRIES) {
        log.warn({ ...fields, err: last.error }, 'a build request too many could not be withdrawn yet');
      }
      await clock.sleep(Math.min(1000 * 4 ** attempt, MAX_WAIT_MS), stopping.signal);
    }
    tellOfWhatIsLeft(last, fields);
  }

  function tellOfWhatIsLeft(last: Withdrawal | Failed | undefined, fields: Readonly<Record<string, unknown>>): void {
    switch (last?.kind) {
      case 'shared':
        // Whoever cancelled it by hand would stop the others' build.
        log.warn(fields, 'a build request too many is left alone: its build serves others, too');
        break;
      case 'undecided':
        log.warn(fields, UNKNOWN);
        break;
      case 'unknown':
        log.error({ ...fields, err: last.error }, UNKNOWN);
        break;
      case 'failed':
        log.error({ ...fields, err: last.error }, BY_HAND);
        break;
      case 'impossible':
        log.error({ ...fields, because: last.why }, BY_HAND);
        break;
      case 'asked':
      case 'settled':
      case undefined:
        log.error(fields, BY_HAND);
        break;
      default:
        last satisfies never;
    }
  }

  async function attemptTo(request: RequestView, mapping: Mapping): Promise<Withdrawal | Failed> {
    try {
      return await tryOnce(request, mapping, context);
    } catch (error) {
      return { kind: 'unknown', error };
    }
  }

  async function settled(): Promise<void> {
    while (underWay.size > 0) {
      await Promise.all(underWay);
    }
  }

  return {
    begin(request, mapping) {
      const one = withdraw(request, mapping).finally(() => underWay.delete(one));
      underWay.add(one);
    },
    settled,
    async stop() {
      stopping.abort();
      await settled();
    },
  };
}

const ASKED = 'build request withdrawn: the task has another one or is no longer wanted';
const BY_HAND = 'a build request too many could not be withdrawn: cancel it by hand';
/** Its task may want it: whoever cancelled it by hand would cancel that. */
const UNKNOWN = 'it is not known whether a build request is one too many: look at its task';

/** How a try to withdraw a request ended. */
type Withdrawal =
  /** It is over, or is the mapping's after all. */
  | { readonly kind: 'settled' }
  /**
   * The mapping has yet to look for a request, and would find this one; or another one is just being made for it; or that
   * this is its request was not answered, and may yet be recorded.
   */
  | { readonly kind: 'undecided' }
  /** Its build serves others, too. */
  | { readonly kind: 'shared' }
  | { readonly kind: 'asked'; readonly kept: number | null | undefined }
  | { readonly kind: 'impossible'; readonly why: string };
/** That it is one too many is known, and it could not be cancelled; or not even that could be found out. */
type Failed = { readonly kind: 'failed' | 'unknown'; readonly error: unknown };

async function tryOnce(
  request: RequestView,
  mapping: Mapping,
  { store, ci }: Pick<ApplyContext, 'store' | 'ci'>,
): Promise<Withdrawal | Failed> {
  const { buildRequestId } = request;
  const now = await read(buildRequestId, ci);
  if (now === undefined || now.state === 'complete') {
    return { kind: 'settled' };
  }
  const open = await store.openMapping(mapping.taskId);
  if (open?.id === mapping.id && open.version === mapping.version) {
    return { kind: 'undecided' };
  }
  if (open?.externalId === mapping.externalId) {
    const place = await placeOf(request, open, ci);
    if (place !== 'too-many') {
      return { kind: place };
    }
  }
  try {
    const answer = await cancelUnlessShared(now, 'another build request of the same task exists', { ci, store });
    return answer.kind === 'asked' ? { kind: 'asked', kept: open?.buildRequestId } : answer;
  } catch (error) {
    return { kind: 'failed', error };
  }
}

/** What this request, made under the open mapping's external id, is to it. */
async function placeOf(
  request: RequestView,
  open: Mapping,
  ci: LegacyCi,
): Promise<'settled' | 'undecided' | 'too-many'> {
  if (open.buildRequestId === request.buildRequestId) {
    return 'settled';
  }
  if (open.buildRequestId !== null) {
    const kept = await read(open.buildRequestId, ci);
    // Then ours took its place, and is found when another one would be made.
    return kept !== undefined && isCollapsed(kept) ? 'settled' : 'too-many';
  }
  // It has yet to look for a request under this external id, and finds one: ours, or one that was made meanwhile. Or it
  // has looked, found none, and makes another just now: which of these shows when it has one.
  const found = await ci.findByExternalId(open);
  if (found.kind === 'unreadable') {
    throw found.error;
  }
  return found.kind === 'present' && found.value.buildRequestId === request.buildRequestId ? 'undecided' : 'too-many';
}

async function read(buildRequestId: number, ci: LegacyCi): Promise<RequestView | undefined> {
  const seen = (await ci.readMany([buildRequestId])).get(buildRequestId);
  if (seen?.kind === 'unreadable') {
    throw seen.error;
  }
  return seen?.kind === 'present' ? seen.value : undefined;
}
