/** All that a daemon needs but a database: a real broker, and an emulated queue and Buildbot that are told apart by nothing. */
import slugid from 'slugid';
import taskcluster from 'taskcluster-client';
import { systemClock } from '../../src/clock.ts';
import { createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator } from '../../src/sandbox/queue/emulator.ts';
import { eventually } from './eventually.ts';
import { startPulsePublisher } from './pulse-publisher.ts';
import { rabbitmq } from './services/index.ts';
import { BRIDGE, EXCHANGES, ROOT, taskDefinition } from './world.ts';

/** @param undo takes what is to be undone, last first */
export async function startSurroundings(undo: (() => unknown)[]) {
  const rabbit = await rabbitmq().createVhost();
  undo.push(() => rabbit.drop());
  const pulse = await startPulsePublisher(rabbit.adminUrl, EXCHANGES);
  undo.push(() => pulse.close());
  const queue = createQueueEmulator({
    ...{ clock: systemClock, clients: [ROOT, BRIDGE], faults: createFaults(), publish: pulse.publish },
  });
  await queue.start();
  undo.push(() => queue.stop());
  const buildbot = createBuildbotEmulator({
    ...{ clock: systemClock, version: '3.7', faults: createFaults() },
    builders: [{ name: 'success', workers: ['w'], attempts: [{ results: 0, durationMs: 200 }] }],
    forceSchedulers: [
      { name: 'bridge', builderNames: ['success'], parameters: [{ name: 'taskId' }, { name: 'product' }] },
    ],
  });
  await buildbot.start();
  undo.push(() => buildbot.stop());
  const client = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT });

  return {
    ...{ rabbit, pulse, queue, buildbot },
    configFor: (databaseUrl: string) => ({
      taskcluster: {
        rootUrl: queue.rootUrl,
        credentials: { clientId: BRIDGE.clientId, accessToken: BRIDGE.accessToken },
      },
      pulse: { url: rabbit.url, namespace: 'bridge' },
      database: { url: databaseUrl },
      legacyCi: { kind: 'data-api', dataApi: { url: buildbot.url, forceScheduler: 'bridge' } },
      reflector: { schedule: '* * * * * *', recheck: '1s' },
      bridge: { lease: '6s' },
      http: { port: 0 },
      log: { level: 'info' },
    }),
    async createTask(): Promise<string> {
      const taskId = slugid.nice();
      await client.createTask(taskId, taskDefinition({}));
      return taskId;
    },
    isBuilt: (taskId: string) =>
      eventually(() => queue.tasks.get(taskId)?.status.state === 'completed', { timeoutMs: 60_000, what: 'a build' }),
  };
}
