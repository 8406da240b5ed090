/** The whole daemon, with secrets that cannot be mistaken, through everything that makes it talk: none of them shows. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import slugid from 'slugid';
import taskcluster from 'taskcluster-client';
import { systemClock } from '../../src/clock.ts';
import { connect } from '../../src/db/connection.ts';
import { type BuildbotEmulator, createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { createQueueEmulator, type QueueEmulator } from '../../src/sandbox/queue/emulator.ts';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { startPulsePublisher } from '../support/pulse-publisher.ts';
import { postgres, rabbitmq } from '../support/services/index.ts';
import { startTcpGate, type TcpGate } from '../support/tcp-gate.ts';
import { BRIDGE_SCOPES, EXCHANGES, ROOT, taskDefinition } from '../support/world.ts';

const mark = () => randomBytes(9).toString('hex');
/** With characters that URLs escape. */
const SECRETS = {
  taskcluster: `tc-${mark()}+/=`,
  pulse: `pulse-${mark()}@:/?#é`,
  database: `db-${mark()}@:/?#%`,
  buildbot: `bb-${mark()}:"é`,
};
/** What is looked for: nothing else has it, however the rest is escaped. */
const marks = Object.values(SECRETS).map((secret) => /-([0-9a-f]{18})/.exec(secret)?.[1] ?? '');

const undo: (() => unknown)[] = [];
const daemons: Daemon[] = [];
let queue: QueueEmulator;
let buildbot: BuildbotEmulator;
let gate: TcpGate;
let config: Record<string, unknown>;
let databaseUrl: string;
const faults = createFaults();
const masterFaults = createFaults();

beforeAll(async () => {
  const rabbit = await rabbitmq().createVhost();
  undo.push(() => rabbit.drop());
  const pulse = await startPulsePublisher(rabbit.adminUrl, EXCHANGES);
  undo.push(() => pulse.close());
  const pulseUrl = new URL(rabbit.url);
  const user = `bridge-${mark()}`;
  await rabbitmq().ctl('add_user', user, SECRETS.pulse);
  undo.push(() => rabbitmq().ctl('delete_user', user));
  await rabbitmq().ctl('set_permissions', '-p', pulseUrl.pathname.slice(1), user, '.*', '.*', '.*');
  pulseUrl.username = user;
  pulseUrl.password = encodeURIComponent(SECRETS.pulse);

  const database = await postgres().createDatabase();
  databaseUrl = database.url;
  const admin = connect(database.url);
  const role = `r${mark()}`;
  await admin.raw(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${SECRETS.database}'`);
  await admin.destroy();
  undo.push(() => database.drop());
  const target = new URL(database.url);
  gate = await startTcpGate(target.hostname, Number(target.port));
  undo.push(() => gate.stop());
  target.username = role;
  target.password = encodeURIComponent(SECRETS.database);
  target.port = String(gate.port);

  const client = { clientId: 'bridge', accessToken: SECRETS.taskcluster, scopes: BRIDGE_SCOPES };
  queue = createQueueEmulator({ clock: systemClock, clients: [ROOT, client], faults, publish: pulse.publish });
  await queue.start();
  undo.push(() => queue.stop());

  buildbot = createBuildbotEmulator({
    clock: systemClock,
    version: '3.7',
    builders: [
      {
        name: 'success',
        workers: ['w'],
        attempts: [{ results: 0, durationMs: 200, steps: [{ name: 's', log: 'l\n' }] }],
      },
    ],
    forceSchedulers: [
      { name: 'bridge', builderNames: ['success'], parameters: [{ name: 'taskId' }, { name: 'product' }] },
    ],
    users: { bridge: SECRETS.buildbot },
    faults: masterFaults,
  });
  await buildbot.start();
  undo.push(() => buildbot.stop());

  config = {
    taskcluster: { rootUrl: queue.rootUrl, credentials: { clientId: 'bridge', accessToken: SECRETS.taskcluster } },
    pulse: { url: pulseUrl.href, namespace: 'bridge' },
    database: { url: target.href },
    legacyCi: {
      kind: 'data-api',
      dataApi: { url: buildbot.url, forceScheduler: 'bridge', username: 'bridge', password: SECRETS.buildbot },
    },
    reflector: { schedule: '* * * * * *', recheck: '1s' },
    bridge: { lease: '3s' },
    http: { port: 0 },
    log: { level: 'trace' },
  };
});
afterAll(async () => {
  for (const daemon of daemons) {
    await daemon.kill();
  }
  for (const work of undo.reverse()) {
    await work();
  }
});

async function start(changes: Record<string, unknown> = {}): Promise<Daemon> {
  const daemon = await startDaemon({ ...config, ...changes });
  daemons.push(daemon);
  return daemon;
}

const client = () => new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT });
async function create(wish: Parameters<typeof taskDefinition>[0] = {}): Promise<string> {
  const taskId = slugid.nice();
  await client().createTask(taskId, taskDefinition(wish));
  return taskId;
}
const isOver = (taskId: string, state = 'completed') =>
  eventually(() => queue.tasks.get(taskId)?.status.runs.at(-1)?.state === state, { timeoutMs: 60_000, what: state });
