/** One simulated world, put together from a plan: both systems, the broker, the database, and the bridge's processes. */
import { type Logger, pino } from 'pino';
import { type Bridge, createBridge } from '../../bridge.ts';
import { createSettableClock, type SettableClock } from '../../clock.ts';
import { createMetrics } from '../../metrics.ts';
import type { Broker, LegacyCi, MappingStore, TaskQueue } from '../../ports.ts';
import type { Mode } from '../../reflector/actions.ts';
import type { Timing } from '../../reflector/apply/pass.ts';
import type { Timer } from '../../reflector/cron.ts';
import type { Policy } from '../../reflector/decide.ts';
import { createBroker, type SimBroker } from './broker.ts';
import { createHindrances } from './hindrances.ts';
import { createHistory, type History } from './history.ts';
import { type Call, createHost, type Host } from './host.ts';
import { createMaster, type Master } from './master.ts';
import { createMasterPort, type Watcher } from './master-port.ts';
import type { SimRequest } from './master-state.ts';
import { MAX_DATABASE_SKEW_MS, type Plan } from './plan.ts';
import { createQueuePort } from './queue-port.ts';
import { createQueueServer, type QueueServer } from './queue-server.ts';
import { createRandom, type Random } from './random.ts';
import { createRules, type Rules } from './rules.ts';
import { createScheduler, type Scheduler } from './scheduler.ts';
import { POLICY, ROUND_MS, RULES, TIMING } from './settings.ts';
import { createStorePort } from './store-port.ts';
import { createStoreState, type StoreState } from './store-state.ts';
import { createTraffic, type Traffic } from './traffic.ts';
import { createWeather, type Weather } from './weather.ts';

/** What one process of the bridge is made of; a mutation puts something else in its place. */
export interface Parts {
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly store: MappingStore;
  readonly broker: Broker;
  readonly clock: SettableClock;
  readonly timing: Timing;
  readonly policy: Policy;
  readonly mode: Mode;
}
export type Mutate = (parts: Parts) => Parts;

export interface World {
  readonly plan: Plan;
  readonly scheduler: Scheduler;
  readonly history: History;
  readonly random: Random;
  readonly weather: Weather;
  readonly master: Master;
  readonly queue: QueueServer;
  readonly store: StoreState;
  readonly broker: SimBroker;
  readonly rules: Rules;
  readonly traffic: Traffic;
  readonly watchers: Set<Watcher>;
  /** What people and other workers have begun and not ended. */
  readonly errands: { open: number };
  /** A process with the services of the plan's instance of this number. */
  launch(index: number, name: string): { readonly host: Host; readonly bridge: Bridge };
}

export interface WorldOptions {
  readonly seed: number;
  readonly start: number;
  readonly plan: Plan;
  readonly mutate: Mutate;
  readonly ambush: (world: World, host: Host, call: Call) => void;
}

const SILENT: Logger = pino({ level: 'silent' });

