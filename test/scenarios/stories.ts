/**
 * The stories of a bridged task, each told from its creation to the final state of both sides. They hold whether the
 * listeners run or the reflector is alone.
 */
import { expect } from '@jest/globals';
import type { World } from '../support/world.ts';

export interface Story {
  readonly name: string;
  readonly tell: (world: World) => Promise<void>;
}

const ARTIFACTS = [
  'public/buildbot/status.json',
  'public/logs/live.log',
  'public/logs/live_backing.log',
  'public/properties.json',
];

/** The results of all builds of a task, in Buildbot's codes. */
async function results(world: World, taskId: string): Promise<(number | null)[]> {
  return (await world.builds(taskId)).map((build) => build.results);
}

async function building(world: World, taskId: string, runs: readonly string[] = ['running']): Promise<void> {
  await world.until('the build to run and the run to be claimed', async () => {
    const open = (await world.builds(taskId)).filter((build) => !build.complete);
    // Buildbot 3.7 itself loses a build whose worker or master dies while it prepares the worker: not the story here.
    return (
      open.length === 1 &&
      open[0]?.state_string === 'building' &&
      JSON.stringify(world.runs(taskId)) === JSON.stringify(runs)
    );
  });
}

async function requestsComplete(world: World, taskId: string): Promise<void> {
  await world.until('every build request to be complete', async () => {
    const requests = await world.requests(taskId);
    return requests.length > 0 && requests.every((request) => request.complete);
  });
}

function status(world: World, taskId: string, runId = 0): Record<string, unknown> {
  return JSON.parse(world.artifact(taskId, runId, 'public/buildbot/status.json'));
}

