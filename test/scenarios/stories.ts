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

/** Of a run that has no build. */
const EXPLAINED = [
  'public/buildbot/status.json',
  'public/logs/live.log',
  'public/logs/live_backing.log',
  'public/properties.json',
];

/** The results of all builds of a task, in Buildbot's codes. */
async function results(world: World, taskId: string): Promise<(number | null)[]> {
  return (await world.legacy.builds(taskId)).map((build) => build.results);
}

/** How a task ended on both sides. */
interface End {
  readonly runs: readonly string[];
  /** Of all its builds, in Buildbot's codes. */
  readonly results: readonly (number | null)[];
  /** How many build requests were made for it; one unless given. */
  readonly requests?: number;
}

/** Runs that the bridge itself resolved have all artifacts; one that ended otherwise has at most the link to its page. */
const RESOLVED_BY_BRIDGE = /completed|failed|internal-error/;

async function ended(world: World, taskId: string, end: End): Promise<void> {
  expect(world.runs(taskId)).toEqual(end.runs);
  expect(await results(world, taskId)).toEqual(end.results);
  expect(await world.legacy.requests(taskId)).toHaveLength(end.requests ?? 1);
  end.runs.forEach((run, runId) => {
    const names = world.artifactNames(taskId, runId);
    if (/worker-shutdown/.test(run)) {
      // What only comes later is not waited for: the next run is to begin.
      expect({ taskId, runId, names }).toEqual({ taskId, runId, names: expect.arrayContaining(EXPLAINED) });
    } else if (RESOLVED_BY_BRIDGE.test(run)) {
      expect({ taskId, runId, names }).toEqual({ taskId, runId, names: world.legacy.ways.artifacts });
    } else if (!/canceled/.test(run)) {
      expect(names.filter((name) => name !== 'public/logs/live.log')).toEqual([]);
    }
  });
}

/** A build runs, can be interrupted, and the last of these runs is its own. */
async function building(world: World, taskId: string, runs: readonly string[] = ['running']): Promise<void> {
  await world.legacy.begun(taskId, runs.length);
  await world.until('the run to be claimed', () => JSON.stringify(world.runs(taskId)) === JSON.stringify(runs));
}

