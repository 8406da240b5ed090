/** The simulated Buildbot: it claims, builds, merges, collapses, retries and cancels as a real one does. */
import type { ResultName } from '../../domain/build.ts';
import type { History } from './history.ts';
import { isOpen, type Kind, runningBuild, type SimBuild, type SimRequest } from './master-state.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';

export interface MasterOptions {
  readonly kind: Kind;
  /** Whether a new request completes older unclaimed ones of the same builder and sourcestamp. */
  readonly isCollapsing: boolean;
  readonly workers: Readonly<Record<string, number>>;
  readonly longestBuildMs: number;
  readonly results: Readonly<Record<ResultName | 'unknown', number>>;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly history: History;
  readonly onEvent: (request: SimRequest) => void;
}

export type Wish = Pick<SimRequest, 'builder' | 'stamp' | 'externalId' | 'taskId' | 'runId' | 'priority'>;

export interface Master {
  readonly requests: readonly SimRequest[];
  submit(wish: Wish): SimRequest;
  /** A pending request is cancelled, a running build stopped, and with it all whom it serves. */
  cancel(request: SimRequest, by: 'person' | 'bridge'): void;
  /** @returns whether one was left that could be lost */
  loseWorker(builder: string, downMs: number): boolean;
  /** @returns whether it was up */
  shutdown(downMs: number): boolean;
  /** @returns whether it was up */
  kill(downMs: number): boolean;
  isUp(): boolean;
}

const MINUTE = 60_000;
/** How long properties and log are on their way after a build, where they come by themselves. */
const SETTLING_MS = 90_000;

