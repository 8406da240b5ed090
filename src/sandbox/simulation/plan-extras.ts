/**
 * What only a share of the seeds have. It is drawn from numbers of its own: a seed without any of it is the same world
 * that it would be if there were none.
 */
import { PRIORITIES } from '../../domain/task.ts';
import { ALL, databaseOffsetOf, machineOf, type Plan, type TaskPlan } from './plan.ts';
import type { Random } from './random.ts';
import { RESTRICTED_BUILDER } from './settings.ts';
import type { Climate } from './weather.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

type Extra = (plan: Plan, random: Random, start: number) => Plan;

/** @param start when the simulation begins, UTC milliseconds */
export function withExtras(plan: Plan, random: Random, start: number): Plan {
  return EXTRAS.reduce((wider, extra) => extra(wider, random, start), plan);
}

const EXTRAS: readonly Extra[] = [
  otherSizes,
  crowd,
  lostConnections,
  shortMemory,
  observer,
  restricted,
  dependencies,
  lostCancels,
  sleepers,
  lostClaims,
  onlyTheDatabase,
  databaseClock,
  brokerAway,
  hungUploads,
];

/** The one moment that leases do not cover: between the renewal of one and the submission that follows. */
function sleepers(plan: Plan, random: Random): Plan {
  if (!random.chance(0.06)) {
    return plan;
  }
  const [one] = plan.instances;
  const instances = plan.instances.length === 1 && one ? [one, { ...one, offset: -one.offset }] : plan.instances;
  return { ...plan, instances, sleepy: 0.15 };
}

function otherSizes(plan: Plan, random: Random): Plan {
  return random.chance(0.3) ? { ...plan, batchSize: random.int(1, 10), concurrency: random.int(1, 6) } : plan;
}

/** Many tasks that come at nearly the same time, as a graph makes them, and builds that do not take for ever. */
function crowd(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.05)) {
    return plan;
  }
  const builders = Object.keys(plan.workers);
  const at = start + random.int(0, plan.chaosMs / 2);
  const tasks = Array.from(
    { length: random.int(6, 14) },
    (_, index): TaskPlan => ({
      name: `t${plan.tasks.length + index + 1}`,
      at: at + random.int(0, random.chance(0.7) ? 2 * SECOND : 2 * MINUTE),
      flavour: 'good',
      builder: random.pick(builders),
      branch: random.pick(['main', 'release']),
      priority: random.pick(PRIORITIES),
      retries: random.int(0, 5),
      deadlineMs: 48 * HOUR,
      expiresMs: 240 * HOUR,
    }),
  );
  return {
    ...plan,
    tasks: [...plan.tasks, ...tasks],
    longestBuildMs: Math.min(plan.longestBuildMs, 5 * MINUTE),
    batchSize: random.int(1, 10),
  };
}

/** Connections with the broker that break while a process lives: what it had goes to others. */
function lostConnections(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.25)) {
    return plan;
  }
  const lost = Array.from({ length: random.int(1, 6) }, () => ({
    at: start + random.int(0, plan.chaosMs),
    kind: 'pulseLost' as const,
  }));
  const incidents = [...plan.incidents, ...lost];
  if (random.chance(0.5)) {
    return { ...plan, incidents, ambushes: { ...plan.ambushes, pulseLost: 1 } };
  }
  // Often in the middle of a pass: another has the task's message before the first one is through with it.
  const one = plan.instances[0];
  const instances = plan.instances.length === 1 && one ? [one, { ...one, offset: -one.offset }] : plan.instances;
  return { ...plan, incidents, instances, ambush: 0.05, ambushes: { pulseLost: 1 } };
}

/** Closed mappings go away while people may still rerun their tasks. */
function shortMemory(plan: Plan, random: Random): Plan {
  return random.chance(0.25) ? { ...plan, retentionMs: random.int(30 * SECOND, 10 * MINUTE) } : plan;
}

/** One that is to change nothing, beside those that act. */
function observer(plan: Plan, random: Random): Plan {
  if (!random.chance(0.1)) {
    return plan;
  }
  const observing = { services: ALL, ...machineOf(random), mode: 'observe' } as const;
  return { ...plan, instances: [...plan.instances.slice(0, 3), observing] };
}

