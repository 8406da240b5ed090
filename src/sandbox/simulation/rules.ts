/** What must hold at every step, whatever goes wrong. Each rule hears of what happened and complains. */
import type { Mapping, TraceEvent } from '../../domain/mapping.ts';
import type { Message } from '../../ports.ts';
import { LAST_CHANCE_MS } from '../../reflector/upload-time.ts';
import { createArtifactRules } from './artifact-rules.ts';
import { createClaimRules } from './claim-rules.ts';
import { createDeeds } from './deeds.ts';
import type { Hindrances } from './hindrances.ts';
import type { History } from './history.ts';
import type { Call, Host } from './host.ts';
import type { Master } from './master.ts';
import { isOpen, type SimRequest } from './master-state.ts';
import { shortName } from './names.ts';
import { isBuildable, MAX_DATABASE_SKEW_MS, type Plan } from './plan.ts';
import { createPromptRules } from './prompt-rules.ts';
import type { Ending, QueueServer } from './queue-server.ts';
import type { Scheduler } from './scheduler.ts';
import { LEASE_MS, TIMING, WORKER } from './settings.ts';
import type { StoreState } from './store-state.ts';
import { createTraceRules } from './trace-rules.ts';
import { createTruth, type Truth } from './truth.ts';

export interface Rules {
  readonly truth: Truth;
  readonly endings: Ending[];
  /** Requests made by a process that had slept or dallied since it renewed its lease, or by a time that was cut short, and who made them. */
  readonly zombies: ReadonlyMap<SimRequest, Host>;
  /** Processes that are to change nothing. */
  readonly observers: Set<Host>;
  onEnding(ending: Ending): void;
  onWrite(row: Mapping): void;
  onOverwritten(row: Mapping, by: Mapping): void;
  onPruned(rows: readonly Mapping[]): void;
  onTrace(event: TraceEvent): void;
  onSubmitted(host: Host, request: SimRequest, wasSentInTime: boolean): void;
  isInTime(host: Host, taskId: string): boolean;
  /** Answers what to do when the message is acknowledged. */
  onDelivered(host: Host, message: Message): () => void;
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  /** A call of a process has its effect. */
  onEffect(host: Host, call: Call): void;
  /** A process hears of no effect of its call. */
  onFailedCall(host: Host, call: Call, error: unknown): void;
  /** A process hears that its call had its effect. */
  onAnswered(host: Host, call: Call, answer: unknown): void;
  /** At rest: what the bridge did and no trace tells of. */
  untold(): readonly string[];
}

export interface RulesContext {
  readonly plan: Plan;
  readonly scheduler: Scheduler;
  readonly history: History;
  readonly hindrances: Hindrances;
  readonly master: () => Master;
  readonly queue: () => QueueServer;
  readonly store: () => StoreState;
}

/** The longest wait between two looks: a cancel's last, and a little. */
const MAX_WAIT_MS = 11 * 60_000;
/** From the renewal of a lease to what it is renewed for. */
const RENEWED_MS = 1000;
/** By so much the clocks of two instances may differ that were set by the database server's. */
const READING_MS = 5000;
/** Until all instances have heard that the database server's clock was set. */
const FOLLOW_MS = 70_000;
/** The same where one of them is frozen, for as long as that may be, and goes on in the middle of a statement. */
const SLEEP_MS = 15 * 60_000;

interface Look {
  readonly at: number;
  readonly runs: number;
  /** The last of them. */
  readonly last: { readonly state: string; readonly reasonResolved?: string | undefined } | undefined;
}

