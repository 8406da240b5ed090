/** The emulated master: requests are claimed, built, retried, cancelled and collapsed as a real one does it. */
import type { Clock } from '../../ports.ts';
import {
  type Attempt,
  type BuildbotVersion,
  type BuilderOptions,
  type BuildRecord,
  type BuildsetRecord,
  createState,
  type MasterState,
  type Properties,
  type RequestRecord,
  type SourcestampRecord,
  type StepRecord,
} from './state.ts';

const [SUCCESS, SKIPPED, RETRY, CANCELLED] = [0, 3, 5, 6] as const;
/** What a build is called when it ends by itself, by its results. */
const ENDINGS = ['build successful', 'warnings', 'failed', 'finished (skipped)', 'exception', 'retry', 'cancelled'];
const STATE_STRINGS = ['preparing worker', 'pinging worker', 'acquiring locks', 'building'] as const;
const MASTER_ID = 1;

export interface MasterOptions {
  readonly clock: Clock;
  readonly builders: readonly BuilderOptions[];
  /** From 4.x on a cancel is answered before it has taken effect. */
  readonly version: BuildbotVersion;
  /** An event as the WebSocket shows it. */
  readonly emit: (key: string, message: unknown) => void;
}

type Sourcestamp = Pick<SourcestampRecord, 'branch' | 'revision' | 'project' | 'repository'>;

export interface ForceRequest {
  readonly builder: string;
  /** The ForceScheduler's name. */
  readonly scheduler: string;
  readonly reason: string;
  readonly priority: number;
  readonly sourcestamp: Sourcestamp;
  readonly properties: Properties;
}

/** A build that runs, and how to end it. */
interface Running {
  readonly build: BuildRecord;
  readonly attempt: Attempt;
  readonly stop: AbortController;
}

export interface Master {
  readonly state: MasterState;
  builderId(name: string): number | undefined;
  builders(): readonly { readonly builderid: number; readonly name: string; readonly workers: readonly string[] }[];
  workers(): readonly { readonly workerid: number; readonly name: string; readonly isConnected: boolean }[];
  /** A repository tells of a change; no scheduler of its own hears of it. */
  addChange(change: Sourcestamp): void;
  force(request: ForceRequest): { readonly bsid: number; readonly buildrequestid: number; readonly builderid: number };
  cancelRequest(buildrequestid: number, reason: string): void;
  stopBuild(buildid: number, reason: string): void;
  /** Ends the running build of a request, by its own script if no results are given. */
  finishBuild(buildrequestid: number, results?: number): void;
  loseWorker(name: string): void;
  connectWorker(name: string): void;
  /** Running builds are cancelled; nothing starts until `resume`. */
  shutdown(): void;
  /** Nothing is said; what ran is found lost at `resume`. */
  kill(): void;
  resume(): void;
}

