/** Three bridges on real servers, with a bad network in between. */
import taskcluster, { type Queue } from 'taskcluster-client';
import { systemClock } from '../../src/clock.ts';
import { createFaults, type Faults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator, type QueueEmulator } from '../../src/sandbox/queue/emulator.ts';
import { type ChaosProxy, startChaosProxy, through } from '../support/chaos-proxy.ts';
import { type Daemon, migrateDatabase, runDaemon } from '../support/daemon.ts';
import type { LegacyCast, LegacySide } from '../support/legacy/legacy-side.ts';
import { type PulsePublisher, startPulsePublisher } from '../support/pulse-publisher.ts';
import { mariadb, rabbitmq } from '../support/services/index.ts';
import { BRIDGE, EXCHANGES, ROOT } from '../support/world.ts';

/** In front of everything that bridges talk to, but the queue, which has faults of its own. */
export interface Proxies {
  readonly pulse: ChaosProxy;
  readonly database: ChaosProxy;
  readonly legacy: ChaosProxy;
  /** Where there is one. */
  readonly selfServe?: ChaosProxy;
  readonly builders?: ChaosProxy;
}

export interface Stage {
  readonly queue: QueueEmulator;
  readonly faults: Faults;
  readonly client: Queue;
  readonly legacy: LegacySide;
  readonly pulse: PulsePublisher;
  readonly proxies: Proxies;
  readonly bridges: Daemon[];
  /** In words, of each bridge so far that died of itself: others would do its work, and nobody would see it. */
  readonly crashes: readonly string[];
  /** Of the mapping database. */
  readonly databaseUrl: string;
  /** The most memory that any bridge has had so far, in bytes, those that have ended included. */
  peakMemory(): number;
  /** Starts a bridge (again) in this place. */
  restart(place: number): Daemon;
  stop(): Promise<void>;
}

const BRIDGES = 3;
const CLAIM_TIMEOUT_MS = 40_000;

/** @param random decides which calls and messages a fault rule of the queue hits; uniform in [0, 1) */
export async function startStage(
  start: (cast: LegacyCast) => Promise<LegacySide>,
  random: () => number,
): Promise<Stage> {
  const rabbit = await rabbitmq().createVhost();
  const pulse = await startPulsePublisher(rabbit.adminUrl, EXCHANGES);
  const database = await mariadb().createDatabase();
  const legacy = await start({ hasListener: true, pulseUrl: rabbit.adminUrl });
  const faults = createFaults(random);
  const queue = createQueueEmulator({
    clock: systemClock,
    clients: [ROOT, BRIDGE],
    faults,
    claimTimeoutMs: CLAIM_TIMEOUT_MS,
    deadlineDelayMs: 1000,
    publish: pulse.publish,
  });
  await queue.start();
  const proxies = {
    pulse: await startChaosProxy(new URL(rabbit.url)),
    database: await startChaosProxy(new URL(database.url)),
    legacy: await startChaosProxy(new URL(legacy.url)),
    ...(legacy.site && (await startSiteProxies(legacy.site))),
  };
  const config = {
    taskcluster: {
      rootUrl: queue.rootUrl,
      credentials: { clientId: BRIDGE.clientId, accessToken: BRIDGE.accessToken },
    },
    pulse: { url: through(rabbit.url, proxies.pulse), namespace: 'bridge' },
    database: { url: through(database.url, proxies.database) },
    legacyCi: throughProxies(legacy, proxies),
    reflector: { schedule: '*/2 * * * * *', recheck: '2s', reclaimThreshold: '15s' },
    bridge: { lease: '15s', shutdownTimeout: '10s' },
    http: { port: 0 },
    log: { level: 'info' },
  };
  await migrateDatabase(config);
  const crashes: string[] = [];
  const run = () => {
    const daemon = runDaemon(config);
    void daemon.crash.then((crash) => crash !== undefined && crashes.push(crash));
    return daemon;
  };
  const bridges = Array.from({ length: BRIDGES }, run);
  await Promise.all(bridges.map(({ started }) => started));
  let peakOfEnded = 0;
  return {
    ...{ queue, faults, legacy, pulse, proxies, bridges, crashes, databaseUrl: database.url },
    // The people's client does not suffer from the bridges' network, but from the queue's own faults it does.
    client: new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT, retries: 0 }),
    peakMemory: () => Math.max(peakOfEnded, ...bridges.map((bridge) => bridge.peakMemory())),
    restart(place) {
      const daemon = run();
      peakOfEnded = Math.max(peakOfEnded, bridges[place]?.peakMemory() ?? 0);
      bridges[place] = daemon;
      return daemon;
    },
    async stop() {
      for (const bridge of bridges) {
        bridge.resume();
      }
      await Promise.all(bridges.map((bridge) => bridge.stop()));
      await Promise.all(Object.values(proxies).map((proxy) => proxy.stop()));
      await queue.stop();
      await legacy.stop();
      await database.drop();
      await pulse.close();
      await rabbit.drop();
    },
  };
}

/** Both are one server; each has its faults at times of its own. */
async function startSiteProxies({ selfServeUrl, buildersUrl }: NonNullable<LegacySide['site']>) {
  return {
    selfServe: await startChaosProxy(new URL(selfServeUrl)),
    builders: await startChaosProxy(new URL(buildersUrl)),
  };
}

/** The `legacyCi` section, with the proxies in place of the servers. */
function throughProxies({ config, url, site }: LegacySide, { legacy, selfServe, builders }: Proxies): object {
  let text = JSON.stringify(config).replaceAll(new URL(url).host, `127.0.0.1:${legacy.port}`);
  if (site && selfServe && builders) {
    text = text
      .replaceAll(site.selfServeUrl, through(site.selfServeUrl, selfServe))
      .replaceAll(site.buildersUrl, through(site.buildersUrl, builders));
  }
  return JSON.parse(text);
}