/** A builder for which a task needs a scope. */
function restricted(plan: Plan, random: Random): Plan {
  if (!random.chance(0.15)) {
    return plan;
  }
  const flavours = { scoped: 2, assuming: 3, unscoped: 1, misassuming: 1 };
  return {
    ...plan,
    climate: { ...plan.climate, authAway: random.pick([0, 0.1, 0.5]) },
    workers: { ...plan.workers, [RESTRICTED_BUILDER]: random.int(1, 3) },
    tasks: plan.tasks.map((task) =>
      task.flavour === 'good' && random.chance(0.6)
        ? { ...task, flavour: random.weighted(flavours), builder: RESTRICTED_BUILDER }
        : task,
    ),
  };
}

/**
 * Tasks that are unscheduled first. What they wait for may end well, badly or not before their own deadline, which is
 * soon enough for the simulation to see it.
 */
function dependencies(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.15)) {
    return plan;
  }
  const first = nativeTask(plan, random, start);
  const tasks = [first];
  for (const task of plan.tasks) {
    tasks.push(random.chance(0.5) ? dependent(task, tasks, first, random) : task);
  }
  return { ...plan, tasks };
}

function nativeTask({ chaosMs, tasks }: Plan, random: Random, start: number): TaskPlan {
  const one = tasks[0];
  const verdict = {
    at: start + random.int(SECOND, chaosMs),
    is: random.pick(['completed', 'completed', 'failed'] as const),
  };
  return {
    ...{ name: 'n1', at: start, flavour: 'native', builder: '', branch: one?.branch ?? 'main', priority: 'lowest' },
    ...{ retries: 0, deadlineMs: random.int(10 * MINUTE, 90 * MINUTE), expiresMs: 480 * HOUR },
    ...(random.chance(0.8) ? { verdict } : {}),
  };
}

function dependent(task: TaskPlan, before: readonly TaskPlan[], native: TaskPlan, random: Random): TaskPlan {
  const deadlineMs = random.chance(0.4) ? random.int(5 * MINUTE, 40 * MINUTE) : random.int(1 * HOUR, 3 * HOUR);
  // The queue wants what is depended on to outlive whoever depends on it.
  const possible = before.filter((other) => other.deadlineMs + other.expiresMs > 72 * HOUR && other.at <= task.at);
  const wanted = random.chance(0.6) ? [native] : [random.pick(possible), random.pick(possible)];
  return {
    ...task,
    deadlineMs,
    dependencies: [...new Set(wanted.map(({ name }) => name))],
    requires: random.pick(['all-completed', 'all-completed', 'all-resolved']),
  };
}

/** Long builds that people cancel, and of most cancels nothing comes: only one that is asked for again stops them. */
function lostCancels(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.06)) {
    return plan;
  }
  const cancelled = Array.from({ length: random.int(2, 8) }, () => ({
    at: start + random.int(Math.floor(plan.chaosMs / 2), plan.chaosMs),
    kind: 'cancelledInQueue' as const,
  }));
  const climate = { ...plan.climate, lostCancel: 0.9 };
  return { ...plan, climate, longestBuildMs: 90 * MINUTE, incidents: [...plan.incidents, ...cancelled] };
}

/**
 * Long builds that go on while the queue or the database is away for longer than a claim lasts: where that cannot be
 * renewed, the next run takes them over.
 */
function lostClaims(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.06)) {
    return plan;
  }
  const from = start + random.int(10 * MINUTE, 40 * MINUTE);
  const outage = { service: random.pick(['queue', 'store'] as const), from, to: from + random.int(21, 60) * MINUTE };
  const long = withLongBuilds(plan, start, from);
  return {
    ...long,
    climate: { ...plan.climate, outages: [...plan.climate.outages, outage] },
    chaosMs: Math.max(plan.chaosMs, 110 * MINUTE),
    tasks: long.tasks.map((task) => ({ ...task, retries: Math.max(task.retries, 1) })),
  };
}

/** Nothing goes wrong but that the database is away, for longer than a claim lasts, while long builds go on. */
function onlyTheDatabase(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.04)) {
    return plan;
  }
  const from = start + random.int(10 * MINUTE, 30 * MINUTE);
  const outage = { service: 'store' as const, from, to: from + random.int(25, 60) * MINUTE };
  return {
    ...withLongBuilds(plan, start, from),
    ...ALL_FAIR,
    climate: { ...FAIR, outages: [outage] },
    chaosMs: 100 * MINUTE,
  };
}

const FAIR: Omit<Climate, 'outages'> = {
  swallowed: [],
  ...{ failBefore: 0, failAfter: 0, late: 0, slow: 0, forbidden: 0, drop: 0, repeat: 0, delay: 0 },
  ...{ unknownSubmission: 0, authAway: 0, lostCancel: 0 },
};