export function createWorld({ seed, start, plan, mutate, ambush }: WorldOptions): World {
  const scheduler = createScheduler(start);
  const history = createHistory(start, scheduler.now);
  const random = createRandom(seed, 'world');
  const weather = createWeather({
    climate: plan.climate,
    random: createRandom(seed, 'weather'),
    ...{ scheduler, history },
    isDown: (service) => service === 'ci' && plan.kind === 'data-api' && !master.isUp(),
  });
  const watchers = new Set<Watcher>();
  const hindrances = createHindrances(scheduler);
  const rules = createRules({
    ...{ plan, scheduler, history, hindrances },
    master: () => master,
    queue: () => queue,
    store: () => store,
  });
  for (const [index, { from, offset }] of plan.databaseOffsets.entries()) {
    scheduler.after(from - start, () => {
      history.note('database', `its clock is ${offset} ms off`);
      if (Math.abs(offset) > MAX_DATABASE_SKEW_MS) {
        hindrances.onFault(plan.databaseOffsets[index + 1]?.from ?? from, false);
      }
    });
  }
  const traffic = createTraffic(scheduler, history);
  const store = createStoreState(rules);
  const broker = createBroker({ scheduler, random, weather, history, onDelivered: rules.onDelivered });
  for (const { from, to, isHeldBack } of plan.brokerOutages) {
    scheduler.after(from - start, () => broker.leave(to - from, isHeldBack));
  }
  const queue = createQueueServer({ scheduler, publish: broker.publish, onEnding: rules.onEnding });
  const master = createMaster({ ...plan, scheduler, random, history, onEvent });
  const builders = new Set(Object.keys(plan.workers));
  const databaseNow = () =>
    scheduler.now() + (plan.databaseOffsets.findLast(({ from }) => from <= scheduler.now())?.offset ?? 0);

  /** Nothing is queued for who does not listen: what is lost is lost. A classic Buildbot's events go through the broker. */
  function onEvent(request: SimRequest): void {
    const isUnheard = weather.isAway('ci') || (plan.kind === 'scheduler-db' && broker.isAway());
    for (const watcher of watchers) {
      for (const ms of isUnheard ? [] : weather.copies()) {
        scheduler.after(ms, () => watcher.host.deliver(() => watcher.onHint(request.id)));
      }
    }
  }

  const world: World = {
    ...{ plan, scheduler, history, random, weather, master, queue, store, broker, rules, traffic, watchers },
    errands: { open: 0 },
    launch(index, name) {
      const instance = plan.instances[index];
      const host = createHost({
        ...{ name, scheduler, weather, history },
        drift: instance?.drift ?? 0,
        onCall(caller, call) {
          rules.onCall(caller, call);
          traffic.onCall(caller, call);
        },
        onEffect: rules.onEffect,
        onFault: (ms, isForbidden, service) => hindrances.onFault(scheduler.now() + ms, isForbidden, service),
        onFailedCall: rules.onFailedCall,
        onAnswered: rules.onAnswered,
        ambush: (caller, call) => ambush(world, caller, call),
      });
      host.setClock(instance?.offset ?? 0);
      const mode = instance?.mode === 'drain' && weather.isCalm() ? 'normal' : (instance?.mode ?? 'normal');
      hindrances.onLaunch(host, mode === 'normal' && instance?.services.includes('reflector') === true);
      if (mode === 'observe') {
        rules.observers.add(host);
      }
      const parts = mutate({
        queue: createQueuePort(host, queue),
        ci: createMasterPort({
          ...{ host, master, weather, builders, watchers },
          ...{ kind: plan.kind, isGuarded: plan.isGuarded, unstoppable: plan.unstoppable },
          now: scheduler.now,
          onSubmitted: rules.onSubmitted,
          isInTime: rules.isInTime,
        }),
        store: createStorePort(host, store, databaseNow),
        broker: broker.portFor(host),
        clock: createSettableClock(host.machine),
        timing: TIMING,
        policy: { ...POLICY, results: plan.policy },
        mode,
      });
      const bridge = createBridge({
        ...parts,
        log: SILENT,
        metrics: createMetrics(),
        rules: RULES,
        services: instance?.services ?? [],
        instance: name,
        version: 'simulated',
        schedule: '',
        retentionMs: plan.retentionMs,
        batchSize: plan.batchSize,
        concurrency: plan.concurrency,
        jitterMs: 2000,
        tempDir: '',
        maxLogSize: 1,
        random: random.next,
        timer: timerOf(host, scheduler),
        spool: (_source, _options, use) => use({ path: '', size: 0 }),
      });
      return { host, bridge };
    },
  };
  return world;
}

/** Round after round at whole minutes, as cron has it. */
function timerOf(host: Host, scheduler: Scheduler): Timer {
  return (_expression, tick) => {
    let isOver = false;
    const next = () => {
      if (isOver || !host.isAlive()) {
        return;
      }
      scheduler.after(ROUND_MS - (scheduler.now() % ROUND_MS), () => {
        host.deliver(() => void (isOver ? undefined : tick()));
        next();
      });
    };
    next();
    return {
      destroy() {
        isOver = true;
      },
    };
  };
}
