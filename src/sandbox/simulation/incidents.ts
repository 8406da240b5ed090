/** What people, machines and operators do, at a time that the plan names or at the worst moment of a call. */
import { cancelTask, claimRun, reportRun, rerunTask } from '../queue/transitions.ts';
import type { Fleet } from './fleet.ts';
import { isOpen, runningBuild, type SimRequest } from './master-state.ts';
import { shortName } from './names.ts';
import { type IncidentKind, type MachineIncident, offsetOf, type TaskIncident } from './plan.ts';
import { LEASE_MS, OTHER_WORKER } from './settings.ts';
import type { World } from './world.ts';

const SECOND = 1000;
const MINUTE = 60 * SECOND;

interface Scene {
  readonly world: World;
  readonly fleet: Fleet;
  /** The process that is befallen; some process if it is undefined. */
  readonly process: string | undefined;
  readonly builder: string;
}

/** Each answers whether it hit anything: a master that is down already cannot be stopped. */
const MACHINES: Readonly<Record<MachineIncident, (scene: Scene) => boolean>> = {
  crash({ world: { random }, fleet, process }) {
    return fleet.crash(process, random.int(SECOND, random.chance(0.8) ? 30 * SECOND : 15 * MINUTE));
  },
  restart({ fleet, process }) {
    return fleet.restart(process);
  },
  pause({ world: { random }, fleet, process }) {
    const [shortest, longest] = random.pick([
      [SECOND, 20 * SECOND],
      // Just long enough for another to take over.
      [LEASE_MS, 2 * LEASE_MS],
      [LEASE_MS, 10 * MINUTE],
    ] as const);
    return fleet.pause(process, random.int(shortest, longest));
  },
  clock({ world: { random }, fleet, process }) {
    return fleet.setClock(process, offsetOf(random));
  },
  disconnect({ world }) {
    return disconnect(world);
  },
  pulseLost({ world, process }) {
    return world.broker.disconnect(process);
  },
  workerLost({ world: { master, random }, builder }) {
    return master.loseWorker(builder, random.int(SECOND, 5 * MINUTE));
  },
  masterStopped({ world: { master, random } }) {
    return master.shutdown(random.int(5 * SECOND, 5 * MINUTE));
  },
  masterKilled({ world: { master, random } }) {
    return master.kill(random.int(5 * SECOND, 10 * MINUTE));
  },
  foreignRequest({ world: { master, random }, builder }) {
    const stamp = `${random.pick(['main', 'release'])}@-`;
    master.submit({ builder, stamp, externalId: null, taskId: null, runId: 0, priority: random.int(0, 6) });
    return true;
  },
};

/** These count themselves: what a cancel comes to that is followed by a rerun is known only then. */
const TASKS: Readonly<Record<TaskIncident, (world: World, taskId: string) => void>> = {
  hidden(world, taskId) {
    // Once: what is missing again and again, whenever it is looked for, is missing for longer than the grace.
    for (const request of someRequest(world, taskId, ({ hiddenUntil }) => hiddenUntil === 0)) {
      world.history.fault('hidden');
      request.hiddenUntil = world.scheduler.now() + world.random.int(SECOND, 80 * SECOND);
      world.history.note('buildbot', `#${request.id} is not to be seen for a while`);
    }
  },
  purged(world, taskId) {
    for (const request of someRequest(world, taskId, ({ completedAt }) => completedAt !== undefined)) {
      world.history.fault('purged');
      request.isPurged = true;
      world.history.note('buildbot', `#${request.id} is purged`);
    }
  },
  cancelledInBuildbot(world, taskId) {
    for (const request of someRequest(world, taskId, isOpen)) {
      world.history.fault('cancelledInBuildbot');
      world.history.note('person', `${runningBuild(request) ? 'stops' : 'cancels'} #${request.id}`);
      world.master.cancel(request, 'person');
    }
  },
  cancelledInQueue(world, taskId) {
    if (cancel(world, taskId)) {
      world.history.fault('cancelledInQueue');
    }
  },
  rerun(world, taskId) {
    if (rerun(world, taskId)) {
      world.history.fault('rerun');
    }
  },
  cancelledAndRerun(world, taskId) {
    const { scheduler, random, history } = world;
    const isCancelled = cancel(world, taskId);
    world.errands.open += 1;
    scheduler.after(random.int(0, random.chance(0.5) ? 500 : 60 * SECOND), () => {
      world.errands.open -= 1;
      if (rerun(world, taskId)) {
        history.fault(isCancelled ? 'cancelledAndRerun' : 'rerun');
      } else if (isCancelled) {
        history.fault('cancelledInQueue');
      }
    });
  },
  takenByOther: takeByOther,
};

