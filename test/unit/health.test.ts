import { describe, expect, it } from '@jest/globals';
import { systemClock } from '../../src/clock.ts';
import { StoreError } from '../../src/errors.ts';
import { createHealth } from '../../src/health.ts';
import type { PulseStatus } from '../../src/listeners/pulse-broker.ts';
import { createMetrics } from '../../src/metrics.ts';
import type { Clock, Overview } from '../../src/ports.ts';

const PROBE_MS = 50;
const OVERVIEW: Overview = {
  byState: { refusing: 0, held: 1, intended: 0, submitted: 2, cancelling: 0 },
  failing: 0,
  nearestTakenUntil: null,
};
const PULSE: PulseStatus = {
  ...{ isConnected: true, isConsuming: true, reconnects: 0, lastError: null },
};

const WELL = { isFailing: () => false, heartbeat: async () => undefined };

function healthWith(
  overview: () => Promise<Overview>,
  pulse?: Partial<PulseStatus>,
  { isFailing, heartbeat } = WELL,
  clock: Clock = systemClock,
) {
  return createHealth({
    store: { overview },
    writes: { isFailing },
    bridge: {
      heartbeat,
      workQueue: {
        add: async () => undefined,
        size: () => 0,
        oldestAgeMs: () => 0,
        parked: () => 0,
        handOver: () => undefined,
        isParked: () => false,
        stop: async () => undefined,
      },
      reflector: {
        start: () => undefined,
        poke: () => undefined,
        runOnce: async () => undefined,
        idleMs: () => 0,
        report: () => undefined,
        stop: async () => undefined,
      },
    },
    pulse: pulse && { status: () => ({ ...PULSE, ...pulse }) },
    metrics: createMetrics(),
    clock,
    probeMs: PROBE_MS,
  });
}

describe('readiness', () => {
  it('counts open mappings while the database answers', async () => {
    const checks = await healthWith(async () => OVERVIEW).ready();
    expect(checks).toEqual([{ name: 'database', isOk: true, detail: JSON.stringify(OVERVIEW.byState) }]);
  });

  it('says what the database says', async () => {
    const away = new StoreError('store-unavailable', 'the database failed', { cause: new Error('ECONNREFUSED') });
    const checks = await healthWith(() => Promise.reject(away)).ready();
    expect(checks).toEqual([{ name: 'database', isOk: false, detail: 'the database failed: ECONNREFUSED' }]);
  });

  it('writes only where a write failed, and says what comes of it', async () => {
    let [isFailing, isFull, written] = [false, true, 0];
    const health = healthWith(async () => OVERVIEW, undefined, {
      isFailing: () => isFailing,
      async heartbeat() {
        written += 1;
        if (isFull) {
          throw new StoreError('store-full', 'its disk is full', { isTransient: true });
        }
        isFailing = false;
      },
    });
    const up = async () => /^bbb_database_up (\d)$/m.exec((await health.metrics()).body)?.[1];
    expect([await up(), (await health.ready())[0]?.isOk, written]).toEqual(['1', true, 0]);
    isFailing = true;
    expect(await health.ready()).toEqual([{ name: 'database', isOk: false, detail: 'its disk is full' }]);
    expect([await up(), written]).toEqual(['0', 2]);
    isFull = false;
    expect([await up(), (await health.ready())[0]?.isOk, written]).toEqual(['1', true, 3]);
  });

  it('does not wait for a database that hangs, nor ask it twice, and asks again once it has answered', async () => {
    const asked: ((overview: Overview) => void)[] = [];
    const waits: number[] = [];
    let isOverAtOnce = true;
    const sleep: Clock['sleep'] = (ms, signal) => {
      waits.push(ms);
      return isOverAtOnce ? Promise.resolve() : systemClock.sleep(ms, signal);
    };
    const hanging = () => new Promise<Overview>((resolve) => asked.push(resolve));
    const health = healthWith(hanging, undefined, WELL, { ...systemClock, sleep });
    for (let round = 0; round < 3; round += 1) {
      const answers = await Promise.all([health.ready(), health.ready(), health.metrics().then(() => [])]);
      expect(answers[0]).toEqual([{ name: 'database', isOk: false, detail: 'no answer for 0.05 s' }]);
    }
    expect(waits).toEqual(Array(9).fill(PROBE_MS));
    expect(asked).toHaveLength(1);
    isOverAtOnce = false;
    asked[0]?.(OVERVIEW);
    await new Promise((resolve) => setImmediate(resolve));
    const checks = health.ready();
    expect(asked).toHaveLength(2);
    asked[1]?.(OVERVIEW);
    expect(await checks).toMatchObject([{ isOk: true }]);
  });

  it.each([
    [{}, true, 'consuming'],
    [{ isConsuming: false, lastError: 'the queue is gone' }, false, 'connected, but not consuming: the queue is gone'],
    [{ isConsuming: false }, false, 'connected, but not consuming: no answer yet'],
    [{ isConnected: false, isConsuming: false, lastError: 'refused' }, false, 'not connected: refused'],
  ])('says of Pulse %j: %s', async (status, isOk, detail) => {
    const checks = await healthWith(async () => OVERVIEW, status).ready();
    expect(checks).toContainEqual({ name: 'pulse', isOk, detail });
  });
});
