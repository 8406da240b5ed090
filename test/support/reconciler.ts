/** A reconciler with the settings of the tests around ports of theirs. */
import pino, { type Logger } from 'pino';
import type { Clock, InputCounter, LegacyCi, MappingStore, TaskQueue } from '../../src/ports.ts';
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
}

export function aReconciler(parts: ReconcilerParts): Reconciler {
  const { queue, ci, log = pino({ level: 'silent' }) } = parts;
  return createReconciler({
    ...parts,
    ...{ log, policy: POLICY, mode: 'normal', instance: 'test' },
    rules: { isIgnored: () => false, isRestricted: () => false },
    timing: { leaseMs: 90_000, submitGraceMs: 30_000, cancelRetryMs: 15_000 },
    reclaimThresholdMs: POLICY.reclaimThresholdMs,
    upload: { queue, ci, log, tempDir: '/nowhere', maxLogSize: 1 },
    poke: () => undefined,
    random: () => 0.5,
  });
}
