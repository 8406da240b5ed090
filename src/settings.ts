/** What the core goes by, from what an operator has configured; the bounds that nobody configures stand here. */
import type { RE2JS } from 're2js';
import type { Config } from './config.ts';
import type { BuilderRules } from './reflector/admission.ts';
import type { Timing } from './reflector/apply/pass.ts';
import type { Policy } from './reflector/decide.ts';

const MAX_SUBMISSIONS = 5;
const MAX_RERUNS = 5;
/** With waits of up to a minute: a quarter of an hour. */
const MAX_UPLOAD_ATTEMPTS = 20;

/** The operator's rules; a pattern is matched from the beginning of the name, as the first bridge did. */
export function rulesOf(config: Pick<Config, 'builders'>): BuilderRules {
  const matches = (patterns: readonly RE2JS[]) => (builder: string) =>
    patterns.some((pattern) => pattern.matcher(builder).lookingAt());
  return { isIgnored: matches(config.builders.ignored), isRestricted: matches(config.builders.restricted) };
}

/** All waits follow from the lease: how long an instance may be silent before another one takes over its tasks. */
export function timingOf(config: Config): Timing {
  const leaseMs = config.bridge.lease;
  return { leaseMs, submitGraceMs: leaseMs / 3, cancelRetryMs: Math.min(15_000, leaseMs / 3) };
}

export function policyOf(config: Config): Policy {
  const { taskcluster, reflector } = config;
  return {
    taskQueueId: `${taskcluster.provisionerId}/${taskcluster.workerType}`,
    workerGroup: taskcluster.workerGroup,
    workerId: taskcluster.workerId,
    results: config.results,
    reclaimThresholdMs: reflector.reclaimThreshold,
    // A little less than the interval, so that a mapping is due again at the next round and not at the one after.
    recheckMs: reflector.recheck * 0.9,
    absentGraceMs: config.legacyCi.absentGrace,
    maxSubmissions: MAX_SUBMISSIONS,
    maxReruns: MAX_RERUNS,
    maxUploadAttempts: MAX_UPLOAD_ATTEMPTS,
  };
}
