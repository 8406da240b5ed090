/** A bridge on the emulated queue and the real store, in memory, with a legacy CI that a test makes up. */
import slugid from 'slugid';
import taskcluster from 'taskcluster-client';
import { createBridge, SERVICES, type Service } from '../../src/bridge.ts';
import { createSettableClock, systemClock } from '../../src/clock.ts';
import { LegacyCiError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { createMetrics, type Metrics } from '../../src/metrics.ts';
import type { Broker, LegacyCi, MappingStore, TaskQueue } from '../../src/ports.ts';
import { createInProcessBroker } from '../../src/sandbox/broker.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator } from '../../src/sandbox/queue/emulator.ts';
import type { QueueMessage } from '../../src/sandbox/queue/messages.ts';
import { aRequest, POLICY } from './builders.ts';
import { openMemoryStore } from './memory-store.ts';
import { clientOf } from './queue-client.ts';
import { ROOT_CLIENT, taskAt } from './queue-emulator.ts';
import { aLegacyCi } from './stubs.ts';

export interface Cast {
  readonly wrap?: (store: MappingStore) => MappingStore;
  readonly services?: readonly Service[];
  /** How long claims last; as in production unless given. */
  readonly claimTimeoutMs?: number;
  /** The bridge's client of the queue at this URL. */
  readonly queueOf?: (rootUrl: string) => TaskQueue | Promise<TaskQueue>;
  readonly metrics?: Pick<Metrics, 'inputs'>;
  /** In-process unless given. */
  readonly pulse?: Broker & { publish(message: QueueMessage): void };
}

/**
 * A bridge with all its services, or these.
 * @param undo what is to be undone after the test, the last first
 */
export async function startSmallBridge(undo: (() => unknown)[], ci: Partial<LegacyCi>, cast: Cast = {}) {
  const { wrap = (store: MappingStore) => store, pulse = createInProcessBroker(), queueOf = clientOf } = cast;
  const queue = createQueueEmulator({
    ...{ clock: systemClock, clients: [ROOT_CLIENT], faults: createFaults(), deadlineDelayMs: 0 },
    publish: pulse.publish,
    ...(cast.claimTimeoutMs === undefined ? {} : { claimTimeoutMs: cast.claimTimeoutMs }),
  });
  await queue.start();
  undo.push(() => queue.stop());
  const memory = await openMemoryStore();
  undo.push(() => memory.close());
  const store = wrap(memory);
  const lines: Record<string, unknown>[] = [];
  const client = await queueOf(queue.rootUrl);

  /** One more on the same parts. */
  async function start(services: readonly Service[]) {
    const bridge = createBridge({
      queue: client,
      ci: aLegacyCi({
        builders: async () => new Set(['runtests']),
        problems: async () => [],
        collapseKey: () => null,
        findByExternalId: async () => ({ kind: 'absent' }),
        readMany: async (ids) =>
          new Map(
            ids.map((buildRequestId) => [buildRequestId, { kind: 'present', value: aRequest({ buildRequestId }) }]),
          ),
        cancel: async () => ({ kind: 'asked' }),
        watch: async () => ({ stop: async () => undefined }),
        ...ci,
      }),
      store,
      broker: pulse,
      clock: createSettableClock(systemClock),
      log: createLog({ level: 'debug', destination: { write: (line) => void lines.push(JSON.parse(line)) } }),
      metrics: { ...createMetrics(), ...cast.metrics },
      services,
      instance: services.join(),
      version: 'test',
      rules: { isIgnored: () => false, isRestricted: () => false },
      policy: { ...POLICY, recheckMs: 500 },
      timing: { leaseMs: 3000, submitGraceMs: 300, cancelRetryMs: 300 },
      mode: 'normal',
      schedule: '* * * * * *',
      retentionMs: 3_600_000,
      batchSize: 500,
      concurrency: 16,
      jitterMs: 1,
      tempDir: '/nowhere',
      maxLogSize: 1000,
      random: () => 0.5,
    });
    await bridge.start();
    undo.push(() => bridge.stop());
    return bridge;
  }

  const bridge = await start(cast.services ?? SERVICES);
  const person = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT_CLIENT });
  const create = async (changes: Readonly<Record<string, unknown>> = {}) => {
    const taskId = slugid.nice();
    await person.createTask(taskId, taskAt(Date.now(), changes));
    return taskId;
  };
  return { queue, store, lines, client: person, create, pulse, bridge, start };
}

/** A master that takes the requests of some tasks only. */
export function choking(isPoisoned: (taskId: string) => boolean): Partial<LegacyCi> {
  let last = 0;
  return {
    async submit({ taskId }) {
      if (isPoisoned(taskId)) {
        throw new LegacyCiError('legacy-ci-unavailable', 'the master chokes on it', { isTransient: true });
      }
      last += 1;
      return last;
    },
  };
}