/** @param taskId whom it befalls, where it befalls a task; some task if it is undefined */
export function happen(kind: IncidentKind, world: World, fleet: Fleet, taskId?: string, process?: string): void {
  const { random, history, queue } = world;
  if (isMachine(kind)) {
    if (MACHINES[kind]({ world, fleet, process, builder: random.pick(Object.keys(world.plan.workers)) })) {
      history.fault(kind);
    }
    return;
  }
  const ids = queue.taskIds();
  if (ids.length > 0) {
    TASKS[kind](world, taskId ?? random.pick(ids));
  }
}

function isMachine(kind: IncidentKind): kind is MachineIncident {
  return kind in MACHINES;
}

/** One of the task's last two requests, if there is one of this sort and anybody to ask. */
function someRequest(
  { master, random }: World,
  taskId: string,
  isMeant: (request: SimRequest) => boolean,
): readonly SimRequest[] {
  const meant = master.requests.filter((request) => request.taskId === taskId && isMeant(request));
  return meant.length > 0 && master.isUp() ? [random.pick(meant.slice(-2))] : [];
}

function cancel(world: World, taskId: string): boolean {
  return asPerson(world, taskId, 'cancels', (task, now) => cancelTask(world.queue.state, task, now));
}

function rerun(world: World, taskId: string): boolean {
  return asPerson(world, taskId, 'reruns', (task, now) => rerunTask(world.queue.state, task, now));
}

type Change = Parameters<World['queue']['act']>[3];

/** @returns whether the task is another one now: what is over is not cancelled, and what is not is not rerun */
function asPerson({ queue, history }: World, taskId: string, what: string, change: Change): boolean {
  history.note('person', `${what} ${shortName(taskId)}`);
  const stateOf = () => {
    const runs = queue.view(taskId)?.runs ?? [];
    return `${runs.length} ${runs.at(-1)?.state}`;
  };
  const before = stateOf();
  try {
    queue.act(taskId, 'person', what, change);
  } catch {
    // Past its deadline: people are refused, too.
  }
  return stateOf() !== before;
}

/** Another worker is quicker, and builds it its own way. */
function takeByOther(world: World, taskId: string): void {
  if (resolveAsWorker(world, taskId, 'completed', world.random.int(SECOND, 10 * MINUTE))) {
    world.history.fault('takenByOther');
  }
}

/** Another worker claims a pending run and resolves it after `ms`. @returns whether it could claim it */
export function resolveAsWorker(world: World, taskId: string, as: 'completed' | 'failed', ms = 0): boolean {
  const { queue, scheduler, history } = world;
  const runId = (queue.view(taskId)?.runs.length ?? 0) - 1;
  if (queue.view(taskId)?.runs.at(-1)?.state !== 'pending') {
    return false;
  }
  try {
    queue.act(taskId, 'worker', 'claim', (task, now) => void claimRun(queue.state, task, runId, OTHER_WORKER, now));
    history.note('other', `claims ${shortName(taskId)}/${runId}`);
  } catch {
    return false;
  }
  world.errands.open += 1;
  scheduler.after(ms, () => {
    world.errands.open -= 1;
    try {
      queue.act(taskId, 'worker', 'report', (task, now) => reportRun(queue.state, task, runId, as, now));
    } catch {
      // Cancelled meanwhile.
    }
  });
  return true;
}

/** Hints are lost while the connection is down, and the bridge is told when it is back. */
function disconnect({ watchers, scheduler, random }: World): boolean {
  const isHeard = watchers.size > 0;
  for (const watcher of [...watchers]) {
    watchers.delete(watcher);
    scheduler.after(random.int(100, 2 * MINUTE), () => {
      if (watcher.host.isAlive()) {
        watchers.add(watcher);
        watcher.host.deliver(() => watcher.onGap());
      }
    });
  }
  return isHeard;
}