/** Nothing befalls anybody. */
const ALL_FAIR = { climate: { ...FAIR, outages: [] }, incidents: [], ambush: 0, sleepy: 0 } as const;

/** All tasks come before then, in the same order. */
function withLongBuilds(plan: Plan, start: number, before: number): Plan {
  const sooner = Math.min(1, (before - start) / plan.chaosMs);
  return {
    ...plan,
    // Those of a crowd would take days.
    longestBuildMs: plan.tasks.length > 7 ? plan.longestBuildMs : 90 * MINUTE,
    tasks: plan.tasks.map((task) => ({ ...task, at: start + Math.floor((task.at - start) * sooner) })),
  };
}

/**
 * The database server's clock is set by less than a lease lasts, several times. Or it is far ahead from the beginning,
 * and set back: for one instance alone, since several do not hear of it at the same moment. Half the time nothing else
 * is wrong then, and what waits by the old time are claims that have to be renewed before.
 */
function databaseClock(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.1)) {
    return plan;
  }
  const [one] = plan.instances;
  const times = Array.from({ length: random.int(1, 6) }, () => random.int(0, plan.chaosMs)).sort((a, b) => a - b);
  const offsets = times.map((ms) => ({ from: start + ms, offset: databaseOffsetOf(random) }));
  if (one === undefined || random.chance(0.5)) {
    return { ...plan, databaseOffsets: [...plan.databaseOffsets, ...offsets] };
  }
  const ahead = { from: start, offset: random.int(MINUTE, random.pick([10 * MINUTE, 3 * HOUR])) };
  const setBack = { ...plan, instances: [one], databaseOffsets: [ahead, ...offsets] };
  if (random.chance(0.5)) {
    return setBack;
  }
  return {
    ...withLongBuilds(setBack, start, start + (times[0] ?? 0)),
    ...ALL_FAIR,
    chaosMs: Math.max(plan.chaosMs, 110 * MINUTE),
  };
}

/**
 * The broker is away for hours, while tasks are made and builds end. Half the time nothing else is wrong: what nobody hears of
 * is found all the same.
 */
function brokerAway(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.05)) {
    return plan;
  }
  const from = start + random.int(0, plan.chaosMs / 2);
  const to = from + random.int(20 * MINUTE, 3 * HOUR);
  const away = {
    ...plan,
    brokerOutages: [{ from, to, isHeldBack: random.chance(0.5) }],
    chaosMs: Math.max(plan.chaosMs, to - start + 5 * MINUTE),
  };
  return random.chance(0.5) ? away : { ...away, ...ALL_FAIR };
}

/**
 * What is uploaded goes nowhere for a while, as behind a proxy that swallows it, and more builds end meanwhile than are uploaded at
 * once. Others begin, and go on for longer than a claim lasts. Half the time nothing else is wrong.
 */
function hungUploads(plan: Plan, random: Random, start: number): Plan {
  if (!random.chance(0.05)) {
    return plan;
  }
  const from = start + random.int(0, 10 * MINUTE);
  const to = from + random.int(40 * MINUTE, 90 * MINUTE);
  const builders = Object.keys(plan.workers).filter((name) => name !== RESTRICTED_BUILDER);
  const tasks = Array.from(
    { length: random.int(4, 10) },
    (_, index): TaskPlan => ({
      ...{ name: `t${plan.tasks.length + index + 1}`, at: random.int(start, to), flavour: 'good' },
      ...{
        builder: random.pick(builders),
        branch: random.pick(['main', 'release']),
        priority: random.pick(PRIORITIES),
      },
      ...{ retries: random.int(0, 5), expiresMs: 240 * HOUR },
      deadlineMs: random.chance(0.3) ? random.int(20 * MINUTE, 2 * HOUR) : 48 * HOUR,
    }),
  );
  const hung = {
    ...plan,
    climate: { ...plan.climate, swallowed: [{ from, to }] },
    chaosMs: Math.max(plan.chaosMs, to - start + 5 * MINUTE),
    concurrency: random.int(1, 3),
    longestBuildMs: 45 * MINUTE,
    workers: { ...plan.workers, ...Object.fromEntries(builders.map((name) => [name, random.int(2, 6)])) },
    tasks: [...plan.tasks, ...tasks],
  };
  return random.chance(0.5)
    ? hung
    : { ...hung, ...ALL_FAIR, climate: { ...FAIR, outages: [], swallowed: [{ from, to }] } };
}
