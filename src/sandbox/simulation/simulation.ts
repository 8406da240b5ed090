/** One seed, from its plan to its report: a time of faults, then calm until all is at rest, then a while of silence. */
import { scopesForBuilder } from '../../reflector/admission.ts';
import type { TaskDefinition } from '../queue/task-input.ts';
import { createFleet, type Fleet } from './fleet.ts';
import type { Call, Host } from './host.ts';
import { happen, resolveAsWorker } from './incidents.ts';
import { isOpen } from './master-state.ts';
import { taskIdOf } from './names.ts';
import { createPlan, INCIDENTS, type IncidentKind, type TaskPlan } from './plan.ts';
import { checkProgress, checkRest, isAtRest } from './rest.ts';
import { LEASE_MS, LIST_PAGE, OTHER_TASK_QUEUE, RESTRICTED_BUILDER, TASK_QUEUE } from './settings.ts';
import { createWorld, type Mutate, type World } from './world.ts';

export interface Report {
  readonly seed: number;
  readonly complaints: readonly string[];
  readonly steps: number;
  readonly virtualMs: number;
  readonly faults: ReadonlyMap<string, number>;
  readonly tasks: number;
  /** Of runs, by reason. */
  readonly resolutions: ReadonlyMap<string, number>;
  trace(): readonly string[];
  digest(): string;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const START = Date.UTC(2026, 0, 5, 8);
/** Longer than all builds of all tasks take, one after the other; what nobody stops, as other people's requests, comes on top. */
const MAX_CALM_MS = 10 * HOUR;
const SILENCE_MS = 5 * MINUTE;
const PROGRESS_MS = 5 * MINUTE;
/** Changes of the outside that the bridge may ask for a task's run in the calm, above what builds and time call for. */
const MAX_CHANGES = 400;

/** @param mutate puts a broken part into every process, to see whether that is noticed */
export async function simulate(seed: number, mutate: Mutate = (parts) => parts): Promise<Report> {
  const plan = createPlan(seed, START);
  const fleetOf: { current?: Fleet } = {};
  let changes = 0;
  const world = createWorld({
    ...{ seed, plan, mutate },
    start: START,
    ambush: (here, host, call) => {
      changes += call.isChange && call.service !== 'store' ? 1 : 0;
      ambush(here, host, call, fleetOf.current);
    },
  });
  const { scheduler, weather, history } = world;
  const fleet = createFleet(world);
  fleetOf.current = fleet;

  for (const task of plan.tasks) {
    scheduler.after(task.at - START, () =>
      world.queue.create(taskIdOf(task.name), definitionOf(task, scheduler.now())),
    );
  }
  for (const { name, verdict } of plan.tasks) {
    if (verdict !== undefined) {
      scheduler.after(verdict.at - START, () => void resolveAsWorker(world, taskIdOf(name), verdict.is));
    }
  }
  for (const { at, kind } of plan.incidents) {
    scheduler.after(at - START, () => happen(kind, world, fleet));
  }
  fleet.start();
  await scheduler.run(START + plan.chaosMs, () => false);

  weather.calm();
  fleet.recover();
  const calmSince = scheduler.now();
  history.note('--', 'calm');
  changes = 0;
  // What begins and ends in Buildbot is heard of, too, be it other people's; claims are listed until their time is over.
  const goingOn = () =>
    world.master.requests.filter(isOpen).length + Math.ceil(world.queue.claimedIds().length / LIST_PAGE);
  world.traffic.expect(plan.tasks.length + goingOn());
  await untilRest(world, calmSince);
  if (changes > MAX_CHANGES * plan.tasks.length) {
    history.complain(`${changes} changes of the outside were asked for after the faults were over`);
  }
  // What was under way for a run that somebody else ended goes on to its own end.
  await scheduler.run(scheduler.now() + MINUTE, () => false);
  changes = 0;
  world.traffic.expect(goingOn());
  await scheduler.run(scheduler.now() + SILENCE_MS, () => false);
  if (changes > 0 && history.complaints.length === 0) {
    history.complain(`${changes} changes were asked for although all was at rest`);
  }
  checkRest(world);

  const resolutions = new Map<string, number>();
  for (const { reason } of world.rules.endings) {
    resolutions.set(reason, (resolutions.get(reason) ?? 0) + 1);
  }
  return {
    seed,
    complaints: history.complaints,
    steps: scheduler.steps(),
    virtualMs: scheduler.now() - START,
    faults: history.faults,
    tasks: plan.tasks.length,
    resolutions,
    trace: history.lines,
    digest: history.digest,
  };
}

async function untilRest(world: World, calmSince: number): Promise<void> {
  const { scheduler, history, master, plan } = world;
  const backlog = master.requests.filter(
    (request) => isOpen(request) && (request.isUnstoppable || request.taskId === null),
  ).length;
  const until = calmSince + MAX_CALM_MS + 2 * backlog * plan.longestBuildMs;
  let seen = 0;
  const isOver = () => {
    // Now and then is often enough.
    if (scheduler.now() - seen < 5 * SECOND) {
      return false;
    }
    seen = scheduler.now();
    return history.complaints.length > 0 || isAtRest(world);
  };
  while (scheduler.now() < until && !isAtRest(world) && history.complaints.length === 0) {
    const next = scheduler.now() + PROGRESS_MS;
    await scheduler.run(next, isOver);
    checkProgress(world, calmSince);
  }
}

/** While a call has its effect, and its caller does not know yet, anything may happen. */
function ambush(world: World, host: Host, call: Call, fleet: Fleet | undefined): void {
  const { plan, weather, random } = world;
  const isRenewal = call.method === 'renewLease' && plan.sleepy > 0;
  if (isRenewal && !weather.isCalm() && fleet !== undefined && random.chance(plan.sleepy)) {
    fleet.pause(host.name, random.int(LEASE_MS + 5 * SECOND, LEASE_MS + 2 * MINUTE));
    return;
  }
  if (weather.isCalm() || fleet === undefined || !random.chance(plan.ambush)) {
    return;
  }
  const none = Object.fromEntries(INCIDENTS.map((kind) => [kind, 0])) as Record<IncidentKind, number>;
  happen(random.weighted<IncidentKind>({ ...none, ...plan.ambushes }), world, fleet, call.taskId, host.name);
}

const PAYLOADS: Readonly<Record<TaskPlan['flavour'], Readonly<Record<string, unknown>>>> = {
  good: { properties: { product: 'widget' } },
  undeclared: { properties: { undeclared: 1 } },
  rejected: { properties: { rejected: true } },
  'unknown-builder': {},
  'bad-payload': { surplus: true },
  ignored: {},
  scoped: {},
  assuming: {},
  unscoped: {},
  misassuming: {},
  native: {},
};

const SCOPES: Readonly<Partial<Record<TaskPlan['flavour'], readonly string[]>>> = {
  scoped: scopesForBuilder(RESTRICTED_BUILDER).slice(1),
  assuming: ['assume:signers'],
  unscoped: scopesForBuilder('another'),
  misassuming: ['assume:others'],
};

function definitionOf(task: TaskPlan, now: number): TaskDefinition {
  const at = (ms: number) => new Date(now + ms).toJSON();
  const taskQueueId = task.flavour === 'native' ? OTHER_TASK_QUEUE : TASK_QUEUE;
  const [provisionerId = '', workerType = ''] = taskQueueId.split('/');
  return {
    ...{ provisionerId, workerType, taskQueueId, schedulerId: 'simulation', projectId: 'none' },
    ...{ taskGroupId: taskIdOf('group'), dependencies: (task.dependencies ?? []).map(taskIdOf), routes: [] },
    requires: task.requires ?? 'all-completed',
    ...{
      priority: task.priority,
      retries: task.retries,
      scopes: [...(SCOPES[task.flavour] ?? [])],
      tags: {},
      extra: {},
    },
    created: at(0),
    deadline: at(task.deadlineMs),
    expires: at(task.deadlineMs + task.expiresMs),
    payload: { buildername: task.builder, sourcestamp: { branch: task.branch }, ...PAYLOADS[task.flavour] },
    metadata: { name: task.name, description: '', owner: 'simulation@example.com', source: 'https://example.com' },
  };
}