export function createMaster(options: MasterOptions): Master {
  const { kind, scheduler, random, history, onEvent } = options;
  const requests: SimRequest[] = [];
  const running = new Set<SimBuild>();
  const away = new Map<string, number>();
  let builds = 0;
  let isUp = true;

  const tell = (request: SimRequest, what: string) => history.note('buildbot', `#${request.id} ${what}`);

  function submit(wish: Wish): SimRequest {
    const known =
      kind === 'scheduler-db' &&
      requests.find(({ externalId, isPurged }) => !isPurged && externalId !== null && externalId === wish.externalId);
    if (known) {
      return known;
    }
    if (options.isCollapsing) {
      for (const older of requests) {
        if (isOpen(older) && !runningBuild(older) && older.builder === wish.builder && older.stamp === wish.stamp) {
          complete(older, 'SKIPPED', 'collapse');
        }
      }
    }
    const fresh = { submittedAt: scheduler.now(), builds: [], settledAt: 0, hiddenUntil: 0, cancels: 0 };
    const request: SimRequest = { id: requests.length + 1, ...wish, ...fresh, isPurged: false, isUnstoppable: false };
    requests.push(request);
    tell(request, `made: ${wish.builder} ${wish.stamp} ${wish.externalId ?? '(of somebody else)'}`);
    onEvent(request);
    startSoon(wish.builder, random.int(200, random.chance(0.7) ? 10_000 : 2 * MINUTE));
    return request;
  }

  function startSoon(builder: string, ms: number): void {
    scheduler.after(ms, () => start(builder));
  }

  function freeWorkers(builder: string): number {
    const busy = [...running].filter((build) => build.group[0]?.builder === builder).length;
    return (options.workers[builder] ?? 0) - (away.get(builder) ?? 0) - busy;
  }

  function start(builder: string): void {
    const waiting = requests
      .filter((request) => isOpen(request) && request.builder === builder && !runningBuild(request))
      .sort((a, b) => b.priority - a.priority || a.id - b.id);
    const [first] = waiting;
    if (!isUp || first === undefined || freeWorkers(builder) <= 0) {
      return;
    }
    const merged =
      kind === 'scheduler-db' && random.chance(0.8) ? waiting.filter(({ stamp }) => stamp === first.stamp) : [first];
    builds += 1;
    const build = { id: builds, number: builds, startedAt: scheduler.now(), group: merged, stateText: 'building' };
    running.add(build);
    for (const request of merged) {
      request.builds.push(build);
      tell(request, `build ${build.number} starts`);
      onEvent(request);
    }
    const longest = random.chance(0.6) ? MINUTE : options.longestBuildMs;
    const results = random.weighted(options.results);
    scheduler.after(random.int(2000, longest), () => finish(build, results === 'unknown' ? undefined : results));
    startSoon(builder, 1000);
  }

  function finish(build: SimBuild, results: ResultName | undefined, by: SimRequest['endedBy'] = 'build'): void {
    // What a dead master built is found lost when it is back; nothing ends meanwhile.
    if ((!isUp && by !== 'shutdown') || !running.delete(build)) {
      return;
    }
    build.completedAt = scheduler.now();
    build.stateText = by === 'shutdown' ? 'cancelled (Master Shutdown)' : (results ?? 'unknown');
    if (results !== undefined) {
      build.results = results;
    }
    for (const request of build.group) {
      tell(request, `build ${build.number} ends: ${results ?? 'a code that nobody knows'}`);
      // Now and then a master gives up, and RETRY is the request's own result.
      if (results === 'RETRY' && !(by === 'build' && random.chance(0.04))) {
        onEvent(request);
      } else {
        complete(request, results, by);
      }
    }
    startSoon(build.group[0]?.builder ?? '', random.int(100, 20_000));
  }

  function complete(request: SimRequest, results: ResultName | undefined, by: SimRequest['endedBy']): void {
    if (!isOpen(request)) {
      return;
    }
    request.completedAt = scheduler.now();
    if (results !== undefined) {
      request.results = results;
    }
    if (by !== undefined) {
      request.endedBy = by;
    }
    const isSettling = kind === 'scheduler-db' && request.builds.length > 0 && random.chance(0.7);
    request.settledAt = scheduler.now() + (isSettling ? random.int(1000, SETTLING_MS) : 0);
    tell(request, `complete: ${results ?? 'unknown'}, ended by ${by ?? 'nobody'}`);
    onEvent(request);
  }

  function resume(downMs: number, after: () => void): void {
    scheduler.after(downMs, () => {
      isUp = true;
      history.note('buildbot', 'is up again');
      after();
      for (const builder of Object.keys(options.workers)) {
        startSoon(builder, random.int(500, 5000));
      }
    });
  }

  return {
    requests,
    submit,
    cancel(request, by) {
      const build = runningBuild(request);
      if (!isOpen(request)) {
        return;
      }
      if (build) {
        scheduler.after(random.int(50, 3000), () => finish(build, 'CANCELLED', by));
      } else {
        complete(request, 'CANCELLED', by);
      }
    },
    loseWorker(builder, downMs) {
      const wasLeft = (options.workers[builder] ?? 0) > (away.get(builder) ?? 0);
      away.set(builder, (away.get(builder) ?? 0) + 1);
      const lost = [...running].find((build) => build.group[0]?.builder === builder);
      if (lost) {
        finish(lost, 'RETRY');
      }
      scheduler.after(downMs, () => {
        away.set(builder, (away.get(builder) ?? 1) - 1);
        start(builder);
      });
      return wasLeft || lost !== undefined;
    },
    shutdown(downMs) {
      if (!isUp) {
        return false;
      }
      isUp = false;
      history.note('buildbot', 'the master stops');
      // Over the Data API a stopped master cancels what it builds; a classic one takes its claims back.
      for (const build of [...running]) {
        finish(build, kind === 'data-api' ? 'CANCELLED' : 'RETRY', 'shutdown');
      }
      resume(downMs, () => undefined);
      return true;
    },
    kill(downMs) {
      if (!isUp) {
        return false;
      }
      isUp = false;
      history.note('buildbot', 'the master dies');
      const lost = [...running];
      // Nothing is said: that the builds were lost is found when it is back.
      resume(downMs, () => {
        for (const build of lost.filter((one) => running.delete(one))) {
          build.completedAt = scheduler.now();
          build.results = 'RETRY';
          build.stateText = 'retry';
          for (const request of build.group) {
            tell(request, `build ${build.number} was lost`);
          }
        }
      });
      return true;
    },
    isUp: () => isUp,
  };
}
