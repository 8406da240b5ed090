/**
 * What an operator's Prometheus sees of a process; docs/operations.md says what each figure means. No label has more
 * than some twenty values, and every series is there from the start.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import { OPEN_STATES } from './domain/mapping.ts';
import type { PulseStatus } from './listeners/pulse-broker.ts';
import { INPUT_SOURCES, type InputCounter, MESSAGE_SOURCES, type Overview } from './ports.ts';
import { ACTION_KINDS, type ActionKind } from './reflector/actions.ts';
import { PASS_RESULTS, type PassResult } from './reflector/reconcile.ts';
import type { RoundReport } from './reflector/reflector.ts';

/** What is read when somebody asks. Times are UTC milliseconds. */
export interface Readings {
  readonly now: number;
  /** Undefined while the database does not answer, or cannot be written. */
  readonly mappings: Overview | undefined;
  readonly workQueue: { readonly size: number; readonly oldestAgeMs: number; readonly parked: number };
  /** Undefined before the first one has ended, and where no reflector runs. */
  readonly round: RoundReport | undefined;
  /** Undefined where nothing listens to Pulse. */
  readonly pulse: Pick<PulseStatus, 'isConnected' | 'isConsuming' | 'reconnects'> | undefined;
}

export interface Exposition {
  readonly contentType: string;
  readonly body: string;
}

export interface Metrics {
  readonly inputs: InputCounter;
  /** To be called at the end of each pass. */
  onPass(result: PassResult['kind']): void;
  /** To be called for each action that was carried out. */
  onAction(kind: ActionKind): void;
  /** All of it in Prometheus' text format. */
  expose(readings: Readings): Promise<Exposition>;
}

/** The figures of one process: they are nobody else's, so that several can stand side by side. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const counts = createCounts(registry);
  const setGauges = createGauges(registry);
  return {
    inputs: {
      received: (source) => counts.received.inc({ source }),
      rejected: (source) => counts.rejected.inc({ source }),
    },
    onPass: (result) => counts.passes.inc({ result }),
    onAction: (action) => counts.actions.inc({ action }),
    async expose(readings) {
      setGauges(readings);
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}

function createCounts(registry: Registry) {
  function counter<L extends string>(name: string, help: string, label: L, values: readonly string[]): Counter<L> {
    const made = new Counter({ name, help, labelNames: [label], registers: [registry] });
    for (const value of values) {
      made.labels(value).inc(0);
    }
    return made;
  }
  return {
    received: counter('bbb_messages_received_total', 'Messages that came, read or not.', 'source', MESSAGE_SOURCES),
    rejected: counter('bbb_inputs_rejected_total', 'Inputs that could not be read.', 'source', INPUT_SOURCES),
    passes: counter('bbb_passes_total', 'Looks at a task, by how they ended.', 'result', PASS_RESULTS),
    actions: counter('bbb_actions_total', 'Actions carried out.', 'action', ACTION_KINDS),
  };
}

/** What cannot be known at the moment is NaN, with which no comparison holds: a figure of long ago would deceive. */
function createGauges(registry: Registry): (readings: Readings) => void {
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers: [registry] });
  const databaseUp = gauge('bbb_database_up', 'Whether the database answered this scrape, and can be written.');
  const mappings = new Gauge({
    name: 'bbb_mappings',
    help: 'Open mappings of all instances.',
    labelNames: ['state'],
    registers: [registry],
  });
  const failing = gauge('bbb_mappings_failing', 'Open mappings that failed at least five times in a row.');
  const claimLeft = gauge('bbb_claim_seconds_left', 'Until the takenUntil of the claim that ends first; NaN for none.');
  const queued = gauge('bbb_work_queue_tasks', 'Tasks that wait or are being looked at, but for parked ones.');
  const oldest = gauge('bbb_work_queue_oldest_seconds', 'Since the longest waiting of them was asked for.');
  const parked = gauge('bbb_work_queue_parked', 'Tasks that fail again and again, for which no message is held.');
  const roundEnd = gauge('bbb_round_end_timestamp_seconds', 'When the last round of the reflector ended; 0 for never.');
  const roundDuration = gauge('bbb_round_duration_seconds', 'How long it took.');
  const roundDue = gauge('bbb_round_due', 'Due mappings that it took.');
  const connected = gauge('bbb_pulse_connected', 'Whether Pulse is connected.');
  const consuming = gauge('bbb_pulse_consuming', 'Whether every queue of this process is being consumed.');
  const reconnects = new Counter({
    name: 'bbb_pulse_reconnects_total',
    help: 'How often a connection to Pulse was lost.',
    registers: [registry],
  });
  return ({ now, mappings: overview, workQueue, round, pulse }) => {
    databaseUp.set(Number(overview !== undefined));
    for (const state of OPEN_STATES) {
      mappings.set({ state }, overview?.byState[state] ?? Number.NaN);
    }
    failing.set(overview?.failing ?? Number.NaN);
    const takenUntil = overview?.nearestTakenUntil ?? null;
    claimLeft.set(takenUntil === null ? Number.NaN : (takenUntil - now) / 1000);
    queued.set(workQueue.size);
    oldest.set(workQueue.oldestAgeMs / 1000);
    parked.set(workQueue.parked);
    roundEnd.set((round?.endedAt ?? 0) / 1000);
    roundDuration.set((round?.durationMs ?? 0) / 1000);
    roundDue.set(round?.due ?? 0);
    connected.set(Number(pulse?.isConnected ?? false));
    consuming.set(Number(pulse?.isConsuming ?? false));
    // Counted elsewhere.
    reconnects.reset();
    reconnects.inc(pulse?.reconnects ?? 0);
  };
}
