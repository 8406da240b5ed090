/** What the bridge did for tasks, and whether their traces tell of it. */
import type { Call, Host } from './host.ts';
import { shortName } from './names.ts';
import type { Scheduler } from './scheduler.ts';
import { LEASE_MS } from './settings.ts';
import type { StoreState } from './store-state.ts';

export interface Deeds {
  /** A process hears that its call had its effect. */
  onAnswered(host: Host, call: Call, answer: unknown): void;
  /** A process hears of no effect of its call. */
  onFailed(host: Host, call: Call): void;
  /** What no trace tells of although nothing kept the bridge from writing it. */
  untold(): readonly string[];
}

interface Deed {
  readonly host: Host;
  readonly taskId: string;
  /** Undefined for what is about a task and not about a run. */
  readonly runId: number | undefined;
  /** As the trace has it. */
  readonly what: string;
}

/** By the call that does it. */
const NAMES: Readonly<Record<string, string>> = {
  claim: 'claimRun',
  resolve: 'resolveRun',
  cancelTask: 'cancelTask',
  rerunTask: 'rerunTask',
  submit: 'submit',
};

/**
 * That a cancel was asked for is what the mapping says, which counts them: a withdrawal, beside the passes, asks for one
 * that no mapping knows.
 */
const CANCELS = /\bcancels=(\d+)/;
/** The trace does not tell of more. */
const TOLD_CANCELS = 10;

/** What is told of the mapping's run, whatever the call was about. */
const RUN_OF_MAPPING = new Set(['submit', 'rerunTask', 'cancelRequest']);

/** For so long after its sleep a process may be looking at one task in two passes, whose deeds cannot be told apart. */
const AWAKE_MS = 2 * LEASE_MS;

export function createDeeds(store: () => StoreState, { now }: Pick<Scheduler, 'now'>): Deeds {
  /** By process and task: what was done, while the mapping does not say so. Without that it is no part of a trace. */
  const begun = new Map<string, Deed>();
  const owed = new Set<Deed>();

  function isTold({ host, taskId, runId, what }: Deed): boolean {
    return store().events.some(
      (event) =>
        event.taskId === taskId &&
        event.instance === host.name &&
        event.what === what &&
        (runId === undefined || event.runId === runId),
    );
  }

  /** @param isLost whether it is not known that the trace was written */
  function settle(host: Host, taskId: string, isLost: boolean): void {
    for (const deed of owed) {
      if (deed.host === host && deed.taskId === taskId && (isLost || isTold(deed))) {
        owed.delete(deed);
      }
    }
  }

  /** What a later pass writes is no part of this one. */
  function forgetAtEnd(key: string, method: string): void {
    if (method === 'addEvents' || method === 'lease') {
      begun.delete(key);
    }
  }

  return {
    onAnswered(host, { method, taskId, about }, answer) {
      if (taskId === undefined) {
        return;
      }
      const key = `${host.name} ${taskId}`;
      const what = NAMES[method];
      if (what !== undefined) {
        begun.set(key, { host, taskId, runId: runIn(about), what });
      } else if (method === 'update') {
        const deed = isToldCancel(about) ? { host, taskId, runId: undefined, what: 'cancelRequest' } : begun.get(key);
        begun.delete(key);
        const runId = storedRun(answer);
        if (deed !== undefined && runId !== undefined && !host.hasSleptSince(now() - AWAKE_MS)) {
          // What was to be submitted for one run may be so for the next, under the same external id.
          owed.add(RUN_OF_MAPPING.has(deed.what) ? { ...deed, runId } : deed);
        }
      } else if (method === 'addEvents') {
        settle(host, taskId, false);
      }
      forgetAtEnd(key, method);
    },
    onFailed(host, { method, taskId }) {
      if (taskId === undefined) {
        return;
      }
      const key = `${host.name} ${taskId}`;
      if (method === 'update') {
        begun.delete(key);
      } else if (method === 'addEvents') {
        settle(host, taskId, true);
      }
      forgetAtEnd(key, method);
    },
    untold: () =>
      [...owed]
        .filter(({ host }) => host.isAlive())
        .map(
          ({ host, taskId, runId, what }) =>
            `no trace tells of ${what} by ${host.name} for ${shortName(taskId)}${runId === undefined ? '' : `/${runId}`}`,
        ),
  };
}

/** Whether an update of a mapping notes a cancel that the trace has to tell of. */
function isToldCancel(update: string): boolean {
  const cancels = Number(CANCELS.exec(update)?.[1] ?? 0);
  return cancels > 0 && cancels <= TOLD_CANCELS;
}

/** The run in `<task>/<run>...` */
function runIn(about: string): number | undefined {
  const digits = /\/(\d+)/.exec(about)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** The run of a mapping that was stored; undefined if it was not. */
function storedRun(answer: unknown): number | undefined {
  const mapping = typeof answer === 'object' && answer !== null && 'mapping' in answer ? answer.mapping : undefined;
  const runId = typeof mapping === 'object' && mapping !== null && 'runId' in mapping ? mapping.runId : undefined;
  return typeof runId === 'number' ? runId : undefined;
}
