/** Emulated Buildbots that want passwords of the bridge. */
import got from 'got';
import { systemClock } from '../../../src/clock.ts';
import { createBuildbotEmulator } from '../../../src/sandbox/buildbot/emulator.ts';
import { createClassicBuildbot } from '../../../src/sandbox/classic/emulator.ts';
import { createFaults, type Faults } from '../../../src/sandbox/faults.ts';
import { startPulsePublisher } from '../pulse-publisher.ts';
import { allRows, createSecretDatabase, type SecretDatabase, whole } from './databases.ts';
import { type Planted, plant } from './marks.ts';

export type LegacyKind = 'data-api' | 'stock' | 'mozilla';

/** A way to give it a wrong secret. */
export interface WrongLegacy {
  readonly legacyCi: object;
  /** What the bridge says then. */
  readonly says: RegExp;
}

export interface SecretLegacy {
  readonly secrets: readonly Planted[];
  /** The bridge's section. */
  readonly legacyCi: object;
  readonly wrong: readonly WrongLegacy[];
  /** Of its web servers. */
  readonly faults: Faults;
  /** The scheduler database; absent where there is none. */
  readonly database?: SecretDatabase;
  /** Kills the master and brings it back. */
  restart(): Promise<void>;
  /** Whether something runs, or waits, there. */
  isBusy(): Promise<boolean>;
  /** All that it knows of requests and builds, with their reasons and properties. */
  records(): Promise<string>;
  stop(): Promise<void>;
}

const USER = 'bridge';
const EXCHANGE = 'exchange/build/';
const steps = [{ name: 's', log: 'l\n' }];
const BUILDERS = [
  { name: 'success', workers: ['w'], attempts: [{ results: 0, durationMs: 200, steps }] },
  { name: 'slow', workers: ['w-slow'], attempts: [{ results: 0, durationMs: 'wait' as const, steps }] },
];

/** @param pulseUrl of the broker, with all rights */
export async function startSecretLegacy(kind: LegacyKind, pulseUrl: string): Promise<SecretLegacy> {
  return kind === 'data-api' ? startModern() : startClassic(kind, pulseUrl);
}

async function startModern(): Promise<SecretLegacy> {
  const password = plant('buildbot');
  const faults = createFaults();
  const parameters = [{ name: 'taskId' }, { name: 'product' }];
  const buildbot = createBuildbotEmulator({
    ...{ clock: systemClock, version: '3.7', faults, builders: BUILDERS, users: { [USER]: password.value } },
    forceSchedulers: [{ name: 'bridge', builderNames: BUILDERS.map(({ name }) => name), parameters }],
  });
  await buildbot.start();
  const section = (secret: string) => ({
    kind: 'data-api',
    dataApi: { url: buildbot.url, forceScheduler: 'bridge', username: USER, password: secret },
  });
  return {
    secrets: [password],
    legacyCi: section(password.value),
    wrong: [{ legacyCi: section(`${password.value}x`), says: /Buildbot does not take the user name and password/ }],
    faults,
    restart: () => buildbot.restartMaster('kill', 300),
    isBusy: async () => buildbot.master.state.requests.some(({ complete }) => !complete),
    records: async () => whole(buildbot.master.state),
    stop: () => buildbot.stop(),
  };
}

async function startClassic(kind: 'stock' | 'mozilla', pulseUrl: string): Promise<SecretLegacy> {
  const isMozilla = kind === 'mozilla';
  const [databasePassword, password] = [plant('scheduler-db'), plant('web-status')];
  const faults = createFaults();
  const database = await createSecretDatabase('mariadb', databasePassword);
  const pulse = await startPulsePublisher(pulseUrl, [EXCHANGE]);
  const buildbot = createClassicBuildbot({
    ...{ clock: systemClock, faults, databaseUrl: database.adminUrl, builders: BUILDERS },
    ...{ schema: isMozilla ? 'A' : 'B', flavour: kind, masterName: 'bm1.example.com:/builds/buildbot/master' },
    ...{ pollIntervalMs: 150, publish: pulse.publish, eventDelayMs: 100, logUploadDelayMs: 200 },
    branches: { main: { repo: 'https://hg.example.com/integration/main' } },
    ...(isMozilla ? {} : { auth: { username: USER, password: password.value } }),
  });
  await buildbot.start();
  const site = (secret: string) =>
    isMozilla
      ? { pulseExchange: EXCHANGE, selfServeUrl: buildbot.selfServeUrl, buildersUrl: buildbot.buildersUrl }
      : { webStatus: { url: buildbot.webStatusUrl, username: USER, password: secret }, pollInterval: '200ms' };
  const section = (url: string, secret: string) => ({
    kind: 'scheduler-db',
    schedulerDb: { url, outcomeWait: '20s', ...site(secret) },
  });
  const wrongUrl = new URL(database.url);
  wrongUrl.password = encodeURIComponent(`${databasePassword.value}x`);
  return {
    secrets: isMozilla ? [databasePassword] : [databasePassword, password],
    legacyCi: section(database.url, password.value),
    wrong: [
      { legacyCi: section(wrongUrl.href, password.value), says: /the scheduler database refuses/ },
      ...(isMozilla
        ? []
        : [
            { legacyCi: section(database.url, `${password.value}x`), says: /does not take the user name and password/ },
          ]),
    ],
    faults,
    database,
    async restart() {
      await buildbot.killMaster();
      await buildbot.startMaster();
    },
    isBusy: async () => (await buildbot.requests()).some(({ complete }) => complete === 0),
    async records() {
      const pages = isMozilla
        ? []
        : BUILDERS.map(({ name }) => got.get(`${buildbot.webStatusUrl}/json/builders/${name}/builds`).text());
      return [await allRows(database.adminUrl), ...(await Promise.all(pages))].join('\n');
    },
    async stop() {
      await buildbot.stop();
      await pulse.close();
      await database.drop();
    },
  };
}