export function createMaster({ clock, builders, version, emit }: MasterOptions): Master {
  const state = createState();
  const changes: Sourcestamp[] = [];
  const running = new Map<number, Running>();
  const workerNames = [...new Set(builders.flatMap((builder) => builder.workers))];
  const connected = new Set(workerNames);
  let isUp = true;

  const seconds = () => Math.floor(clock.now() / 1000);
  const builderOf = (id: number) => builders[id - 1];

  function force(wish: ForceRequest): { bsid: number; buildrequestid: number; builderid: number } {
    const bsid = state.buildsets.length + 1;
    const builderid = builders.findIndex(({ name }) => name === wish.builder) + 1;
    const submitted = seconds();
    // As recorded: older ones are out of the way before the new buildset is announced.
    collapseOlder(builderid, wish.sourcestamp);
    const buildset = {
      bsid,
      external_idstring: null,
      reason: wish.reason,
      submitted_at: submitted,
      complete: false,
      complete_at: null,
      results: null,
      sourcestamps: [{ ssid: bsid, ...wish.sourcestamp, codebase: '', created_at: submitted, patch: null }],
      parent_buildid: null,
      parent_relationship: null,
    };
    state.buildsets.push(buildset);
    state.buildsetProperties.set(bsid, wish.properties);
    emit(`buildsets/${bsid}/new`, { ...announced(buildset), scheduler: wish.scheduler });
    const request: RequestRecord = {
      buildrequestid: state.requests.length + 1,
      buildsetid: bsid,
      builderid,
      priority: wish.priority,
      claimed: false,
      claimed_at: null,
      claimed_by_masterid: null,
      complete: false,
      results: -1,
      submitted_at: submitted,
      complete_at: null,
      waited_for: false,
      properties: null,
    };
    state.requests.push(request);
    emit(`buildrequests/${request.buildrequestid}/new`, { ...request });
    claimSome();
    return { bsid, buildrequestid: request.buildrequestid, builderid };
  }

  /** Whatever their properties say: only builder and sourcestamp count. */
  function collapseOlder(builderid: number, source: Sourcestamp): void {
    if (builderOf(builderid)?.collapse === false) {
      return;
    }
    for (const older of state.requests) {
      const stamp = state.buildsets[older.buildsetid - 1]?.sourcestamps[0];
      if (!older.claimed && !older.complete && older.builderid === builderid && stamp && canCollapse(stamp, source)) {
        claim(older);
        complete(older, SKIPPED);
      }
    }
  }

  /** Read in its source: where changes tell of both, their revisions may differ. */
  function canCollapse(older: Sourcestamp, newer: Sourcestamp): boolean {
    const isToldOf = (stamp: Sourcestamp) => changes.some((change) => isSame(change, stamp, true));
    return isSame(older, newer, !isToldOf(newer)) && isToldOf(older) === isToldOf(newer);
  }

  /** A pending request that is cancelled is claimed without a word. */
  function completeUnbuilt(request: RequestRecord | undefined): void {
    if (request && !request.complete && !runningOf(request.buildrequestid)) {
      Object.assign(request, { claimed: true, claimed_at: seconds(), claimed_by_masterid: MASTER_ID });
      complete(request, CANCELLED);
    }
  }

  function claim(request: RequestRecord): void {
    request.claimed = true;
    request.claimed_at = seconds();
    request.claimed_by_masterid = MASTER_ID;
    emit(`buildrequests/${request.buildrequestid}/claimed`, { ...request });
  }

  function complete(request: RequestRecord, results: number): void {
    request.complete = true;
    request.complete_at = seconds();
    request.results = results;
    emit(`buildrequests/${request.buildrequestid}/complete`, { ...request });
    const buildset = state.buildsets[request.buildsetid - 1];
    if (buildset) {
      buildset.complete = true;
      buildset.complete_at = seconds();
      // As recorded: what was collapsed counts as well done.
      buildset.results = results === SKIPPED ? SUCCESS : results;
      emit(`buildsets/${buildset.bsid}/complete`, announced(buildset));
    }
  }

  /** Starts what can be started, highest priority and oldest first. */
  function claimSome(): void {
    const open = state.requests
      .filter((request) => !request.claimed && !request.complete)
      .sort((a, b) => b.priority - a.priority || a.buildrequestid - b.buildrequestid);
    for (const request of isUp ? open : []) {
      const worker = builderOf(request.builderid)?.workers.find((name) => connected.has(name));
      if (worker !== undefined) {
        claim(request);
        void build(request, worker);
      }
    }
  }

  async function build(request: RequestRecord, worker: string): Promise<void> {
    const options = builderOf(request.builderid);
    const before = state.builds.filter(({ buildrequestid }) => buildrequestid === request.buildrequestid).length;
    const attempt = options?.attempts[Math.min(before, options.attempts.length - 1)];
    if (!options || !attempt) {
      return;
    }
    const record: BuildRecord = {
      buildid: state.builds.length + 1,
      number: state.builds.filter(({ builderid }) => builderid === request.builderid).length + 1,
      builderid: request.builderid,
      buildrequestid: request.buildrequestid,
      workerid: workerNames.indexOf(worker) + 1,
      masterid: MASTER_ID,
      started_at: seconds(),
      complete_at: null,
      complete: false,
      state_string: 'starting',
      results: null,
      properties: {},
    };
    state.builds.push(record);
    state.buildProperties.set(record.buildid, propertiesOf(request, record, options.name, worker, attempt));
    const entry: Running = { build: record, attempt, stop: new AbortController() };
    running.set(record.buildid, entry);
    emit(`builds/${record.buildid}/update`, { ...record });
    emit(`builds/${record.buildid}/new`, { ...record });
    for (const text of STATE_STRINGS) {
      say(record, text);
    }
    addStep(record, 'worker_preparation', undefined, SUCCESS, `worker ${worker} ready`);
    const steps = attempt.steps ?? [{ name: 'shell' }];
    const [open] = steps.map((step) => addStep(record, step.name, step.log, null, `'${step.name}'`)).slice(-1);
    await clock.sleep(attempt.durationMs === 'wait' ? 2 ** 31 - 1 : attempt.durationMs, entry.stop.signal);
    if (!entry.stop.signal.aborted) {
      end(entry, attempt.results, endingOf(attempt.results, open));
    }
  }

  function endingOf(results: number, step: StepRecord | undefined): string {
    const ending = ENDINGS[results] ?? 'finished';
    return results === SUCCESS ? ending : `${ending} '${step?.name ?? 'build'}'`;
  }

  function say(record: BuildRecord, text: string): void {
    record.state_string = text;
    emit(`builds/${record.buildid}/update`, { ...record });
  }

  function addStep(
    record: BuildRecord,
    name: string,
    log: string | undefined,
    results: number | null,
    text: string,
  ): StepRecord {
    const step: StepRecord = {
      stepid: state.steps.length + 1,
      buildid: record.buildid,
      number: state.steps.filter(({ buildid }) => buildid === record.buildid).length,
      name,
      started_at: seconds(),
      complete_at: results === null ? null : seconds(),
      complete: results !== null,
      state_string: text,
      results,
      hidden: false,
      urls: [],
    };
    state.steps.push(step);
    if (log !== undefined) {
      addLog(step, 'stdio', 's', log);
    }
    return step;
  }

  function addLog({ stepid }: StepRecord, name: string, type: 's' | 't', text: string): void {
    const logid = state.logs.length + 1;
    const lines = text.split('\n').length - 1;
    state.logs.push({ logid, stepid, name, slug: name, type, complete: true, num_lines: lines });
    state.logTexts.set(logid, text);
  }

  /** The step that is interrupted has the reason in a log, in every version. */
  function stop(entry: Running, reason: string): void {
    const { buildid } = entry.build;
    const [open] = state.steps.filter((step) => step.buildid === buildid && !step.complete).slice(-1);
    if (open) {
      addLog(open, 'cancelled', 't', `${reason}\n`);
    }
    const isSaid = version === '3.7' || version === '4.3';
    end(entry, CANCELLED, `cancelled${isSaid ? ` (${reason})` : ''} 'build' (cancelled)`);
  }

  /** The build is over: RETRY puts its request back, anything else completes it. */
  function end(entry: Running, results: number, text: string): void {
    const record = entry.build;
    if (!running.delete(record.buildid)) {
      return;
    }
    entry.stop.abort();
    closeSteps(record, results);
    say(record, text);
    record.complete = true;
    record.complete_at = seconds();
    record.results = results;
    emit(`builds/${record.buildid}/finished`, { ...record });
    const request = state.requests[record.buildrequestid - 1];
    if (!request) {
      return;
    }
    if (results === RETRY) {
      unclaim(request);
      // A master takes a moment before it tries the same request again.
      void clock.sleep(100).then(claimSome);
    } else {
      complete(request, results);
    }
  }

  function unclaim(request: RequestRecord): void {
    request.claimed = false;
    request.claimed_at = null;
    request.claimed_by_masterid = null;
    emit(`buildrequests/${request.buildrequestid}/unclaimed`, { ...request });
  }

  function closeSteps(record: BuildRecord, results: number): void {
    for (const step of state.steps.filter(({ buildid, complete: isOver }) => buildid === record.buildid && !isOver)) {
      step.complete = true;
      step.complete_at = seconds();
      step.results = results;
    }
  }

  function runningOf(buildrequestid: number): Running | undefined {
    return [...running.values()].find((entry) => entry.build.buildrequestid === buildrequestid);
  }

  function propertiesOf(
    request: RequestRecord,
    record: BuildRecord,
    builder: string,
    worker: string,
    attempt: Attempt,
  ): Properties {
    const stamp = state.buildsets[request.buildsetid - 1]?.sourcestamps[0];
    const own = Object.entries(attempt.properties ?? {}).map(([name, value]) => [name, [value, 'SetProperty']]);
    const given = state.buildsetProperties.get(request.buildsetid) ?? {};
    return {
      ...given,
      branch: [stamp?.branch ?? null, 'Build'],
      builddir: [`/srv/buildbot/worker/${builder}`, 'Worker'],
      buildername: [builder, 'Builder'],
      buildnumber: [record.number, 'Build'],
      codebase: ['', 'Build'],
      owners: [[given.owner?.[0]], 'Build'],
      project: [stamp?.project ?? '', 'Build'],
      repository: [stamp?.repository ?? '', 'Build'],
      revision: [stamp?.revision ?? null, 'Build'],
      workername: [worker, 'Worker'],
      ...Object.fromEntries(own),
    };
  }

  return {
    state,
    builderId: (name) => builders.findIndex((builder) => builder.name === name) + 1 || undefined,
    builders: () => builders.map(({ name, workers }, index) => ({ builderid: index + 1, name, workers })),
    workers: () =>
      workerNames.map((name, index) => ({ workerid: index + 1, name, isConnected: isUp && connected.has(name) })),
    addChange: (change) => void changes.push(change),
    force,
    cancelRequest(buildrequestid, reason) {
      const request = state.requests[buildrequestid - 1];
      const entry = runningOf(buildrequestid);
      if (entry) {
        stop(entry, reason);
      } else if (request === undefined) {
        emit(`buildrequests/${buildrequestid}/cancel`, null);
      } else if (version === '4.3') {
        void clock.sleep(5).then(() => {
          completeUnbuilt(request);
          emit(`buildrequests/${buildrequestid}/cancel`, null);
        });
      } else {
        completeUnbuilt(request);
        const { properties: _, ...shown } = request;
        emit(`buildrequests/${buildrequestid}/cancel`, { ...shown, buildername: builderOf(request.builderid)?.name });
      }
    },
    stopBuild(buildid, reason) {
      const entry = running.get(buildid);
      if (entry) {
        stop(entry, reason);
      }
    },
    finishBuild(buildrequestid, results) {
      const entry = runningOf(buildrequestid);
      if (entry) {
        const code = results ?? entry.attempt.results;
        end(entry, code, endingOf(code, undefined));
      }
    },
    loseWorker(name) {
      connected.delete(name);
      const workerid = workerNames.indexOf(name) + 1;
      for (const entry of [...running.values()].filter(({ build: record }) => record.workerid === workerid)) {
        end(entry, RETRY, 'retry lost connection to the worker');
      }
    },
    connectWorker(name) {
      connected.add(name);
      claimSome();
    },
    shutdown() {
      isUp = false;
      for (const entry of [...running.values()]) {
        stop(entry, 'Master Shutdown');
      }
    },
    kill() {
      isUp = false;
      for (const entry of running.values()) {
        entry.stop.abort();
      }
    },
    resume() {
      isUp = true;
      for (const { build: record } of running.values()) {
        // Found unfinished in the database: no `finished` event is ever sent for it.
        Object.assign(record, { complete: true, complete_at: seconds(), results: RETRY });
        closeSteps(record, RETRY);
        const request = state.requests[record.buildrequestid - 1];
        if (request && !request.complete) {
          unclaim(request);
        }
      }
      running.clear();
      claimSome();
    },
  };
}

function isSame(a: Sourcestamp, b: Sourcestamp, andRevision: boolean): boolean {
  const key = (stamp: Sourcestamp) =>
    JSON.stringify([stamp.repository, stamp.branch, stamp.project, andRevision ? stamp.revision : null]);
  return key(a) === key(b);
}

/** Events leave out where a buildset comes from. */
function announced(buildset: BuildsetRecord): object {
  const { parent_buildid: _id, parent_relationship: _relationship, ...shown } = buildset;
  return shown;
}