async function requestsComplete(world: World, taskId: string): Promise<void> {
  await world.until('every build request to be complete', async () => {
    const requests = await world.legacy.requests(taskId);
    return requests.length > 0 && requests.every(({ isComplete }) => isComplete);
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
      await ended(world, taskId, { runs: ['completed/completed'], results: [0] });
      const properties = JSON.parse(world.artifact(taskId, 0, 'public/properties.json'));
      expect(properties.taskId[0]).toBe(taskId);
      const { source, log } = world.legacy.ways;
      expect(properties.product).toEqual(['widget', source]);
      expect(properties.number[0]).toBe(7);
      expect(properties.flag[0]).toBe(true);
      if (log === 'stored') {
        expect(properties.branch[0]).toBe('integration/main');
        expect(world.artifact(taskId, 0, 'public/logs/live_backing.log')).toContain('=== step');
      } else if (log === 'elsewhere') {
        expect(properties.branch[0]).toBe('integration/main');
        const gzipped = world.task(taskId).artifacts.find(({ name }) => name === 'public/logs/live_backing.log.gz');
        expect(gzipped).toMatchObject({ contentType: 'application/gzip', details: { storageType: 'reference' } });
      }
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
      await ended(world, taskId, { runs: ['failed/failed'], results: [1] });
      expect(status(world, taskId)).toMatchObject({ resultName: 'WARNINGS', treeherder: { colour: 'orange' } });
    },
  },
  {
    name: 'failure',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'failure' });
      await world.resolved(taskId, 'failed');
      await ended(world, taskId, { runs: ['failed/failed'], results: [2] });
    },
  },
  {
    name: 'exception',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'exception' });
      await world.resolved(taskId, 'exception', 'internal-error');
      await ended(world, taskId, { runs: ['exception/internal-error'], results: [4] });
      if (world.legacy.ways.log === 'stored') {
        expect(world.artifact(taskId, 0, 'public/logs/live_backing.log')).toContain('=== step');
      }
    },
  },
  {
    name: 'RETRY, then success on the same build request',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'retry-once' });
      await world.resolved(taskId, 'completed');
      // Where the first run was claimed before the RETRY, it ended worker-shutdown, and the queue made the second.
      const retried = world.runs(taskId).slice(0, -1);
      expect(retried.every((run) => run === 'exception/worker-shutdown')).toBe(true);
      await ended(world, taskId, { runs: [...retried, 'completed/completed'], results: [5, 0] });
    },
  },
  {
    name: 'worker process killed while it builds',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.legacy.killWorker();
      await world.until('the run to end worker-shutdown', () => world.runs(taskId)[0] === 'exception/worker-shutdown');
      await world.legacy.startWorker();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      await ended(world, taskId, { runs: ['exception/worker-shutdown', 'completed/completed'], results: [5, 0] });
      expect(status(world, taskId, 0)).toMatchObject({ resultName: 'RETRY', treeherder: { result: 'retry' } });
    },
  },
  {
    name: 'RETRY with no retries left',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow', retries: 0 });
      await building(world, taskId);
      await world.legacy.killWorker();
      await world.legacy.startWorker();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      await ended(world, taskId, { runs: ['exception/worker-shutdown', 'completed/completed'], results: [5, 0] });
    },
  },
  {
    name: 'canceled in Taskcluster while pending',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'noworker' });
      await world.until('a build request', async () => (await world.legacy.requests(taskId)).length === 1);
      await world.client.cancelTask(taskId);
      await requestsComplete(world, taskId);
      await ended(world, taskId, { runs: ['exception/canceled'], results: [] });
    },
  },
  {
    name: 'canceled in Taskcluster while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.client.cancelTask(taskId);
      await requestsComplete(world, taskId);
      await ended(world, taskId, { runs: ['exception/canceled'], results: [world.legacy.ways.stopped] });
    },
  },
  {
    name: 'canceled in Taskcluster while it is being submitted',
    async tell(world) {
      const held = world.legacy.holdSubmission('answer');
      const taskId = await world.createTask({ builder: 'slow' });
      await held.reached;
      await world.client.cancelTask(taskId);
      world.legacy.release();
      await requestsComplete(world, taskId);
      expect(world.runs(taskId)).toEqual(['exception/canceled']);
      expect(await world.legacy.requests(taskId)).toHaveLength(1);
    },
  },
  {
    name: 'deadline before the build starts',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'noworker', deadlineInMs: 4000 });
      await world.resolved(taskId, 'exception', 'deadline-exceeded');
      await requestsComplete(world, taskId);
      await ended(world, taskId, { runs: ['exception/deadline-exceeded'], results: [] });
    },
  },
  {
    name: 'deadline while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow', deadlineInMs: 6000 });
      await building(world, taskId);
      await world.resolved(taskId, 'exception', 'deadline-exceeded');
      await requestsComplete(world, taskId);
      await ended(world, taskId, { runs: ['exception/deadline-exceeded'], results: [world.legacy.ways.stopped] });
    },
  },
  {
    name: 'cancelled in Buildbot before it starts',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'noworker' });
      await world.until('a build request', async () => (await world.legacy.requests(taskId)).length === 1);
      await world.legacy.cancelRequest(taskId);
      await world.resolved(taskId, 'exception', 'canceled');
      await ended(world, taskId, { runs: ['exception/canceled'], results: [] });
    },
  },
  {
    name: 'cancelled in Buildbot while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.legacy.stopBuild(taskId);
      await world.resolved(taskId, 'exception', 'canceled');
      await ended(world, taskId, { runs: ['exception/canceled'], results: [world.legacy.ways.stopped] });
      expect(world.artifactNames(taskId, 0)).toEqual(world.legacy.ways.artifacts);
    },
  },
  {
    name: 'master restarted while building: the task is tried again, not canceled',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.legacy.stopMaster();
      await world.legacy.startMaster();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      const { results: lost, requests } = world.legacy.ways.masterStopped;
      const runs = ['exception/worker-shutdown', 'completed/completed'];
      await ended(world, taskId, { runs, results: [lost, 0], requests });
    },
  },
  {
    name: 'master killed while building',
    async tell(world) {
      const taskId = await world.createTask({ builder: 'slow' });
      await building(world, taskId);
      await world.legacy.killMaster();
      await world.legacy.startMaster();
      await building(world, taskId, ['exception/worker-shutdown', 'running']);
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      await ended(world, taskId, { runs: ['exception/worker-shutdown', 'completed/completed'], results: [5, 0] });
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
      const runs = ['completed/completed', 'completed/completed'];
      await ended(world, taskId, { runs, results: [0, 0], requests: 2 });
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
      await ended(world, taskId, { runs: ['failed/failed', 'failed/failed'], results: [2, 2], requests: 2 });
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
      await world.legacy.finish(taskId);
      await world.resolved(taskId, 'completed');
      const runs = ['exception/canceled', 'completed/completed'];
      await ended(world, taskId, { runs, results: [world.legacy.ways.stopped, 0], requests: 2 });
    },
  },
  {
    name: 'three tasks for the same builder and sourcestamp at once are all built',
    async tell(world) {
      const revision = 'the-same-revision';
      const taskIds = await Promise.all([1, 2, 3].map(() => world.createTask({ builder: 'quick-2', revision })));
      for (const taskId of taskIds) {
        await world.resolved(taskId, 'completed');
        await ended(world, taskId, { runs: ['completed/completed'], results: [0] });
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
      expect(await world.legacy.requests(bridged)).toEqual([]);
      await world.client.reportCompleted(before, 0);
      await world.resolved(bridged, 'completed');
      await world.until('the task after it to be pending', () => world.runs(after)[0] === 'pending');
      await world.client.claimTask(after, 0, native);
      await world.client.reportCompleted(after, 0);
      expect(world.runs(after)).toEqual(['completed/completed']);
      await ended(world, bridged, { runs: ['completed/completed'], results: [0] });
    },
  },
  {
    name: 'bad payloads are refused with a log that says what is wrong and how to mend it',
    async tell(world) {
      const refused: (readonly [unknown, string, (readonly string[])?])[] = [
        [{ sourcestamp: { branch: 'main' } }, 'payload.buildername'],
        [{ buildername: 'no-such-builder' }, 'there is no builder "no-such-builder"'],
        [{ buildername: 5, sourcestamp: 'x', properties: [] }, 'payload.properties'],
        [{ buildername: 'success', surprise: 1 }, 'surprise'],
        [{ buildername: 'release-x' }, 'buildbot-bridge:builder-name:release-x'],
        [{ buildername: 'release-x' }, 'restricted', ['buildbot-bridge:builder-name:release-y']],
        ...world.legacy.ways.refused,
      ];
      for (const [payload, words, scopes] of refused) {
        const taskId = await world.createTask({ payload, scopes: scopes ?? [] });
        await world.resolved(taskId, 'exception', 'malformed-payload');
        expect(world.artifact(taskId, 0, 'public/logs/live_backing.log')).toContain(words);
        expect(world.artifactNames(taskId, 0)).toEqual(EXPLAINED);
        expect(await world.legacy.requests(taskId)).toEqual([]);
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
