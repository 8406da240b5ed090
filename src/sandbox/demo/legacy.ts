/** The Buildbot of the demo, as its people see it: emulated or real, a modern one or a classic one. */
import { connect as connectAmqp } from 'amqplib';
import got from 'got';
import { systemClock } from '../../clock.ts';
import { connect } from '../../db/connection.ts';
import { createBuildbotEmulator } from '../buildbot/emulator.ts';
import type { Attempt, BuilderOptions } from '../buildbot/state.ts';
import { createClassicBuildbot } from '../classic/emulator.ts';
import type { BuildMessage } from '../classic/options.ts';
import { createFaults } from '../faults.ts';

export interface DemoLegacy {
  /** The bridge's `legacyCi` section. */
  readonly config: object;
  /** Where to look, for people. */
  readonly page: string;
  /** Whether all of a task's build requests are complete. */
  isSettled(taskId: string): Promise<boolean>;
  /** How many build requests a task has. */
  requests(taskId: string): Promise<number>;
  builds(taskId: string): Promise<readonly { readonly number: number; readonly results: number | null }[]>;
  /** As a person does it on the page. */
  cancelRequest(taskId: string): Promise<void>;
  stop(): Promise<void>;
}

const quick: Attempt = {
  results: 0,
  durationMs: 1500,
  steps: [
    { name: 'checkout', log: 'checking out\ndone\n' },
    { name: 'build', log: 'compiling...\nall good\n' },
  ],
  properties: { artifact_url: 'http://downloads.example.com/build.zip' },
};
const retried: Attempt = {
  results: 5,
  durationMs: 1500,
  steps: [{ name: 'checkout', log: 'error 500 from the server\n' }],
};
const BUILDERS: readonly BuilderOptions[] = [
  { name: 'release-linux64-build', workers: ['w1'], attempts: [quick] },
  { name: 'release-win64-build', workers: ['w2'], attempts: [retried, quick] },
  { name: 'release-macosx64-build', workers: [], attempts: [quick] },
  { name: 'release-linux64-repack', workers: ['w1'], attempts: [quick] },
  { name: 'release-source', workers: ['w3'], attempts: [{ results: 0, durationMs: 'wait' }] },
  { name: 'release-android-build', workers: [], attempts: [quick] },
];

/** @param url of a real Buildbot; emulated if absent */
export async function startModern(url: string | undefined): Promise<DemoLegacy> {
  const emulator = url === undefined ? await startEmulator() : undefined;
  const base = url ?? emulator?.url ?? '';
  const read = <T>(below: string): Promise<T> => got.get(`${base}/api/v2/${below}`).json<T>();

  async function buildsets(taskId: string): Promise<readonly { readonly bsid: number; readonly complete: boolean }[]> {
    const query = `reason__contains=${encodeURIComponent(taskId)}`;
    return (await read<{ buildsets: { bsid: number; complete: boolean }[] }>(`buildsets?${query}`)).buildsets;
  }

  async function requestIds(taskId: string): Promise<readonly number[]> {
    const all = await Promise.all(
      (await buildsets(taskId)).map(({ bsid }) =>
        read<{ buildrequests: { buildrequestid: number }[] }>(`buildrequests?buildsetid__eq=${bsid}`),
      ),
    );
    return all.flatMap(({ buildrequests }) => buildrequests.map(({ buildrequestid }) => buildrequestid));
  }

  return {
    config: { kind: 'data-api', dataApi: { url: base, forceScheduler: 'bridge' } },
    page: `${base}/api/v2/builders`,
    isSettled: async (taskId) => (await buildsets(taskId)).every(({ complete }) => complete),
    requests: async (taskId) => (await requestIds(taskId)).length,
    async builds(taskId) {
      const query = (await requestIds(taskId)).map((id) => `buildrequestid__in=${id}`).join('&');
      return query === ''
        ? []
        : (await read<{ builds: { number: number; results: number | null }[] }>(`builds?${query}`)).builds;
    },
    async cancelRequest(taskId) {
      const [request] = await requestIds(taskId);
      const json = { jsonrpc: '2.0', id: 1, method: 'cancel', params: { reason: 'not in this release' } };
      await got.post(`${base}/api/v2/buildrequests/${request}`, { json });
    },
    stop: async () => emulator?.stop(),
  };
}

async function startEmulator() {
  const emulator = createBuildbotEmulator({
    clock: systemClock,
    version: '3.7',
    builders: BUILDERS,
    forceSchedulers: [
      {
        name: 'bridge',
        builderNames: BUILDERS.map(({ name }) => name),
        parameters: [{ name: 'taskId' }, { name: 'product' }, { name: 'p1', type: 'any' }],
      },
    ],
    faults: createFaults(),
  });
  await emulator.start();
  return emulator;
}

const EXCHANGE = 'exchange/build/';
const RETRY = 5;

/** Mozilla's: a scheduler database, events on Pulse and Self-serve. */
export async function startClassic({
  adminUrl,
  databaseUrl,
}: {
  adminUrl: string;
  databaseUrl: string;
}): Promise<DemoLegacy> {
  const pulse = await connectAmqp(adminUrl);
  const channel = await pulse.createChannel();
  await channel.assertExchange(EXCHANGE, 'topic', { durable: true });
  const buildbot = createClassicBuildbot({
    clock: systemClock,
    faults: createFaults(),
    databaseUrl,
    schema: 'A',
    flavour: 'mozilla',
    masterName: 'bm1.example.com:/builds/buildbot/master',
    builders: BUILDERS,
    pollIntervalMs: 500,
    publish: ({ exchange, routingKey, payload }: BuildMessage) => {
      channel.publish(exchange, routingKey, Buffer.from(JSON.stringify(payload)), { persistent: true });
    },
    eventDelayMs: 200,
    logUploadDelayMs: 300,
    branches: { main: { repo: 'https://hg.example.com/releases/main' } },
  });
  await buildbot.start();
  const db = connect(databaseUrl);

  async function requestsOf(taskId: string) {
    const ids: number[] = await db('buildrequests as r')
      .join('buildsets as s', 's.id', 'r.buildsetid')
      .where('s.reason', `Created by BBB for task ${taskId}`)
      .orderBy('r.id')
      .pluck('r.id');
    return (await buildbot.requests()).filter(({ id }) => ids.includes(id));
  }

  return {
    config: {
      kind: 'scheduler-db',
      schedulerDb: {
        url: databaseUrl,
        pulseExchange: EXCHANGE,
        selfServeUrl: buildbot.selfServeUrl,
        buildersUrl: buildbot.buildersUrl,
      },
    },
    page: `${buildbot.webStatusUrl}/json/builders`,
    isSettled: async (taskId) => (await requestsOf(taskId)).every(({ complete }) => complete === 1),
    requests: async (taskId) => (await requestsOf(taskId)).length,
    async builds(taskId) {
      const requests = await requestsOf(taskId);
      const all = await buildbot.builds();
      // The database has no results of builds: those before the last one ended RETRY.
      return requests.flatMap((request) => {
        const own = all.filter(({ brid }) => brid === request.id);
        return own.map(({ number }, index) => ({
          number,
          results: index < own.length - 1 ? RETRY : request.complete === 1 ? (request.results ?? null) : null,
        }));
      });
    },
    async cancelRequest(taskId) {
      const [request] = await requestsOf(taskId);
      await buildbot.cancelRequest(request?.id ?? -1);
    },
    async stop() {
      await buildbot.stop();
      await db.destroy();
      await pulse.close();
    },
  };
}
