import { beforeEach, describe, expect, it } from '@jest/globals';
import { createMetrics, type Metrics, type Readings } from '../../src/metrics.ts';

const AT_REST: Readings = {
  now: 1000,
  mappings: {
    byState: { refusing: 0, held: 0, intended: 0, submitted: 0, cancelling: 0 },
    failing: 0,
    nearestTakenUntil: null,
  },
  workQueue: { size: 0, oldestAgeMs: 0, parked: 0 },
  round: undefined,
  pulse: undefined,
};
let metrics: Metrics;
beforeEach(() => {
  metrics = createMetrics();
});

/** The samples by name and labels, as text. */
async function samples(readings: Readings = AT_REST): Promise<Readonly<Record<string, string | undefined>>> {
  const { body } = await metrics.expose(readings);
  const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), line.split(' ').at(-1)]));
}

describe('the metrics', () => {
  it('are all there from the start', async () => {
    const found = await samples();
    const { bbb_claim_seconds_left: claim, bbb_database_up: up, ...others } = found;
    expect([claim, up]).toEqual(['Nan', '1']);
    expect(new Set(Object.values(others))).toEqual(new Set(['0']));
    const names = Object.keys(found);
    expect(names).toEqual(
      expect.arrayContaining([
        'bbb_messages_received_total{source="build-event"}',
        'bbb_inputs_rejected_total{source="legacy-ci-answer"}',
        'bbb_passes_total{result="failed"}',
        'bbb_actions_total{action="submit"}',
        'bbb_mappings{state="held"}',
        'bbb_pulse_reconnects_total',
      ]),
    );
    // Every label value is one of a list: no message can add another.
    expect(names.length).toBeLessThan(60);
  });

  it('count what is counted, for each process by itself', async () => {
    const other = createMetrics();
    other.inputs.rejected('mapping-row');
    metrics.inputs.received('task-message');
    metrics.inputs.received('task-message');
    metrics.inputs.rejected('task-message');
    metrics.onPass('failed');
    metrics.onAction('claimRun');
    expect(await samples()).toMatchObject({
      'bbb_messages_received_total{source="task-message"}': '2',
      'bbb_inputs_rejected_total{source="task-message"}': '1',
      'bbb_inputs_rejected_total{source="mapping-row"}': '0',
      'bbb_passes_total{result="failed"}': '1',
      'bbb_actions_total{action="claimRun"}': '1',
    });
  });

  it('say what was read, in seconds, and count lost connections no twice', async () => {
    const byState = { refusing: 1, held: 2, intended: 3, submitted: 4, cancelling: 5 };
    const readings: Readings = {
      now: 100_000,
      mappings: { byState, failing: 6, nearestTakenUntil: 97_500 },
      workQueue: { size: 7, oldestAgeMs: 8000, parked: 10 },
      round: { endedAt: 90_000, durationMs: 1500, due: 9 },
      pulse: { isConnected: true, isConsuming: false, reconnects: 3 },
    };
    await samples(readings);
    expect(await samples(readings)).toMatchObject({
      'bbb_mappings{state="refusing"}': '1',
      'bbb_mappings{state="cancelling"}': '5',
      bbb_mappings_failing: '6',
      bbb_claim_seconds_left: '-2.5',
      bbb_work_queue_tasks: '7',
      bbb_work_queue_oldest_seconds: '8',
      bbb_work_queue_parked: '10',
      bbb_round_end_timestamp_seconds: '90',
      bbb_round_duration_seconds: '1.5',
      bbb_round_due: '9',
      bbb_pulse_connected: '1',
      bbb_pulse_consuming: '0',
      bbb_pulse_reconnects_total: '3',
    });
  });

  it('do not go on telling what a database said that is away', async () => {
    await samples();
    expect(await samples({ ...AT_REST, mappings: undefined })).toMatchObject({
      bbb_database_up: '0',
      'bbb_mappings{state="held"}': 'Nan',
      bbb_mappings_failing: 'Nan',
    });
  });
});
