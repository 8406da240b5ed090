/** The bridge's settings in the simulation: those of production, as `main.ts` derives them from the defaults. */
import { type BuilderRules, scopesForBuilder } from '../../reflector/admission.ts';
import type { Timing } from '../../reflector/apply/pass.ts';
import type { Policy } from '../../reflector/decide.ts';

export const TASK_QUEUE = 'buildbot/bridge';
export const OTHER_TASK_QUEUE = 'others/native';
export const WORKER = { workerGroup: 'buildbot-bridge', workerId: 'buildbot-bridge' } as const;
/** Small, so that the queue's lists come in several pages. */
export const LIST_PAGE = 3;
/** Somebody else who takes tasks of the same queue. */
export const OTHER_WORKER = { workerGroup: 'others', workerId: 'other' } as const;
export const IGNORED_BUILDER = 'theirs';
export const RESTRICTED_BUILDER = 'signing';
/** What a role stands for. */
export const ROLES: Readonly<Record<string, readonly string[]>> = {
  'assume:signers': ['queue:something-else', ...scopesForBuilder(RESTRICTED_BUILDER).slice(0, 1)],
  'assume:others': scopesForBuilder('another').slice(0, 1),
};

const SECOND = 1000;
const MINUTE = 60 * SECOND;
export const ROUND_MS = MINUTE;
export const LEASE_MS = 90 * SECOND;

export const TIMING: Timing = { leaseMs: LEASE_MS, submitGraceMs: LEASE_MS / 3, cancelRetryMs: 15 * SECOND };

export const POLICY: Policy = {
  taskQueueId: TASK_QUEUE,
  ...WORKER,
  results: { warnings: 'failed', failure: 'failed', exception: 'internal-error', skipped: 'internal-error' },
  reclaimThresholdMs: 10 * MINUTE,
  recheckMs: ROUND_MS * 0.9,
  absentGraceMs: 2 * MINUTE,
  maxSubmissions: 5,
  maxReruns: 5,
  maxUploadAttempts: 10,
};

export const RULES: BuilderRules = {
  isIgnored: (builder) => builder === IGNORED_BUILDER,
  isRestricted: (builder) => builder === RESTRICTED_BUILDER,
};