export const STORIES: readonly Story[] = [
  {
    name: 'success, with log and properties',
    async tell(world) {
      const taskId = await world.createTask({
        builder: 'success',
        properties: { locale: 'de', number: 7, flag: true },
      });
      await world.resolved(taskId, 'completed');
      expect(world.runs(taskId)).toEqual(['completed/completed']);
      expect(await results(world, taskId)).toEqual([0]);
      expect(world.artifactNames(taskId, 0)).toEqual(ARTIFACTS);
      const properties = JSON.parse(world.artifact(taskId, 0, 'public/properties.json'));
      expect(properties.taskId[0]).toBe(taskId);
      expect(properties.product).toEqual(['widget', 'Force Build Form']);
      expect(properties.number[0]).toBe(7);
      expect(properties.flag[0]).toBe(true);
      expect(properties.branch[0]).toBe('integration/main');
      expect(world.artifact(taskId, 0, 'public/logs/live_backing.log')).toContain('=== step');
      expect(status(world, taskId)).toMatchObject({
        version: 1,
        taskId,
        builder: 'success',
        resultName: 'SUCCESS',
        resolution: { state: 'completed', reason: 'completed' },
        treeherder: { result: 'success', colour: 'green' },
      });
    },
  },
  {
    name: 'warnings',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'warnings' });
      await world.resolved(taskId, 'failed');
      expect(await results(world, taskId)).toEqual([1]);
      expect(status(world, taskId)).toMatchObject({ resultName: 'WARNINGS', treeherder: { colour: 'orange' } });
    },
  },
  {
    name: 'failure',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'failure' });
      await world.resolved(taskId, 'failed');
      expect(await results(world, taskId)).toEqual([2]);
      expect(world.artifactNames(taskId, 0)).toEqual(ARTIFACTS);
    },
  },
  {
    name: 'exception',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'exception' });
      await world.resolved(taskId, 'exception', 'internal-error');
      expect(await results(world, taskId)).toEqual([4]);
    },
  },
  {
    name: 'RETRY, then success on the same build request',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'retry-once' });
      await world.resolved(taskId, 'completed');
      expect(await results(world, taskId)).toEqual([5, 0]);
      expect(await world.requests(taskId)).toHaveLength(1);
      // Where the first run was claimed before the RETRY, it ended worker-shutdown, and the queue made the second.
      const runs = world.runs(taskId);
      expect(runs.at(-1)).toBe('completed/completed');
      expect(runs.slice(0, -1).every((run) => run === 'exception/worker-shutdown')).toBe(true);
    },
  },
  {
    name: 'worker process killed while it builds',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.buildbot.killWorker();
      await world.until('the run to end worker-shutdown', () => world.runs(taskId)[0] === 'exception/worker-shutdown');
      await world.buildbot.startWorker();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.buildbot.finish(taskId);
      await world.resolved(taskId, 'completed');
      expect(await results(world, taskId)).toEqual([5, 0]);
      expect(await world.requests(taskId)).toHaveLength(1);
      expect(status(world, taskId, 0)).toMatchObject({ resultName: 'RETRY', treeherder: { result: 'retry' } });
    },
  },
  {
    name: 'RETRY with no retries left',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow', retries: 0 });
      await building(world, taskId);
      await world.buildbot.killWorker();
      await world.buildbot.startWorker();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.buildbot.finish(taskId);
      await world.resolved(taskId, 'completed');
      expect(world.runs(taskId)).toEqual(['exception/worker-shutdown', 'completed/completed']);
      expect(await world.requests(taskId)).toHaveLength(1);
    },
  },
  {
    name: 'canceled in Taskcluster while pending',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'noworker' });
      await world.until('a build request', async () => (await world.requests(taskId)).length === 1);
      await world.client.cancelTask(taskId);
      await requestsComplete(world, taskId);
      expect(world.runs(taskId)).toEqual(['exception/canceled']);
      expect(await results(world, taskId)).toEqual([]);
    },
  },
  {
    name: 'canceled in Taskcluster while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.client.cancelTask(taskId);
      await requestsComplete(world, taskId);
      expect(world.runs(taskId)).toEqual(['exception/canceled']);
      expect(await results(world, taskId)).toEqual([6]);
    },
  },
  {
    name: 'canceled in Taskcluster while it is being submitted',
    async tell(world) {
      const held = world.gate.hold(/POST .*forceschedulers/, 'answer');
      const taskId = await world.createTask({ builder: 'slow' });
      await held.reached;
      await world.client.cancelTask(taskId);
      world.gate.release();
      await requestsComplete(world, taskId);
      expect(world.runs(taskId)).toEqual(['exception/canceled']);
      expect(await world.requests(taskId)).toHaveLength(1);
    },
  },
  {
    name: 'deadline before the build starts',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'noworker', deadlineInMs: 4000 });
      await world.resolved(taskId, 'exception', 'deadline-exceeded');
      await requestsComplete(world, taskId);
      expect(await results(world, taskId)).toEqual([]);
    },
  },
  {
    name: 'deadline while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow', deadlineInMs: 6000 });
      await building(world, taskId);
      await world.resolved(taskId, 'exception', 'deadline-exceeded');
      await requestsComplete(world, taskId);
      expect(await results(world, taskId)).toEqual([6]);
    },
  },
  {
    name: 'cancelled in Buildbot before it starts',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'noworker' });
      await world.until('a build request', async () => (await world.requests(taskId)).length === 1);
      const [request] = await world.requests(taskId);
      await world.buildbot.control(`buildrequests/${request?.buildrequestid}`, 'cancel');
      await world.resolved(taskId, 'exception', 'canceled');
      expect(await world.requests(taskId)).toHaveLength(1);
    },
  },
  {
    name: 'cancelled in Buildbot while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      const [build] = await world.builds(taskId);
      await world.buildbot.control(`builds/${build?.buildid}`, 'stop');
      await world.resolved(taskId, 'exception', 'canceled');
      expect(await results(world, taskId)).toEqual([6]);
      expect(world.artifactNames(taskId, 0)).toEqual(ARTIFACTS);
    },
  },
  {
    name: 'master restarted while building: the task is tried again, not canceled',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.buildbot.stopMaster();
      await world.buildbot.startMaster();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.buildbot.finish(taskId);
      await world.resolved(taskId, 'completed');
      expect(await results(world, taskId)).toEqual([6, 0]);
      expect(await world.requests(taskId)).toHaveLength(2);
    },
  },
  {
    name: 'master killed while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.buildbot.killMaster();
      await world.buildbot.startMaster();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.buildbot.finish(taskId);
      await world.resolved(taskId, 'completed');
      expect(await results(world, taskId)).toEqual([5, 0]);
      expect(await world.requests(taskId)).toHaveLength(1);
    },
  },
  {
    name: 'rerun by a person after success',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'quick-1' });
      await world.resolved(taskId, 'completed');
      await world.client.rerunTask(taskId);
      await world.until('a second run', () => world.runs(taskId).length === 2);
      await world.resolved(taskId, 'completed');
      expect(world.runs(taskId)).toEqual(['completed/completed', 'completed/completed']);
      expect(await results(world, taskId)).toEqual([0, 0]);
      expect(await world.requests(taskId)).toHaveLength(2);
    },
  },
  {
    name: 'rerun by a person after failure',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'failure' });
      await world.resolved(taskId, 'failed');
      await world.client.rerunTask(taskId);
      await world.until('a second run', () => world.runs(taskId).length === 2);
      await world.resolved(taskId, 'failed');
      expect(await results(world, taskId)).toEqual([2, 2]);
    },
  },
  {
    name: 'canceled and rerun by a person while it builds',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.client.cancelTask(taskId);
      await world.client.rerunTask(taskId);
      await building(world, taskId, ['exception/canceled', 'running']);
      await world.buildbot.finish(taskId);
      await world.resolved(taskId, 'completed');
      expect(await results(world, taskId)).toEqual([6, 0]);
    },
  },
  {
    name: 'two tasks for the same builder and sourcestamp at once both get a build of their own',
    async tell(world) {
      const revision = 'the-same-revision';
      const taskIds = await Promise.all([1, 2, 3].map(() => world.createTask({ builder: 'quick-2', revision })));
      for (const taskId of taskIds) {
        await world.resolved(taskId, 'completed');
        expect(await results(world, taskId)).toEqual([0]);
        expect(await world.requests(taskId)).toHaveLength(1);
      }
    },
  },
  {
    name: 'a bridged task between two native ones',
    async tell(world) {
      const taskQueueId = 'native/worker';
      const before = await world.createTask({ taskQueueId, payload: {} });
      const bridged = await world.createTask({ builder: 'quick-3', dependencies: [before] });
      const after = await world.createTask({ taskQueueId, payload: {}, dependencies: [bridged] });
      const native = { workerGroup: 'native', workerId: 'native' };
      await world.client.claimTask(before, 0, native);
      expect(world.runs(bridged)).toEqual([]);
      expect(await world.requests(bridged)).toEqual([]);
      await world.client.reportCompleted(before, 0);
      await world.resolved(bridged, 'completed');
      await world.until('the task after it to be pending', () => world.runs(after)[0] === 'pending');
      await world.client.claimTask(after, 0, native);
      await world.client.reportCompleted(after, 0);
      expect(world.runs(after)).toEqual(['completed/completed']);
    },
  },
  {
    name: 'bad payloads are refused with a log that says what is wrong and how to mend it',
    async tell(world) {
      const refused: [unknown, string, (readonly string[])?][] = [
        [{ sourcestamp: { branch: 'main' } }, 'payload.buildername'],
        [{ buildername: 'no-such-builder' }, 'there is no builder "no-such-builder"'],
        [{ buildername: 'outside' }, 'there is no builder "outside"'],
        [{ buildername: 5, sourcestamp: 'x', properties: [] }, 'payload.properties'],
        [{ buildername: 'success', surprise: 1 }, 'surprise'],
        [{ buildername: 'success', properties: { a: '1', b: '2', c: '3', d: '4' } }, 'util.StringParameter(name="d"'],
        [{ buildername: 'success', properties: { number: 'many' } }, 'payload.properties.number'],
        [{ buildername: 'release-x' }, 'buildbot-bridge:builder-name:release-x'],
        [{ buildername: 'release-x' }, 'restricted', ['buildbot-bridge:builder-name:release-y']],
      ];
      for (const [payload, words, scopes] of refused) {
        const taskId = await world.createTask({ payload, scopes: scopes ?? [] });
        await world.resolved(taskId, 'exception', 'malformed-payload');
        expect(world.artifact(taskId, 0, 'public/logs/live_backing.log')).toContain(words);
        expect(world.artifactNames(taskId, 0)).toEqual(ARTIFACTS);
        expect(await world.requests(taskId)).toEqual([]);
      }
    },
  },
  {
    name: 'a restricted builder is built for a task with the scope, and an ignored one is left alone',
    async tell(world) {
      const ignored = await world.createTask({ builder: 'ignored-elsewhere' });
      const allowed = await world.createTask({
        builder: 'release-x',
        scopes: ['project:releng:buildbot-bridge:builder-name:release-*'],
      });
      await world.resolved(allowed, 'completed');
      expect(world.runs(ignored)).toEqual(['pending']);
    },
  },
];
