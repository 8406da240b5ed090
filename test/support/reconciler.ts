/** A reconciler with the settings of the tests around ports of theirs. */
import pino, { type Logger } from 'pino';
import type { Clock, InputCounter, LegacyCi, MappingStore, TaskQueue } from '../../src/ports.ts';
import type { Mode } from '../../src/reflector/actions.ts';
import { createWithdrawals, type Withdrawals } from '../../src/reflector/apply/withdrawals.ts';
import type { Policy } from '../../src/reflector/decide.ts';
import { createReconciler, type Reconciler } from '../../src/reflector/reconcile.ts';
import { POLICY } from './builders.ts';

export interface ReconcilerParts {
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly store: MappingStore;
  readonly clock: Clock;
  readonly inputs?: InputCounter;
  /** Silent unless given. */
  readonly log?: Logger;
  /** Of its own unless given. */
  readonly withdrawals?: Withdrawals;
  /** `POLICY` and `normal` unless given. */
  readonly policy?: Policy;
  readonly mode?: Mode;
  /** Nothing is spooled unless given. */
  readonly logs?: { readonly tempDir: string; readonly maxLogSize: number };
  /** Nobody unless given. */
  readonly handOver?: (taskId: string, isLast: boolean) => void;
}

export function aReconciler(parts: ReconcilerParts): Reconciler {
  const { queue, ci, store, clock, inputs, log = pino({ level: 'silent' }) } = parts;
  const { withdrawals = createWithdrawals({ ci, store, clock, log }) } = parts;
  const { policy = POLICY, mode = 'normal' } = parts;
  const { logs = { tempDir: '/nowhere', maxLogSize: 1 }, handOver = () => undefined } = parts;
  return createReconciler({
    ...{ queue, ci, store, clock, inputs, withdrawals },
    ...{ log, policy, mode, instance: 'test' },
    rules: { isIgnored: () => false, isRestricted: () => false },
    timing: { leaseMs: 90_000, submitGraceMs: 30_000, cancelRetryMs: 15_000 },
    reclaimThresholdMs: policy.reclaimThresholdMs,
    upload: { queue, ci, log, ...logs },
    poke: () => undefined,
    handOver,
    random: () => 0.5,
  });
}
