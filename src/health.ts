/** What `/readyz` and `/metrics` say of a process: in bounded time, whatever has hung. */
import type { Bridge } from './bridge.ts';
import type { WriteWatch } from './db/write-watch.ts';
import { describeError } from './errors.ts';
import type { Check } from './http/server.ts';
import type { PulseBroker, PulseStatus } from './listeners/pulse-broker.ts';
import type { Exposition, Metrics } from './metrics.ts';
import type { Clock, MappingStore } from './ports.ts';

export interface HealthOptions {
  readonly store: Pick<MappingStore, 'overview'>;
  readonly writes: Pick<WriteWatch, 'isFailing'>;
  readonly bridge: Pick<Bridge, 'workQueue' | 'reflector' | 'heartbeat'>;
  /** Undefined where nothing of this process listens to Pulse. */
  readonly pulse: Pick<PulseBroker, 'status'> | undefined;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** How long a database may take to answer. */
  readonly probeMs?: number;
}

export interface Health {
  ready(): Promise<readonly Check[]>;
  metrics(): Promise<Exposition>;
}

/** Less than a prober or a scraper waits for. */
const PROBE_MS = 3000;

export function createHealth(options: HealthOptions): Health {
  const { store, writes, bridge, pulse, metrics, clock, probeMs = PROBE_MS } = options;
  const overview = createProbe(
    async () => {
      // A database that takes no writes may answer all the same. Whether it still does not is seen by writing only.
      if (writes.isFailing()) {
        await bridge.heartbeat();
      }
      return store.overview();
    },
    clock,
    probeMs,
  );
  return {
    async ready() {
      const database = await databaseCheck(overview);
      return pulse === undefined ? [database] : [database, pulseCheck(pulse.status())];
    },
    async metrics() {
      const mappings = await overview().catch(() => undefined);
      return metrics.expose({
        now: clock.now(),
        mappings,
        workQueue: {
          size: bridge.workQueue.size(),
          oldestAgeMs: bridge.workQueue.oldestAgeMs(),
          parked: bridge.workQueue.parked(),
        },
        round: bridge.reflector.report(),
        pulse: pulse?.status(),
      });
    },
  };
}

/**
 * Reads something that may hang. Whoever asks meanwhile waits for the same answer: however often a hanging server is
 * asked about, one question is under way.
 */
function createProbe<T>(read: () => Promise<T>, clock: Clock, timeoutMs: number): () => Promise<T> {
  let underWay: Promise<T> | undefined;
  return async () => {
    underWay ??= read().finally(() => {
      underWay = undefined;
    });
    const answered = new AbortController();
    const silence = clock.sleep(timeoutMs, answered.signal).then(() => {
      throw new Error(`no answer for ${timeoutMs / 1000} s`);
    });
    try {
      return await Promise.race([underWay, silence]);
    } finally {
      answered.abort();
      silence.catch(() => undefined);
      underWay?.catch(() => undefined);
    }
  };
}

async function databaseCheck(overview: () => ReturnType<MappingStore['overview']>): Promise<Check> {
  try {
    return { name: 'database', isOk: true, detail: JSON.stringify((await overview()).byState) };
  } catch (error) {
    return { name: 'database', isOk: false, detail: describeError(error) };
  }
}

function pulseCheck({ isConnected, isConsuming, lastError }: PulseStatus): Check {
  const isOk = isConnected && isConsuming;
  const state = isConnected ? 'connected, but not consuming' : 'not connected';
  return { name: 'pulse', isOk, detail: isOk ? 'consuming' : `${state}: ${lastError ?? 'no answer yet'}` };
}
