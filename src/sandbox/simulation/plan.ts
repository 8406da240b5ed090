/** Everything that a seed decides beforehand: the two systems, the bridge's instances, the tasks, and what goes wrong. */

import type { Service as BridgeService } from '../../bridge.ts';
import type { ResultName } from '../../domain/build.ts';
import { PRIORITIES, type Priority } from '../../domain/task.ts';
import type { Mode } from '../../reflector/actions.ts';
import type { ResultPolicy } from '../../reflector/outcome.ts';
import type { Kind } from './master-state.ts';
import { withExtras } from './plan-extras.ts';
import { createRandom, type Random } from './random.ts';
import { IGNORED_BUILDER, POLICY } from './settings.ts';
import type { Climate } from './weather.ts';
import { FOREIGN } from './weather.ts';

/**
 * What a task is like. `scoped` ones have the scope that their restricted builder wants and `assuming` ones a role that
 * has it; `unscoped` and `misassuming` ones have neither.
 */
export type Flavour =
  | ('good' | 'undeclared' | 'rejected' | 'unknown-builder' | 'bad-payload' | 'ignored')
  | ('scoped' | 'assuming' | 'unscoped' | 'misassuming')
  /** Of another task queue: none of the bridge's, but others depend on it. */
  | 'native';

const BUILDABLE: ReadonlySet<Flavour> = new Set<Flavour>(['good', 'scoped', 'assuming']);

/** Whether such a task may be built at all. */
export function isBuildable(flavour: Flavour): boolean {
  return BUILDABLE.has(flavour);
}

export interface TaskPlan {
  readonly name: string;
  readonly at: number;
  readonly flavour: Flavour;
  readonly builder: string;
  readonly branch: string;
  readonly priority: Priority;
  readonly retries: number;
  readonly deadlineMs: number;
  /** After the deadline. */
  readonly expiresMs: number;
  /** Names of tasks that are made before it; until they are over it is unscheduled. */
  readonly dependencies?: readonly string[];
  readonly requires?: 'all-completed' | 'all-resolved';
  /** What its own worker makes of a native task, and when; without it nobody takes it. */
  readonly verdict?: { readonly at: number; readonly is: 'completed' | 'failed' };
}

export interface InstancePlan {
  readonly services: readonly BridgeService[];
  /** How far its machine's clock is off when it starts, in milliseconds. */
  readonly offset: number;
  /** How much faster than true time its machine counts. */
  readonly drift: number;
  /** An operator has it make no new requests until the calm begins (`drain`), or change nothing to the end (`observe`). */
  readonly mode: Mode;
}

/** What befalls machines and processes. */
export const MACHINE_INCIDENTS = [
  ...(['crash', 'pause', 'clock', 'restart', 'disconnect'] as const),
  ...(['workerLost', 'masterStopped', 'masterKilled', 'foreignRequest'] as const),
] as const;
/** What befalls a task. */
export const TASK_INCIDENTS = [
  ...(['cancelledInQueue', 'rerun', 'cancelledAndRerun', 'cancelledInBuildbot', 'takenByOther'] as const),
  ...(['hidden', 'purged'] as const),
] as const;
export type MachineIncident = (typeof MACHINE_INCIDENTS)[number] | (typeof RARE_INCIDENTS)[number];
export type TaskIncident = (typeof TASK_INCIDENTS)[number];
/** Only in a share of the seeds. */
export const RARE_INCIDENTS = ['pulseLost'] as const;
export const INCIDENTS = [...MACHINE_INCIDENTS, ...TASK_INCIDENTS, ...RARE_INCIDENTS] as const;
export type IncidentKind = MachineIncident | TaskIncident;

/** The database server's clock, in milliseconds against the queue's and Buildbot's, from then on. */
export interface DatabaseOffset {
  readonly from: number;
  readonly offset: number;
}

export interface BrokerOutage {
  readonly from: number;
  readonly to: number;
  /** Whether what is published meanwhile comes later, or is lost. */
  readonly isHeldBack: boolean;
}

