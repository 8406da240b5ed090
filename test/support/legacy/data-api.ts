/** A real Buildbot 3.7, driven over its Data API. */
import { startHttpGate } from '../http-gate.ts';
import { startBuildbot } from '../services/index.ts';
import type { LegacyBuild, LegacyRequest, LegacySide } from './legacy-side.ts';

interface RequestRecord {
  readonly buildrequestid: number;
  readonly complete: boolean;
}
interface BuildRecord {
  readonly buildid: number;
  readonly complete: boolean;
  readonly results: number | null;
}

export async function startDataApiSide(): Promise<LegacySide> {
  const buildbot = await startBuildbot();
  const gate = await startHttpGate(buildbot.url);

  async function requestRecords(taskId: string): Promise<RequestRecord[]> {
    const { buildsets } = await buildbot.get<{ buildsets: { bsid: number }[] }>(
      `buildsets?reason__contains=${encodeURIComponent(taskId)}`,
    );
    const found: RequestRecord[] = [];
    for (const { bsid } of buildsets) {
      const answer = await buildbot.get<{ buildrequests: RequestRecord[] }>(`buildrequests?buildsetid__eq=${bsid}`);
      found.push(...answer.buildrequests);
    }
    return found.sort((a, b) => a.buildrequestid - b.buildrequestid);
  }

  async function buildRecords(taskId: string): Promise<BuildRecord[]> {
    const found: BuildRecord[] = [];
    for (const { buildrequestid } of await requestRecords(taskId)) {
      const answer = await buildbot.get<{ builds: BuildRecord[] }>(`builds?buildrequestid__eq=${buildrequestid}`);
      found.push(...answer.builds);
    }
    return found.sort((a, b) => a.buildid - b.buildid);
  }

  return {
    kind: 'data-api',
    ways: {
      stopped: 6,
      masterStopped: { results: 6, requests: 2 },
      artifacts: [
        'public/buildbot/status.json',
        'public/logs/live.log',
        'public/logs/live_backing.log',
        'public/properties.json',
      ],
      source: 'Force Build Form',
      log: 'stored',
      refused: [
        [{ buildername: 'outside' }, 'there is no builder "outside"'],
        [{ buildername: 'success', properties: { a: '1', b: '2', c: '3', d: '4' } }, 'util.StringParameter(name="d"'],
        [{ buildername: 'success', properties: { number: 'many' } }, 'payload.properties.number'],
      ],
    },
    url: gate.url,
    config: {
      kind: 'data-api',
      absentGrace: '3s',
      dataApi: { url: gate.url, forceScheduler: 'bridge' },
    },
    requests: async (taskId): Promise<LegacyRequest[]> =>
      (await requestRecords(taskId)).map((request) => ({
        buildRequestId: request.buildrequestid,
        isComplete: request.complete,
      })),
    builds: async (taskId): Promise<LegacyBuild[]> =>
      (await buildRecords(taskId)).map(({ complete, results }) => ({ results: complete ? results : null })),
    begun: (taskId, count) => buildbot.begun(taskId, count),
    finish: (taskId) => buildbot.finish(taskId),
    async cancelRequest(taskId) {
      const request = (await requestRecords(taskId)).at(-1);
      await buildbot.control(`buildrequests/${request?.buildrequestid}`, 'cancel');
    },
    async stopBuild(taskId) {
      const build = (await buildRecords(taskId)).at(-1);
      await buildbot.control(`builds/${build?.buildid}`, 'stop');
    },
    stopMaster: () => buildbot.stopMaster(),
    killMaster: () => buildbot.killMaster(),
    startMaster: () => buildbot.startMaster(),
    killWorker: () => buildbot.killWorker(),
    startWorker: () => buildbot.startWorker(),
    holdSubmission: (when) => gate.hold(/POST .*forceschedulers/, when),
    cut: () => gate.cut(),
    release: () => gate.release(),
    async stop() {
      gate.release();
      await gate.stop();
      await buildbot.stop();
    },
  };
}