const said = (daemon: Daemon, words: RegExp) =>
  eventually(() => daemon.lines.some((line) => words.test(JSON.stringify(line))), {
    timeoutMs: 30_000,
    what: `${words} in the log`,
  });

/** Every process's command line and, of those that are ours to read, nothing else: an environment is private. */
function commandLines(): string {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      } catch {
        return '';
      }
    })
    .join('\n');
}

describe('secrets', () => {
  it('show nowhere, whatever goes wrong', async () => {
    const daemon = await start();
    await isOver(await create());
    expect(commandLines()).not.toMatch(new RegExp(marks.join('|')));

    gate.cut();
    const second = await create();
    await create({ builder: 'nope' });
    // Wrong answers, none, and refusals.
    const times = 6;
    faults.http.push({ takesEffect: false, times, outcome: { kind: 'status', status: 500 } });
    faults.http.push({ takesEffect: false, times, outcome: { kind: 'status', status: 401 } });
    faults.http.push({ takesEffect: true, times, outcome: { kind: 'reset' } });
    masterFaults.http.push({ takesEffect: false, times, outcome: { kind: 'status', status: 403 } });
    masterFaults.http.push({ takesEffect: false, times, outcome: { kind: 'status', status: 500 } });
    masterFaults.http.push({ takesEffect: false, times, outcome: { kind: 'reset' } });
    gate.release();
    await said(daemon, /pass failed/);
    faults.http.length = 0;
    masterFaults.http.length = 0;

    gate.cut();
    await said(daemon, /store-unavailable/);
    gate.release();
    await rabbitmq().ctl(
      'close_all_user_connections',
      new URL(String(Reflect.get(Object(config.pulse), 'url'))).username,
      'x',
    );
    await said(daemon, /connection to Pulse lost/);
    await buildbot.restartMaster('kill', 300);
    await said(daemon, /Buildbot/);
    await isOver(second);

    // The same secrets, but none of them is right.
    const wrong = {
      ...Object(config.pulse),
      url: String(Reflect.get(Object(config.pulse), 'url')).replace('amqp://', 'amqp://x'),
    };
    const other = await start({
      pulse: wrong,
      taskcluster: { rootUrl: queue.rootUrl, credentials: { clientId: 'nobody', accessToken: SECRETS.taskcluster } },
      legacyCi: {
        kind: 'data-api',
        dataApi: { url: buildbot.url, forceScheduler: 'bridge', username: 'nobody', password: SECRETS.buildbot },
      },
    });
    await said(other, /Pulse refuses the user/);
    await said(other, /queue-forbidden/);

    const db = connect(databaseUrl);
    const tables = ['tasks', 'events', 'instances', 'kept_builds'];
    const rows = await Promise.all(tables.map(async (table): Promise<unknown[]> => db(table)));
    await db.destroy();
    const artifacts = [...queue.tasks.list()].flatMap((task) =>
      task.artifacts.map((artifact) => `${JSON.stringify(artifact)} ${artifact.content()?.toString() ?? ''}`),
    );
    expect(rows.flat().length).toBeGreaterThan(10);
    expect(artifacts.length).toBeGreaterThan(6);
    const seen = {
      log: daemons.map(({ lines }) => JSON.stringify(lines)).join('\n'),
      rows: JSON.stringify(rows),
      artifacts: artifacts.join('\n'),
      commands: commandLines(),
    };
    for (const [where, text] of Object.entries(seen)) {
      expect({ where, found: marks.filter((one) => text.includes(one)) }).toEqual({ where, found: [] });
    }
  });
});
