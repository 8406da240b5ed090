/** Claims of any length, on an emulated queue and the real mapping store. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { PassResult } from '../../src/reflector/reconcile.ts';
import { aBuild, MINUTE, requestBuilding, requestComplete } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { type Passes, startPasses } from '../support/passes.ts';

let passes: Passes;
let upload: Promise<void>;
afterEach(() => passes.stop());

const takenUntil = (taskId: string) =>
  Date.parse(passes.queue.emulator.tasks.get(taskId)?.status.runs[0]?.takenUntil ?? '');

async function aBuildingTask(): Promise<string> {
  const taskId = await passes.create();
  passes.request = requestBuilding();
  expect(await passes.reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
  return taskId;
}

describe.each([20_000, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 60 * MINUTE])('a claim of %d ms', (claimTimeoutMs) => {
  beforeEach(async () => {
    passes = await startPasses({ claimTimeoutMs });
  });

  it('is renewed once a pass at most, and before it runs out', async () => {
    const taskId = await aBuildingTask();
    const end = passes.queue.clock.now() + 3 * claimTimeoutMs;
    let renewals = 0;
    while (passes.queue.clock.now() < end) {
      const before = takenUntil(taskId);
      expect(await passes.reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
      renewals += takenUntil(taskId) > before ? 1 : 0;
      passes.queue.clock.advance(claimTimeoutMs / 20);
      passes.queue.emulator.tick();
    }
    expect(passes.queue.emulator.tasks.get(taskId)?.status.runs).toMatchObject([{ state: 'running' }]);
    // Not before a quarter of it is over.
    expect(renewals).toBeLessThanOrEqual(12);
    expect(renewals).toBeGreaterThanOrEqual(2);
  });
});

describe('a long upload', () => {
  let finish: () => void;
  let isSlow: boolean;
  let isUploading: boolean;
  beforeEach(async () => {
    isSlow = false;
    isUploading = false;
    upload = new Promise((resolve) => {
      finish = resolve;
    });
    const putArtifact = async () => {
      isUploading = isSlow;
      await (isSlow ? upload : undefined);
    };
    const builders = async (wanted: string) => new Set(wanted === 'there is none' ? [] : [wanted]);
    passes = await startPasses({ claimTimeoutMs: 20_000 }, { builders }, { putArtifact });
  });

  /** Who went to sleep while the clock was moved wakes up later than it would have. */
  function passABit(before: number): false {
    if (before - passes.queue.clock.now() > 3000) {
      passes.queue.clock.advance(100);
    }
    return false;
  }

  /** A pass that takes a minute, until it may finish. */
  async function aSlowPass(taskId: string): Promise<PassResult> {
    isSlow = true;
    const pass = passes.reconciler.reconcile(taskId);
    await eventually(() => isUploading, { what: 'an upload' });
    for (let seconds = 0; seconds < 60; seconds += 5) {
      const before = takenUntil(taskId);
      const { clock, emulator } = passes.queue;
      const isDue = before - clock.now() <= 10_000;
      await eventually(() => !isDue || takenUntil(taskId) > before || passABit(before), { what: 'a renewed claim' });
      clock.advance(5000);
      emulator.tick();
    }
    finish();
    return pass;
  }

  it('does not lose a claim that is shorter than the lease', async () => {
    const taskId = await aBuildingTask();
    passes.request = requestComplete('SUCCESS', aBuild('SUCCESS'));
    expect(await aSlowPass(taskId)).toEqual({ kind: 'done' });
    expect(passes.queue.emulator.tasks.get(taskId)?.status.runs).toMatchObject([{ state: 'completed' }]);
  });

  it('nor does one of the reason for which a task is refused', async () => {
    const taskId = await passes.create({ payload: { buildername: 'there is none' } });
    expect(await aSlowPass(taskId)).toEqual({ kind: 'done' });
    const malformed = { state: 'exception', reasonResolved: 'malformed-payload' };
    expect(passes.queue.emulator.tasks.get(taskId)?.status.runs).toMatchObject([malformed]);
  });
});
