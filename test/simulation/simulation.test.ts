/** One seed is one history, and the bridge lives through many. */
import { describe, expect, it } from '@jest/globals';
import { simulateMany } from '../../src/sandbox/simulation/batch.ts';
import { createPlan, type InstancePlan } from '../../src/sandbox/simulation/plan.ts';
import { simulate } from '../../src/sandbox/simulation/simulation.ts';

describe('the simulation', () => {
  it.each([1, 2, 8, 41])('tells the same history of seed %i twice, to the byte', async (seed) => {
    const [first, second] = [await simulate(seed), await simulate(seed)];
    expect(second.trace()).toEqual(first.trace());
    expect(second.digest()).toBe(first.digest());
    expect(first.steps).toBeGreaterThan(100);
  });

  it('tells another history of another seed', async () => {
    expect((await simulate(1)).digest()).not.toBe((await simulate(2)).digest());
  });

  it('plans every kind of world', () => {
    const plans = Array.from({ length: 300 }, (_, seed) => createPlan(seed + 1, 0));
    expect(new Set(plans.map(({ kind }) => kind))).toEqual(new Set(['data-api', 'scheduler-db']));
    expect(new Set(plans.map(({ instances }) => instances.length))).toEqual(new Set([1, 2, 3, 4]));
    expect(new Set(plans.map(({ unstoppable }) => unstoppable))).toEqual(new Set(['nothing', 'builds', 'everything']));
    const isActing = ({ services, mode }: InstancePlan) => mode !== 'observe' && services.includes('reflector');
    expect(plans.every(({ instances }) => instances.some(isActing))).toBe(true);
  });

  it('plans what only a share of the worlds have', () => {
    const plans = Array.from({ length: 300 }, (_, seed) => createPlan(seed + 1, 0));
    const tasks = plans.flatMap((plan) => plan.tasks);
    const flavours = tasks.map(({ flavour }) => flavour);
    expect(new Set(plans.map(({ batchSize }) => batchSize)).size).toBe(10);
    expect(new Set(plans.map(({ concurrency }) => concurrency)).size).toBe(6);
    expect(plans.some((plan) => plan.tasks.length > 12)).toBe(true);
    expect(plans.some(({ retentionMs }) => retentionMs < 600_000)).toBe(true);
    expect(plans.some(({ incidents }) => incidents.some(({ kind }) => kind === 'pulseLost'))).toBe(true);
    expect(plans.some(({ instances }) => instances.some(({ mode }) => mode === 'observe'))).toBe(true);
    const isLongerThanClaim = ({ from, to }: { from: number; to: number }) => to - from > 20 * 60_000;
    const expiring = plans.filter(
      ({ climate, chaosMs }) => chaosMs >= 6_600_000 && climate.outages.some(isLongerThanClaim),
    );
    expect(expiring.length).toBeGreaterThan(10);
    const away = plans.flatMap(({ brokerOutages }) => brokerOutages);
    expect(away.filter(({ from, to }) => to - from > 60 * 60_000).length).toBeGreaterThan(3);
    expect(new Set(away.map(({ isHeldBack }) => isHeldBack)).size).toBe(2);
    expect(new Set(tasks.map(({ requires }) => requires))).toContain('all-resolved');
    expect(flavours).toEqual(expect.arrayContaining(['scoped', 'assuming', 'unscoped', 'misassuming', 'native']));
  });

  it('finds nothing wrong with the bridge', async () => {
    const { failures, resolutions, faults } = await simulateMany(1, 150);
    expect(failures).toEqual([]);
    const expected = ['completed', 'failed', 'internal-error', 'worker-shutdown', 'malformed-payload', 'canceled'];
    expect(Object.keys(resolutions)).toEqual(expect.arrayContaining(expected));
    expect(Object.keys(faults).length).toBeGreaterThan(20);
  });
});
