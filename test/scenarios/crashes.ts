/** What happens to a task when the bridge, or one of its messages, dies at a given moment. */
import { expect } from '@jest/globals';
import type { World } from '../support/world.ts';

export interface Crash {
  readonly name: string;
  readonly tell: (world: World) => Promise<void>;
}

async function killAndRestart(world: World): Promise<void> {
  await world.daemon.kill();
  world.legacy.release();
  world.faults.http.length = 0;
  await world.startDaemon();
}

async function oneBuildOnly(world: World, taskId: string): Promise<void> {
  expect((await world.legacy.builds(taskId)).map((build) => build.results)).toEqual([0]);
  expect(await world.legacy.requests(taskId)).toHaveLength(1);
}

/** The claim is renewed, twice as far as it first went. */
async function keptAlive(world: World, taskId: string): Promise<void> {
  const takenUntil = () => Date.parse(String(world.task(taskId).status.runs[0]?.takenUntil));
  const first = takenUntil();
  await world.until('two reclaims', () => takenUntil() - first > 6000);
}

export const CRASHES: readonly Crash[] = [
  {
    name: 'the bridge dies between its intent and the submission',
    async tell(world) {
      const held = world.legacy.holdSubmission('request');
      const taskId = await world.createTask({ builder: 'quick-1' });
      await held.reached;
      await killAndRestart(world);
      await world.resolved(taskId, 'completed');
      await oneBuildOnly(world, taskId);
    },
  },
  {
    name: 'the bridge dies between the submission and its record',
    async tell(world) {
      const held = world.legacy.holdSubmission('answer');
      const taskId = await world.createTask({ builder: 'quick-1' });
      await held.reached;
      await killAndRestart(world);
      await world.resolved(taskId, 'completed');
      await oneBuildOnly(world, taskId);
    },
  },
  {
    name: 'the bridge dies between the artifacts and the resolution',
    async tell(world) {
      world.faults.http.push({ path: /\/runs\/0\/completed$/, takesEffect: false, outcome: { kind: 'hang' } });
      const taskId = await world.createTask({ builder: 'success' });
      await world.until('the status to be uploaded', () =>
        world.task(taskId).artifacts.some(({ name }) => name === 'public/buildbot/status.json'),
      );
      await killAndRestart(world);
      await world.resolved(taskId, 'completed');
      await oneBuildOnly(world, taskId);
    },
  },
  {
    name: 'the bridge dies after a resolution whose answer it never got',
    async tell(world) {
      world.faults.http.push({ path: /\/runs\/0\/completed$/, takesEffect: true, outcome: { kind: 'hang' } });
      const taskId = await world.createTask({ builder: 'success' });
      await world.resolved(taskId, 'completed');
      await killAndRestart(world);
      await world.until('the mapping to be closed', () =>
        world.daemon.lines.some((line) => line.taskId === taskId && line.action === 'closeMapping'),
      );
      await oneBuildOnly(world, taskId);
      expect(world.runs(taskId)).toEqual(['completed/completed']);
    },
  },
  {
    name: 'the bridge dies and the claim expires while the build goes on',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await world.until('the claim', () => world.runs(taskId)[0] === 'running');
      await world.daemon.kill();
      await world.until('the claim to expire', () => world.runs(taskId)[0] === 'exception/claim-expired');
      expect(world.runs(taskId)).toEqual(['exception/claim-expired', 'pending']);
      await world.startDaemon();
      await world.until('the next run to be claimed', () => world.runs(taskId)[1] === 'running');
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      await oneBuildOnly(world, taskId);
    },
  },
  {
    name: 'a claim is kept alive beyond its first end',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await world.until('the claim', () => world.runs(taskId)[0] === 'running');
      await keptAlive(world, taskId);
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      expect(world.runs(taskId)).toEqual(['completed/completed']);
    },
  },
  {
    name: 'the bridge dies and starts again while the legacy CI is away: its claims are kept alive',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await world.legacy.begun(taskId, 1);
      await world.until('the claim', () => world.runs(taskId)[0] === 'running');
      await world.daemon.kill();
      world.legacy.cut();
      try {
        await world.startDaemon();
        await keptAlive(world, taskId);
      } finally {
        world.legacy.release();
      }
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      await oneBuildOnly(world, taskId);
    },
  },
  {
    name: 'the first signal lets what is under way end, and the process exits with 0',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await world.until('the claim', () => world.runs(taskId)[0] === 'running');
      expect(await world.daemon.stop()).toBe(0);
      expect(world.runs(taskId)).toEqual(['running']);
      await world.startDaemon();
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
    },
  },
];

/** Only where the listeners run. */
export const MESSAGES: readonly Crash[] = [
  {
    name: 'messages are repeated, lost and re-ordered, and nothing is doubled or forgotten',
    async tell(world) {
      world.faults.messages.push(
        { outcome: { kind: 'drop' }, times: 6 },
        { outcome: { kind: 'repeat' }, times: 6 },
        { outcome: { kind: 'reorder' }, times: 6 },
        { outcome: { kind: 'delay', ms: 1500 }, times: 6 },
      );
      const taskIds = await Promise.all(Array.from({ length: 10 }, () => world.createTask({ builder: 'quick-2' })));
      for (const taskId of taskIds) {
        await world.resolved(taskId, 'completed');
        await oneBuildOnly(world, taskId);
        expect(world.runs(taskId)).toEqual(['completed/completed']);
      }
      world.faults.messages.length = 0;
    },
  },
];
