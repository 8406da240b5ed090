import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startWorld, type World } from '../support/world.ts';

let world: World;
beforeAll(async () => {
  // A claim lasts long enough for a whole story, and short enough for one that waits for its end.
  world = await startWorld({
    claimTimeoutMs: 8000,
    config: { reflector: { schedule: '* * * * * *', recheck: '1s', reclaimThreshold: '5s' } },
  });
});
afterAll(() => world?.stop());

async function killAndRestart(): Promise<void> {
  await world.daemon.kill();
  world.gate.release();
  world.faults.http.length = 0;
  await world.startDaemon();
}

async function oneBuildOnly(taskId: string): Promise<void> {
  expect((await world.builds(taskId)).map((build) => build.results)).toEqual([0]);
  expect(await world.requests(taskId)).toHaveLength(1);
}

describe('the bridge dies', () => {
  it('between its intent and the submission', async () => {
    const held = world.gate.hold(/POST .*forceschedulers/, 'request');
    const taskId = await world.createTask({ builder: 'quick-1' });
    await held.reached;
    await killAndRestart();
    await world.resolved(taskId, 'completed');
    await oneBuildOnly(taskId);
  });

  it('between the submission and its record', async () => {
    const held = world.gate.hold(/POST .*forceschedulers/, 'answer');
    const taskId = await world.createTask({ builder: 'quick-1' });
    await held.reached;
    await killAndRestart();
    await world.resolved(taskId, 'completed');
    await oneBuildOnly(taskId);
  });

  it('between the artifacts and the resolution', async () => {
    world.faults.http.push({ path: /\/runs\/0\/completed$/, takesEffect: false, outcome: { kind: 'hang' } });
    const taskId = await world.createTask({ builder: 'success' });
    await world.until('the status to be uploaded', () =>
      world.task(taskId).artifacts.some(({ name }) => name === 'public/buildbot/status.json'),
    );
    await killAndRestart();
    await world.resolved(taskId, 'completed');
    await oneBuildOnly(taskId);
  });

  it('after a resolution whose answer it never got', async () => {
    world.faults.http.push({ path: /\/runs\/0\/completed$/, takesEffect: true, outcome: { kind: 'hang' } });
    const taskId = await world.createTask({ builder: 'success' });
    await world.resolved(taskId, 'completed');
    await killAndRestart();
    await world.until('the mapping to be closed', () =>
      world.daemon.lines.some((line) => line.taskId === taskId && line.action === 'closeMapping'),
    );
    await oneBuildOnly(taskId);
    expect(world.runs(taskId)).toEqual(['completed/completed']);
  });

  it('and the claim expires while the build goes on', async () => {
    const taskId = await world.createTask({ builder: 'slow' });
    await world.until('the claim', () => world.runs(taskId)[0] === 'running');
    await world.daemon.kill();
    await world.until('the claim to expire', () => world.runs(taskId)[0] === 'exception/claim-expired');
    expect(world.runs(taskId)).toEqual(['exception/claim-expired', 'pending']);
    await world.startDaemon();
    await world.until('the next run to be claimed', () => world.runs(taskId)[1] === 'running');
    await world.buildbot.finish(taskId);
    await world.resolved(taskId, 'completed');
    await oneBuildOnly(taskId);
  });

  it('and a claim is kept alive beyond its first end', async () => {
    const taskId = await world.createTask({ builder: 'slow' });
    await world.until('the claim', () => world.runs(taskId)[0] === 'running');
    const first = String(world.task(taskId).status.runs[0]?.takenUntil);
    await world.until('two reclaims', () => {
      const takenUntil = String(world.task(taskId).status.runs[0]?.takenUntil);
      return Date.parse(takenUntil) - Date.parse(first) > 6000;
    });
    await world.buildbot.finish(taskId);
    await world.resolved(taskId, 'completed');
    expect(world.runs(taskId)).toEqual(['completed/completed']);
  });
});

describe('messages', () => {
  it('are repeated, lost and re-ordered, and nothing is doubled or forgotten', async () => {
    world.faults.messages.push(
      { outcome: { kind: 'drop' }, times: 6 },
      { outcome: { kind: 'repeat' }, times: 6 },
      { outcome: { kind: 'reorder' }, times: 6 },
      { outcome: { kind: 'delay', ms: 1500 }, times: 6 },
    );
    const taskIds = await Promise.all(Array.from({ length: 10 }, () => world.createTask({ builder: 'quick-2' })));
    for (const taskId of taskIds) {
      await world.resolved(taskId, 'completed');
      await oneBuildOnly(taskId);
      expect(world.runs(taskId)).toEqual(['completed/completed']);
    }
    world.faults.messages.length = 0;
  });
});

describe('the first signal', () => {
  it('lets what is under way end, and the process exits with 0', async () => {
    const taskId = await world.createTask({ builder: 'slow' });
    await world.until('the claim', () => world.runs(taskId)[0] === 'running');
    expect(await world.daemon.stop()).toBe(0);
    expect(world.runs(taskId)).toEqual(['running']);
    await world.startDaemon();
    await world.buildbot.finish(taskId);
    await world.resolved(taskId, 'completed');
  });
});
