/** Ports of which a test says only what it needs; any other call fails the test. */

import type { Broker, LegacyCi, SubscriptionOptions, TaskQueue } from '../../src/ports.ts';
import type { Effort } from '../../src/reflector/upload.ts';
import { POLICY } from './builders.ts';

function unexpected(what: string): never {
  throw new Error(`${what} was not expected to be called`);
}

export function aQueue(methods: Partial<TaskQueue> = {}): TaskQueue {
  return {
    taskQueueId: POLICY.taskQueueId,
    workerGroup: POLICY.workerGroup,
    workerId: POLICY.workerId,
    status: () => unexpected('status'),
    statuses: () => unexpected('statuses'),
    task: () => unexpected('task'),
    claim: () => unexpected('claim'),
    reclaim: () => unexpected('reclaim'),
    resolve: () => unexpected('resolve'),
    cancelTask: () => unexpected('cancelTask'),
    rerunTask: () => unexpected('rerunTask'),
    putArtifact: () => unexpected('putArtifact'),
    listPending: () => unexpected('listPending'),
    listClaimed: () => unexpected('listClaimed'),
    expandScopes: () => unexpected('expandScopes'),
    ...methods,
  };
}

export function aLegacyCi(methods: Partial<LegacyCi> = {}): LegacyCi {
  return {
    check: () => unexpected('check'),
    builders: () => unexpected('builders'),
    problems: () => unexpected('problems'),
    collapseKey: () => unexpected('collapseKey'),
    submit: () => unexpected('submit'),
    findByExternalId: () => unexpected('findByExternalId'),
    readMany: () => unexpected('readMany'),
    cancel: () => unexpected('cancel'),
    outcome: () => unexpected('outcome'),
    watch: () => unexpected('watch'),
    close: () => unexpected('close'),
    ...methods,
  };
}

/** One that delivers nothing by itself: the test has what was subscribed. */
export function aBroker(onSubscribe: (options: SubscriptionOptions) => void): Broker {
  return {
    subscribe(options) {
      onSubscribe(options);
      return { start: async () => undefined, stop: async () => undefined };
    },
    close: async () => undefined,
  };
}

/** An upload that has all the time that it needs. */
export function anEffort(isLastTry: boolean): Effort {
  const { signal } = new AbortController();
  return { isLastTry: () => isLastTry, time: { forArtifacts: signal, forStandIns: signal } };
}