export function createRules(context: RulesContext): Rules {
  const { plan, scheduler, history, master, queue, store } = context;
  const endings: Ending[] = [];
  const zombies = new Map<SimRequest, Host>();
  /** By process and task: when it heard last that its lease is renewed. */
  const heardRenewals = new Map<string, number>();
  const observers = new Set<Host>();
  const seen = new Set<SimRequest>();
  const looks = new Map<string, number>();
  /** By process and task: when its lease was renewed last. */
  const renewals = new Map<string, number>();
  /** By mapping. */
  const runs = new Map<number, number>();
  const carried = new Set<string>();
  const called = new Set<string>();
  /** By process and task: what there was to see when it asked for its status, as the last thing that it did. */
  const lastStatus = new Map<string, Look>();
  /** How the last run had ended when a rerun was asked for. */
  const askedToRerun = new WeakMap<Call, string | undefined>();
  const lastRunOf = (taskId: string) => queue().view(taskId)?.runs.at(-1);
  /** By task: what was seen right before it was cancelled. */
  const lastLook = new Map<string, Look>();
  const flavours = new Map(plan.tasks.map(({ name, flavour }) => [name, flavour]));
  let lazyTruth: Truth | undefined;
  const truth = () => {
    lazyTruth ??= createTruth(plan.policy, master(), endings, zombies, carried);
    return lazyTruth;
  };
  const artifacts = createArtifactRules({
    ...{ complain: history.complain, now: scheduler.now, queue, store, truth },
    isDoubled: (taskId, runId) =>
      [...zombies.keys()].some((zombie) => zombie.taskId === taskId && zombie.runId <= runId),
    isLastChance(taskId, leftMs = LAST_CHANCE_MS) {
      const deadline = Date.parse(queue().state.tasks.get(taskId)?.definition.deadline ?? '');
      return scheduler.now() + latestOffset() + READING_MS >= deadline - leftMs;
    },
  });
  const judging = { ...context, complain: history.complain, now: scheduler.now };
  const claims = createClaimRules(judging);
  const prompt = createPromptRules({ ...judging, zombies, truth });
  const deeds = createDeeds(store, scheduler);
  const wasCalled = (method: string, taskId: string) => called.has(`${method} ${taskId}`);
  const traces = createTraceRules({ ...judging, endings, wasCalled, carried });

  /** Whoever has not heard yet that the clock was set back goes by what it was. */
  function latestOffset(): number {
    const heard = offsetsUntil(heardUntil());
    const steps = [...heard.slice(-1), ...offsetsUntil(scheduler.now()).slice(heard.length)];
    return Math.max(MAX_DATABASE_SKEW_MS, ...steps);
  }

  /** Of a set of the database's clock before then, every instance has heard. */
  function heardUntil(): number {
    const outages = plan.climate.outages.filter(({ service }) => service === 'store').sort((a, b) => b.from - a.from);
    return outages.reduce(
      (until, { from, to }) => (from <= scheduler.now() && to > until ? Math.min(until, from - SLEEP_MS) : until),
      scheduler.now() - SLEEP_MS,
    );
  }

  function isOneMore(request: SimRequest): boolean {
    return master().requests.some((other) => other !== request && other.taskId === request.taskId && isOpen(other));
  }

  /** Whether the grace of a submission may have been over early. */
  function wasPutForward(): boolean {
    const now = scheduler.now();
    const before = offsetsUntil(now - FOLLOW_MS - TIMING.submitGraceMs);
    const steps = [before.at(-1) ?? 0, ...offsetsUntil(now).slice(before.length)];
    return steps.some((offset, index) => offset - (steps[index - 1] ?? offset) > READING_MS);
  }

  function offsetsUntil(time: number): readonly number[] {
    return plan.databaseOffsets.filter(({ from }) => from <= time).map(({ offset }) => offset);
  }

  /** Only what contradicts: a mapping may be closed by what was seen a moment before. */
  function checkResolution({ taskId, runId, resolution }: Mapping): void {
    const run = queue().view(taskId)?.runs[runId];
    const isOutcome = resolution !== null && !['gone', 'pending', 'running'].includes(resolution);
    if (run !== undefined && isOutcome && run.reasonResolved !== resolution) {
      history.complain(
        `the mapping of ${shortName(taskId)}/${runId} says ${resolution}, and the queue ${run.reasonResolved ?? run.state}`,
      );
    }
  }

  /** Of a zombie's and another of the same submission either may be the one that is known, and the other one is not. */
  function isOneTooMany(request: SimRequest): boolean {
    return zombies.has(request) || [...zombies.keys()].some((one) => one.externalId === request.externalId);
  }

  function checkSecond(request: SimRequest): void {
    for (const older of master().requests) {
      const isMeant = older !== request && older.taskId === request.taskId && !older.isPurged;
      if (!isMeant || isOneTooMany(older)) {
        continue;
      }
      const what = `#${request.id} was made for ${shortName(request.taskId ?? '')}/${request.runId}`;
      if (isOpen(older)) {
        history.complain(`${what} while #${older.id} of run ${older.runId} is open`);
      } else if (
        older.runId === request.runId &&
        ['build', 'person'].includes(older.endedBy ?? '') &&
        older.results !== 'RETRY'
      ) {
        history.complain(`${what}, which #${older.id} was made for and ended: ${older.results ?? 'unknown'}`);
      } else if (
        isHandedOn(older, request.runId) &&
        ['build', 'person'].includes(older.endedBy ?? '') &&
        older.results !== 'RETRY'
      ) {
        history.complain(`${what}, and nobody was told what #${older.id} came to, but that its claim had run out`);
      }
    }
  }

  /** Whoever makes a request has to know that it has the time for that: what made a zombie of it can only come after. */
  function checkRenewed(host: Host, taskId: string): void {
    const at = heardRenewals.get(`${host.name} ${taskId}`);
    if (at === undefined || (scheduler.now() - at > RENEWED_MS && !host.hasSleptSince(at))) {
      history.complain(`${host.name} asks for a build of ${shortName(taskId)} without having renewed its lease`);
    }
  }

  /** Where looking and writing are one step, whoever slept before it finds what was made for the run meanwhile. */
  function checkZombie(request: SimRequest): void {
    const twin = master().requests.find(
      (other) => other !== request && other.taskId === request.taskId && other.runId === request.runId && isOpen(other),
    );
    if (plan.kind === 'scheduler-db' && twin !== undefined && !zombies.has(twin)) {
      history.complain(
        `#${request.id} was made for ${shortName(request.taskId ?? '')}/${request.runId}, as #${twin.id} was`,
      );
    }
  }

  /**
   * Whether a request is a later run's, since nothing but claims of the bridge's that ran out lie between the two, and
   * the queue's own retries.
   */
  function isHandedOn({ taskId, runId: from }: SimRequest, to: number): boolean {
    const runs = queue().view(taskId ?? '')?.runs ?? [];
    const between = runs.slice(from, to);
    return (
      between.length > 0 &&
      between.every((run) => run.reasonResolved === 'claim-expired' && run.workerId === WORKER.workerId) &&
      runs.slice(from + 1, to + 1).every((run) => run.reasonCreated !== 'rerun')
    );
  }

  /** A build whose run's claim ran out is the next run's. */
  function checkCancel(id: number): void {
    const request = master().requests.find((one) => one.id === id);
    const last = queue()
      .view(request?.taskId ?? '')
      ?.runs.at(-1);
    if (request === undefined || last === undefined || zombies.has(request)) {
      return;
    }
    const isWanted = last.state === 'pending' || (last.state === 'running' && last.workerId === WORKER.workerId);
    // One of two may be too many, whichever it is.
    const isOnly = !master().requests.some(
      (other) => other !== request && other.taskId === request.taskId && (isOpen(other) || zombies.has(other)),
    );
    if (isWanted && isOnly && isHandedOn(request, last.runId)) {
      history.complain(`#${id} was cancelled, and ${shortName(request.taskId ?? '')}/${last.runId} waits for it`);
    }
  }

  /**
   * The bridge asks for reruns of what the queue does not retry any more, and of nothing else: whatever else is over is
   * over. The queue reruns whatever is over by then: nobody can do better than to look right before.
   */
  function checkRerun(taskId: string, call: Call): void {
    const last = lastRunOf(taskId);
    const isNew = last?.reasonCreated === 'rerun' && last.scheduled === scheduler.now();
    const reason = askedToRerun.get(call);
    if (isNew && reason !== 'worker-shutdown') {
      history.complain(`${shortName(taskId)} was rerun by the bridge after ${reason ?? 'nothing'}`);
    }
  }

  function checkCollapse(by: SimRequest): void {
    for (const older of plan.isGuarded ? master().requests : []) {
      // What a zombie made takes nobody's slot, even where it stands in for the request that collapsed into it.
      if (zombies.has(older)) {
        continue;
      }
      const isJustNow =
        older.completedAt === scheduler.now() && older.endedBy === 'collapse' && older.builds.length === 0;
      const mapping = older.taskId === null || older.taskId === by.taskId ? undefined : store().open(older.taskId);
      const isWanted = mapping?.state === 'submitted' && mapping.buildRequestId === older.id;
      if (isJustNow && older.stamp === by.stamp && older.builder === by.builder && isWanted) {
        history.complain(`#${by.id} collapsed #${older.id} of the bridge's own`);
      }
    }
  }

  return {
    get truth() {
      return truth();
    },
    endings,
    zombies,
    observers,
    onEnding(ending) {
      const { taskId, runId, by, method, wasOurs, reason } = ending;
      history.note(by, `${method}: ${shortName(taskId)}/${runId} is ${reason}`);
      if (by === 'bridge') {
        const task = queue().view(taskId);
        const flavour = flavours.get(shortName(taskId)) ?? 'good';
        const objection = task && truth().objection(ending, task, flavour);
        // The queue cancels whatever run is the last: nobody can do better than to look right before.
        const look = method === 'cancelTask' ? lastLook.get(taskId) : undefined;
        const isRace = runId >= (look?.runs ?? Number.POSITIVE_INFINITY);
        if (objection !== undefined && !isRace) {
          history.complain(`${shortName(taskId)}/${runId}: ${objection}`);
        }
        // Nor than to find it unclaimed then.
        if (wasOurs && look?.last?.state !== 'pending') {
          artifacts.onEnding(ending);
        }
      }
      prompt.onEnding(ending);
      endings.push(ending);
    },
    onWrite(row) {
      if (row.state === 'intended' && (runs.get(row.id) ?? row.runId) !== row.runId) {
        carried.add(row.externalId);
      }
      runs.set(row.id, row.runId);
      if (row.state === 'closed') {
        checkResolution(row);
      }
      const now = scheduler.now() + latestOffset() + READING_MS;
      if (row.state !== 'closed' && row.nextCheckAt > now + MAX_WAIT_MS) {
        history.complain(`${shortName(row.taskId)} is to be looked at in ${row.nextCheckAt - scheduler.now()} ms only`);
      }
      if (row.leaseUntil > now + LEASE_MS) {
        history.complain(`${shortName(row.taskId)} is leased for ${row.leaseUntil - scheduler.now()} ms`);
      }
    },
    onOverwritten(row, by) {
      history.complain(
        `the mapping of ${shortName(row.taskId)} is ${row.leaseOwner ?? 'nobody'}'s, and was written by ${by.leaseOwner ?? 'nobody'}`,
      );
    },
    onPruned(rows) {
      prompt.onPruned(rows);
      for (const { taskId, runId } of rows) {
        history.fault('mapping pruned');
        const run = queue().view(taskId)?.runs[runId];
        if (run?.state === 'running' && run.workerId === WORKER.workerId) {
          history.complain(`the mapping of ${shortName(taskId)}/${runId} is pruned, and the run is still claimed`);
        }
        const left = master().requests.find(
          (request) => request.taskId === taskId && request.runId <= runId && isOpen(request) && !zombies.has(request),
        );
        if (left !== undefined) {
          history.complain(`the mapping of ${shortName(taskId)}/${runId} is pruned, and #${left.id} is open`);
        }
      }
    },
    onTrace: traces.onTrace,
    isInTime(host, taskId) {
      const renewed = renewals.get(`${host.name} ${taskId}`);
      return renewed === undefined || !(host.hasSleptSince(renewed) || scheduler.now() - renewed > LEASE_MS);
    },
    onEffect(host, call) {
      claims.onEffect(host, call);
      prompt.onEffect(host, call);
      const { method, taskId, service, isChange, about } = call;
      called.add(`${method} ${taskId}`);
      if (method === 'cancel') {
        checkCancel(Number(about.slice(1)));
      } else if (method === 'rerunTask' && taskId !== undefined) {
        checkRerun(taskId, call);
      }
      const isAboutTask = isChange && taskId !== undefined && (service === 'queue' || method === 'insert');
      if (isAboutTask && queue().view(taskId)?.runs.length === 0) {
        history.complain(`${service}.${method} was called for ${shortName(taskId)}, which is unscheduled`);
      }
      if (method === 'renewLease' && taskId !== undefined) {
        renewals.set(`${host.name} ${taskId}`, scheduler.now());
      }
    },
    onSubmitted(host, request, wasSentInTime) {
      if (seen.has(request)) {
        return;
      }
      seen.add(request);
      const flavour = flavours.get(shortName(request.taskId ?? ''));
      if (flavour !== undefined && !isBuildable(flavour)) {
        history.complain(`#${request.id} was made for ${shortName(request.taskId ?? '')}, which is ${flavour}`);
      }
      if (request.taskId !== null && queue().view(request.taskId)?.runs.length === 0) {
        history.complain(`#${request.id} was made for ${shortName(request.taskId)}, which is unscheduled`);
      }
      if (!wasSentInTime || (wasPutForward() && isOneMore(request))) {
        history.note(host.name, `made #${request.id} although its lease may have been over`);
        history.fault('submission by a zombie');
        zombies.set(request, host);
        checkZombie(request);
        return;
      }
      checkSecond(request);
      checkCollapse(request);
    },
    onDelivered(host, message) {
      if (observers.has(host)) {
        history.complain(`${host.name} only observes, and takes a message`);
      }
      const parsed: unknown = JSON.parse(message.body.toString());
      const taskId = taskIdOf(parsed);
      const key = `${host.name} ${taskId}`;
      const before = looks.get(key) ?? 0;
      return () => {
        if ((looks.get(key) ?? 0) === before) {
          history.complain(
            `a message about ${shortName(taskId)} was acknowledged by ${host.name} without a look at it`,
          );
        }
      };
    },
    onCall(host, call) {
      artifacts.onCall(host, call);
      claims.onCall(host, call);
      traces.onCall(host, call);
      prompt.onCall(host, call);
      const { method, taskId, service, isChange } = call;
      // But for a sign of life.
      if (isChange && method !== 'heartbeat' && observers.has(host)) {
        history.complain(`${host.name} only observes, and calls ${service}.${method}`);
      }
      if (method === 'submit' && taskId !== undefined) {
        checkRenewed(host, taskId);
      }
      if (service === 'queue' && taskId !== undefined) {
        const key = `${host.name} ${taskId}`;
        const seen = lastStatus.get(key);
        // Whoever slept since has to look again.
        const look = seen !== undefined && scheduler.now() - seen.at <= LEASE_MS ? seen : undefined;
        if (method === 'rerunTask') {
          askedToRerun.set(call, (look?.last ?? lastRunOf(taskId))?.reasonResolved);
        } else if (method === 'cancelTask') {
          if (look === undefined) {
            lastLook.delete(taskId);
          } else {
            lastLook.set(taskId, look);
          }
        }
        lastStatus.delete(key);
        if (method === 'status') {
          const last = lastRunOf(taskId);
          lastStatus.set(key, {
            at: scheduler.now(),
            runs: queue().view(taskId)?.runs.length ?? 0,
            last: last && { ...last },
          });
        }
      }
      if (method === 'lease' && taskId !== undefined) {
        const key = `${host.name} ${taskId}`;
        looks.set(key, (looks.get(key) ?? 0) + 1);
      }
    },
    onFailedCall(host, call, error) {
      artifacts.onFailed(host, call, error);
      prompt.onEnd(call);
      deeds.onFailed(host, call);
    },
    onAnswered(host, call, answer) {
      if (call.method === 'renewLease') {
        heardRenewals.set(`${host.name} ${call.taskId}`, scheduler.now());
      }
      artifacts.onAnswered(host, call, answer);
      prompt.onEnd(call);
      deeds.onAnswered(host, call, answer);
    },
    untold: deeds.untold,
  };
}

function taskIdOf(payload: unknown): string {
  const status = typeof payload === 'object' && payload !== null && 'status' in payload ? payload.status : undefined;
  const taskId = typeof status === 'object' && status !== null && 'taskId' in status ? status.taskId : undefined;
  return String(taskId);
}
