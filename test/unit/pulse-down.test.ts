/**
 * The bridge while the queue cannot reach Pulse. Seen on a real 106: claims, reports, cancels and artifacts then take
 * effect and answer 500. The pass fails, and the next one has to find out what came of it.
 */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { aBuild, MINUTE, POLICY, requestBuilding, requestComplete, requestPending } from '../support/builders.ts';
import { type Passes, startPasses } from '../support/passes.ts';

let passes: Passes;
let taskId: string;
beforeEach(async () => {
  passes = await startPasses({ pulseDelayMs: 0 });
  taskId = await passes.create();
  passes.request = requestPending();
  await look();
});
afterEach(() => passes.stop());

const task = () => passes.queue.emulator.tasks.get(taskId);
const runs = () => task()?.status.runs.map(({ state, reasonResolved }) => reasonResolved ?? state);

/** One pass, some time after the one before it; answers how it ended. */
async function look(): Promise<string> {
  passes.queue.clock.advance(MINUTE);
  return (await passes.reconciler.reconcile(taskId)).kind;
}

async function startBuild(): Promise<void> {
  passes.request = requestBuilding();
  expect(await look()).toBe('done');
}

const mappings = async () =>
  (await passes.store.mappingsOf(taskId)).map(({ state, resolution }) => `${state} ${resolution}`);

describe('a call that took effect and failed', () => {
  it('claims: the claim is found and kept alive, and the build is linked', async () => {
    passes.queue.pulse.isDown = true;
    passes.request = requestBuilding();
    expect(await look()).toBe('failed');
    expect(runs()).toEqual(['running']);
    passes.queue.pulse.isDown = false;
    expect(await look()).toBe('done');
    const takenUntil = Date.parse(task()?.status.runs[0]?.takenUntil ?? '');
    expect(await passes.store.openMapping(taskId)).toMatchObject({ takenUntil, attempts: 0, lastError: null });
    expect([passes.submitted, runs()]).toEqual([1, ['running']]);
    const links = task()?.artifacts.map(({ name, details }) => `${name} ${details.storageType}`);
    expect(links).toEqual(['public/logs/live.log reference']);
  });

  it.each([
    ['SUCCESS', 'completed'],
    ['FAILURE', 'failed'],
    ['CANCELLED', 'canceled'],
  ] as const)('resolves the run of a %s build: the mapping is closed', async (results, resolution) => {
    await startBuild();
    passes.request = requestComplete(results, aBuild(results));
    passes.queue.pulse.isDown = true;
    // First the upload fails, again and again, until it is given up; then the report.
    for (let tries = 0; tries < 2 * POLICY.maxUploadAttempts && runs()?.[0] === 'running'; tries += 1) {
      expect(await look()).toBe('failed');
    }
    expect(runs()).toEqual([resolution]);
    expect(await look()).toBe('done');
    expect(await mappings()).toEqual([`closed ${resolution}`]);
    const kept = task()?.artifacts.map(({ name, details }) => `${name} ${details.storageType}`);
    expect(kept).toEqual([
      'public/buildbot/status.json s3',
      'public/logs/live.log link',
      'public/logs/live_backing.log s3',
      'public/properties.json s3',
    ]);
  });

  it('reports, and Pulse is back for the next pass: nothing is done twice', async () => {
    await startBuild();
    passes.request = requestComplete('SUCCESS', aBuild('SUCCESS'));
    const { faults } = passes.queue;
    faults.http.push({ path: /\/completed$/, times: 1, takesEffect: true, outcome: { kind: 'status', status: 500 } });
    expect(await look()).toBe('failed');
    passes.queue.messages.length = 0;
    expect(await look()).toBe('done');
    expect(await mappings()).toEqual(['closed completed']);
    expect(passes.queue.brief()).toEqual([]);
  });

  it('ends a run worker-shutdown: the same request serves the next one', async () => {
    await startBuild();
    passes.request = requestBuilding(aBuild('RETRY'));
    passes.queue.pulse.isDown = true;
    for (let tries = 0; tries < 2 * POLICY.maxUploadAttempts; tries += 1) {
      await look();
    }
    passes.queue.pulse.isDown = false;
    expect(await look()).toBe('done');
    expect(runs()).toEqual(['worker-shutdown', 'running']);
    expect([passes.submitted, await mappings()]).toEqual([1, ['submitted null']]);
  });
});