export interface Plan {
  readonly kind: Kind;
  readonly isCollapsing: boolean;
  readonly isGuarded: boolean;
  readonly unstoppable: 'nothing' | 'builds' | 'everything';
  readonly workers: Readonly<Record<string, number>>;
  readonly longestBuildMs: number;
  readonly results: Readonly<Record<ResultName | 'unknown', number>>;
  readonly policy: ResultPolicy;
  readonly climate: Climate;
  readonly chaosMs: number;
  /** In the order of time. */
  readonly databaseOffsets: readonly DatabaseOffset[];
  /** One after the other, and over before the calm. */
  readonly brokerOutages: readonly BrokerOutage[];
  /** Mappings a batch of a sweep, and passes at once. */
  readonly batchSize: number;
  readonly concurrency: number;
  readonly retentionMs: number;
  /** How likely a process freezes, for longer than a lease, right when it renews one. */
  readonly sleepy: number;
  readonly instances: readonly InstancePlan[];
  readonly tasks: readonly TaskPlan[];
  readonly incidents: readonly { readonly at: number; readonly kind: IncidentKind }[];
  /** How likely a call meets an incident at the moment of its effect. */
  readonly ambush: number;
  readonly ambushes: Readonly<Partial<Record<IncidentKind, number>>>;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** The database server's clock against the queue's and Buildbot's. */
export const MAX_DATABASE_SKEW_MS = 30 * SECOND;
/** An oscillator that is this much too fast or too slow is a bad one. */
const MAX_DRIFT = 0.0002;
export const ALL: readonly BridgeService[] = ['tc-listener', 'legacy-listener', 'reflector'];

/** @param start when the simulation begins, UTC milliseconds */
export function createPlan(seed: number, start: number): Plan {
  const random = createRandom(seed, 'plan');
  const kind = random.pick(['data-api', 'scheduler-db'] as const);
  const isCollapsing = kind === 'data-api' && random.chance(0.8);
  const isLong = random.chance(0.06);
  const chaosMs = isLong ? random.int(2 * HOUR, 4 * HOUR) : random.int(5 * MINUTE, 50 * MINUTE);
  const severity = random.pick([0, 0.01, 0.03, 0.08, 0.2]);
  const builders = ['linux', 'mac'].slice(0, random.int(1, 2));
  const plan: Plan = {
    kind,
    isCollapsing,
    isGuarded: kind === 'data-api' && (isCollapsing || random.chance(0.5)),
    unstoppable: kind === 'data-api' ? 'nothing' : random.weighted({ nothing: 6, builds: 2, everything: 2 }),
    workers: Object.fromEntries(builders.map((name) => [name, random.int(1, 3)])),
    longestBuildMs: random.pick([MINUTE, 5 * MINUTE, 20 * MINUTE, 45 * MINUTE]),
    results: resultsOf(random),
    policy: random.chance(0.7) ? POLICY.results : policyOf(random),
    climate: climateOf(random, severity, start, chaosMs, isLong),
    chaosMs,
    databaseOffsets: [{ from: start, offset: random.pick([0, databaseOffsetOf(random)]) }],
    brokerOutages: [],
    batchSize: 3,
    concurrency: 4,
    retentionMs: 30 * 24 * HOUR,
    sleepy: 0,
    instances: instancesOf(random),
    tasks: tasksOf(random, builders, start, chaosMs),
    incidents: incidentsOf(random, start, chaosMs),
    ambush: random.pick([0, 0, 0.005, 0.02, 0.05]),
    ambushes: someOf(random),
  };
  return withExtras(plan, createRandom(seed, 'extras'), start);
}

function resultsOf(random: Random): Plan['results'] {
  const retry = random.pick([0, 10, 40]);
  return { SUCCESS: 50, WARNINGS: 8, FAILURE: 12, SKIPPED: 4, EXCEPTION: 6, RETRY: retry, CANCELLED: 0, unknown: 3 };
}

/** Any that an operator may set: some make the queue try again. */
function policyOf(random: Random): ResultPolicy {
  const any = () =>
    random.pick(['completed', 'failed', 'internal-error', 'intermittent-task', 'worker-shutdown'] as const);
  return { warnings: any(), failure: any(), exception: any(), skipped: any() };
}

function climateOf(random: Random, severity: number, start: number, chaosMs: number, isLong: boolean): Climate {
  const share = () => severity * random.next();
  const outages = Array.from({ length: random.int(0, 3) }, () => {
    const from = start + random.int(0, chaosMs);
    const longest = isLong ? 2 * HOUR : 10 * MINUTE;
    return { service: random.pick(FOREIGN), from, to: from + random.int(SECOND, longest) };
  });
  return {
    failBefore: share(),
    failAfter: share(),
    late: share(),
    slow: share(),
    forbidden: share() / 20,
    drop: random.pick([0, 0.1, 0.5, 1]),
    repeat: random.pick([0, 0.1, 0.5]),
    delay: random.pick([0, 0.1, 0.5]),
    unknownSubmission: random.pick([0, 0.1, 0.3]),
    lostCancel: random.pick([0, 0.5]),
    authAway: 0,
    outages,
    swallowed: [],
  };
}

export function databaseOffsetOf(random: Random): number {
  return random.int(-MAX_DATABASE_SKEW_MS, MAX_DATABASE_SKEW_MS);
}

/** How far a machine's clock may be off: a little, a time zone, or as one without a battery is. */
export function offsetOf(random: Random): number {
  const most = random.pick([5 * SECOND, 5 * SECOND, 3 * HOUR, 10_000 * HOUR]);
  return random.int(-most, most);
}

export function machineOf(random: Random): Pick<InstancePlan, 'offset' | 'drift'> {
  return { offset: offsetOf(random), drift: (2 * random.next() - 1) * MAX_DRIFT };
}

/** At least one reflector and one TC listener, wherever they are. */
function instancesOf(random: Random): Plan['instances'] {
  const count = random.weighted({ 1: 4, 2: 4, 3: 2, 4: 1 });
  return Array.from({ length: Number(count) }, (_, index) => ({
    services: index === 0 || random.chance(0.6) ? ALL : ALL.filter(() => random.chance(0.5)),
    ...machineOf(random),
    mode: random.chance(0.07) ? 'drain' : 'normal',
  }));
}

function tasksOf(random: Random, builders: readonly string[], start: number, chaosMs: number): readonly TaskPlan[] {
  const branches = ['main', 'release'].slice(0, random.int(1, 2));
  return Array.from({ length: random.int(1, 6) }, (_, index) => {
    const flavours = { good: 40, undeclared: 1, rejected: 1, 'unknown-builder': 1, 'bad-payload': 1, ignored: 1 };
    const flavour = random.weighted(flavours);
    const isShort = flavour === 'ignored' || random.chance(0.1);
    return {
      name: `t${index + 1}`,
      at: start + random.int(0, chaosMs / 2),
      flavour,
      builder: flavour === 'ignored' ? IGNORED_BUILDER : flavour === 'unknown-builder' ? 'nope' : random.pick(builders),
      branch: random.pick(branches),
      priority: random.pick(PRIORITIES),
      retries: random.int(0, 5),
      deadlineMs: isShort ? random.int(MINUTE, 40 * MINUTE) : 48 * HOUR,
      expiresMs: random.chance(0.3) ? random.int(61 * SECOND, 10 * MINUTE) : 240 * HOUR,
    };
  });
}

function incidentsOf(random: Random, start: number, chaosMs: number): Plan['incidents'] {
  const weights = someOf(random);
  return Array.from({ length: random.int(0, 16) }, () => ({
    at: start + random.int(0, chaosMs),
    kind: random.weighted<IncidentKind>({ ...NONE, ...weights }),
  }));
}

const NONE = Object.fromEntries(INCIDENTS.map((kind) => [kind, 0])) as Record<IncidentKind, number>;

/** Some kinds of incidents only, so that each is seen alone and in all sorts of company. */
function someOf(random: Random): Plan['ambushes'] {
  const chosen = [...MACHINE_INCIDENTS, ...TASK_INCIDENTS].filter((kind) =>
    random.chance(kind === 'purged' ? 0.1 : 0.5),
  );
  return Object.fromEntries((chosen.length > 0 ? chosen : (['crash'] as const)).map((kind) => [kind, 1]));
}
