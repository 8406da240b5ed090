/** A pass over one task: what it knows, under whose lease it runs, and how it changes the mapping. */
import type { Logger } from 'pino';
import type { RequestView } from '../../domain/build.ts';
import type { Mapping, MappingChanges, TraceEvent } from '../../domain/mapping.ts';
import type { TaskStatus } from '../../domain/task.ts';
import type { Clock, InputCounter, LegacyCi, MappingStore, Stored, TaskQueue } from '../../ports.ts';
import type { ActionKind } from '../actions.ts';
import type { Knowledge } from '../observe.ts';
import type { UploadContext } from '../upload.ts';
import type { Withdrawals } from './withdrawals.ts';

/** How long things take at most, in milliseconds. */
export interface Timing {
  /** How long a pass keeps a mapping to itself without renewing its lease. */
  readonly leaseMs: number;
  /** How long a submission without an answer may still take effect. */
  readonly submitGraceMs: number;
  /** How long a cancel is given before it is repeated. */
  readonly cancelRetryMs: number;
}

export interface ApplyContext {
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly store: MappingStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly upload: UploadContext;
  readonly timing: Timing;
  /** When a claim has to be renewed during a long upload. */
  readonly reclaimThresholdMs: number;
  readonly withdrawals: Pick<Withdrawals, 'begin'>;
  readonly inputs?: InputCounter | undefined;
  /** Called for each action that was carried out. */
  readonly onAction?: ((kind: ActionKind) => void) | undefined;
}

/** One pass over one task: what is known, and whose lease it runs under. */
export interface Pass {
  readonly taskId: string;
  readonly owner: string;
  readonly knowledge: Knowledge;
  /** Whether uploads are left to a whole pass. */
  readonly isBrief: boolean;
  /** Of the time that is left for uploads, where it is a task's last chance and others' too, at this moment; 0 to 1. */
  readonly uploadShare?: (() => number) | undefined;
  /** What is being carried out, or has failed. */
  doing: ActionKind | undefined;
  /**
   * When its lease is over, by `Clock.uptime()`. What is stored goes by the database's clock: where that is set back
   * meanwhile, it may say so for hours, and another pass has long taken over.
   */
  leaseEnd: number;
  readonly trace: Omit<TraceEvent, 'instance'>[];
  /** Collapse keys whose one place became free. */
  readonly freedKeys: Set<string>;
  /** Errors that are in the log already. */
  readonly told: ReadonlySet<unknown>;
}

/**
 * What comes after an action: the next one, a fresh look at what is known, such a look since the action turned out not
 * to be one to carry out (`undone`), or the end of the pass.
 */
export type Next = 'next' | 'observe' | 'undone' | { readonly end: number };

/** Another pass, here or elsewhere, has moved the mapping: whatever this pass knows is old. */
export class MappingMoved extends Error {
  constructor(taskId: string) {
    super(`the mapping of task ${taskId} was moved by another pass`);
    this.name = 'MappingMoved';
  }
}

/** What a line of the log says of a task, as far as it is known. */
export function idsOf({ taskId, knowledge: { mapping } }: Pick<Pass, 'taskId' | 'knowledge'>): {
  readonly taskId: string;
  readonly runId: number | undefined;
  readonly buildRequestId: number | undefined;
} {
  return { taskId, runId: mapping?.runId, buildRequestId: mapping?.buildRequestId ?? undefined };
}

/** Changes the mapping, under the lease as it is. @throws MappingMoved, StoreError */
export async function update(pass: Pass, { store, clock }: ApplyContext, changes: MappingChanges): Promise<void> {
  accept(pass, await store.update(mappingOf(pass), changes, clock.now()));
}

/**
 * Whoever slept past the end of its lease acts on what is old, and perhaps beside another pass.
 * @returns whether the lease was over; it is taken again, and what was read is forgotten
 * @throws MappingMoved if another pass took over
 */
export async function renewIfOver(pass: Pass, context: ApplyContext): Promise<boolean> {
  const { knowledge } = pass;
  if (knowledge.mapping === null || !isLeaseOver(pass, context)) {
    return false;
  }
  await renew(pass, context);
  knowledge.task = undefined;
  // What could not be read leads to no act, and would take as long again.
  knowledge.request = knowledge.request?.kind === 'unreadable' ? knowledge.request : undefined;
  return true;
}

/** By either clock: the database's may have been set forward, too, and others go by it. */
export function isLeaseOver(pass: Pass, { clock }: Pick<ApplyContext, 'clock'>): boolean {
  return clock.uptime() >= pass.leaseEnd || clock.now() >= mappingOf(pass).leaseUntil;
}

/** Has the lease last for all of its time again, from now on. @throws MappingMoved, StoreError */
export async function renew(pass: Pass, { store, clock, timing }: ApplyContext): Promise<void> {
  const now = clock.now();
  const leaseEnd = clock.uptime() + timing.leaseMs;
  accept(pass, await store.renewLease(mappingOf(pass), now + timing.leaseMs, now));
  pass.leaseEnd = leaseEnd;
}

/**
 * Takes over what was stored, and notes whether a place for an unclaimed request became free.
 * @throws MappingMoved if nothing was stored
 */
export function accept(pass: Pass, stored: Stored): void {
  if (stored.kind !== 'stored') {
    throw new MappingMoved(pass.taskId);
  }
  const before = pass.knowledge.mapping;
  if (before?.hasSlot && !stored.mapping.hasSlot && before.collapseKey !== null) {
    pass.freedKeys.add(before.collapseKey);
  }
  pass.knowledge.mapping = stored.mapping;
}

export function mappingOf(pass: Pass): Mapping {
  if (pass.knowledge.mapping === null) {
    throw new Error('an action needs a mapping and there is none: a bug in decide');
  }
  return pass.knowledge.mapping;
}

export function taskOf(pass: Pass): TaskStatus {
  if (pass.knowledge.task?.kind !== 'present') {
    throw new Error('an action needs the task and it was not read: a bug in decide');
  }
  return pass.knowledge.task.value;
}

export function requestOf(pass: Pass): RequestView {
  if (pass.knowledge.request?.kind !== 'present') {
    throw new Error('an action needs the build request and it was not read: a bug in decide');
  }
  return pass.knowledge.request.value;
}
