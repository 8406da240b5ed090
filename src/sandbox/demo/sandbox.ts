/** What the demo runs on: an emulated Taskcluster, and an emulated or a real Buildbot, broker and database. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect as connectAmqp } from 'amqplib';
import { pino } from 'pino';
import taskcluster, { type Queue } from 'taskcluster-client';
import { z } from 'zod';
import { SERVICES } from '../../bridge.ts';
import { systemClock } from '../../clock.ts';
import { type Config, parseConfig } from '../../config.ts';
import { connect, migrate } from '../../db/connection.ts';
import { createLog } from '../../log.ts';
import { createProcess, instanceName } from '../../main.ts';
import type { Broker } from '../../ports.ts';
import { createInProcessBroker, type PublishedMessage } from '../broker.ts';
import { createFaults } from '../faults.ts';
import { createQueueEmulator, type QueueEmulator } from '../queue/emulator.ts';
import { type DemoLegacy, startClassic, startModern } from './legacy.ts';

export interface Sandbox {
  readonly queue: QueueEmulator;
  readonly client: Queue;
  readonly legacy: DemoLegacy;
  /** Where the bridge's log is. */
  readonly logFile: string;
  /** Lets the build of `release-source` end; the demo never does. */
  stop(): Promise<void>;
}

/** Real servers, as the demo script has started them. */
const realSchema = z.object({
  pulseUrl: z.string(),
  adminUrl: z.string(),
  databaseUrl: z.string(),
  /** Of a modern Buildbot; or of the database in which a classic one is emulated. */
  buildbotUrl: z.string().optional(),
  schedulerDbUrl: z.string().optional(),
});
type Addresses = z.infer<typeof realSchema>;

const ROOT = { clientId: 'sandbox/root', accessToken: 'sandbox-root-access-token', scopes: ['*'] };
const BRIDGE = { clientId: 'sandbox/bridge', accessToken: 'sandbox-bridge-access-token', scopes: ['*'] };
const EXCHANGES = [
  ...['task-defined', 'task-pending', 'task-running', 'task-completed', 'task-failed', 'task-exception'],
  ...['task-group-resolved', 'task-group-sealed', 'artifact-created'],
  ...['task-priority-changed', 'task-group-priority-changed'],
];
const PREFIX = 'exchange/taskcluster-queue/v1';

/** Starts everything, and the real bridge on it. @param real JSON of the real servers' addresses; emulated if absent */
export async function startSandbox(real: string | undefined): Promise<Sandbox> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-demo-'));
  const stops: (() => Promise<unknown>)[] = [async () => rmSync(folder, { recursive: true, force: true })];
  const stop = async () => {
    for (const end of stops.reverse()) {
      await end();
    }
  };
  const addresses = real === undefined ? undefined : realSchema.parse(JSON.parse(real));
  const { publish, broker } = addresses ? await openPulse(addresses.adminUrl, stops) : openBroker();
  const queue = createQueueEmulator({
    clock: systemClock,
    clients: [ROOT, BRIDGE],
    faults: createFaults(),
    deadlineDelayMs: 1000,
    resolutionDelayMs: 500,
    publish,
  });
  await queue.start();
  stops.push(() => queue.stop());
  const legacy = await startLegacy(addresses);
  stops.push(() => legacy.stop());
  const config = demoConfig(queue.rootUrl, legacy.config, {
    pulseUrl: addresses?.pulseUrl ?? 'amqp://in-process/',
    databaseUrl: addresses?.databaseUrl ?? `sqlite:${path.join(folder, 'bridge.db')}`,
  });
  const logFile = path.join(tmpdir(), `bbb-demo-${process.pid}.log`);
  const bridgeStop = await startBridge(config, logFile, broker);
  stops.push(bridgeStop);
  const client = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT });
  return { queue, client, legacy, logFile, stop };
}

function startLegacy(addresses: Addresses | undefined): Promise<DemoLegacy> {
  return addresses?.schedulerDbUrl === undefined
    ? startModern(addresses?.buildbotUrl)
    : startClassic({ adminUrl: addresses.adminUrl, databaseUrl: addresses.schedulerDbUrl });
}

function openBroker(): { publish: (message: PublishedMessage) => void; broker: Broker } {
  const broker = createInProcessBroker(createFaults());
  return { publish: broker.publish, broker };
}

/** Taskcluster's part of a real Pulse. */
async function openPulse(
  adminUrl: string,
  stops: (() => Promise<unknown>)[],
): Promise<{ publish: (message: PublishedMessage) => void; broker: undefined }> {
  const connection = await connectAmqp(adminUrl);
  stops.push(() => connection.close());
  const channel = await connection.createChannel();
  for (const name of EXCHANGES) {
    await channel.assertExchange(`${PREFIX}/${name}`, 'topic', { durable: true });
  }
  return {
    publish: ({ exchange, routingKey, payload }) => {
      channel.publish(exchange, routingKey, Buffer.from(JSON.stringify(payload)), { persistent: true });
    },
    broker: undefined,
  };
}

function demoConfig(
  rootUrl: string,
  legacyCi: object,
  { pulseUrl, databaseUrl }: { pulseUrl: string; databaseUrl: string },
): Config {
  return parseConfig(
    {
      taskcluster: { rootUrl, credentials: { clientId: BRIDGE.clientId, accessToken: BRIDGE.accessToken } },
      pulse: { url: pulseUrl, namespace: 'bridge' },
      database: { url: databaseUrl },
      legacyCi,
      reflector: { schedule: '*/5 * * * * *', recheck: '5s' },
      http: { port: 0 },
    },
    {},
    'the demo',
  );
}

/** @returns how to stop it */
async function startBridge(config: Config, logFile: string, broker: Broker | undefined): Promise<() => Promise<void>> {
  const db = connect(config.database.url.reveal());
  await migrate(db);
  await db.destroy();
  const destination = pino.destination({ dest: logFile, sync: true });
  const instance = instanceName(config);
  const log = createLog({ level: 'debug', base: { instance }, destination });
  const { parts } = createProcess({ config, services: SERVICES, instance, log, ...(broker ? { broker } : {}) });
  for (const part of parts) {
    await part.start();
  }
  return async () => {
    for (const part of [...parts].reverse()) {
      await part.stop();
    }
  };
}
