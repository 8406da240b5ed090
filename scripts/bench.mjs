/**
 * Measures what the bridge needs while it has little to do: `npm run bench [-- --mappings 1000 --seconds 180]`.
 * The daemon runs as in production, on a real RabbitMQ and a real MariaDB, with an emulated queue and Buildbot; half
 * of its tasks wait for a worker, the other half build. Says each figure and its ratio to what is promised.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ensureBuild, ensureDebianPackages, ensureNodeModules, ROOT, say } from './lib/packages.mjs';
import { run } from './lib/process.mjs';
import { startServices } from './services.mjs';

/** What is promised for 1,000 open mappings. */
const PROMISED = { rssMb: 120, cpuPercent: 1 };
const TICKS_PER_SECOND = 100;
const CLI = path.join(ROOT, 'dist/src/cli.js');

const { values } = parseArgs({
  options: { mappings: { type: 'string', default: '1000' }, seconds: { type: 'string', default: '180' } },
});
const mappings = Number(values.mappings);
const seconds = Number(values.seconds);

async function startSandbox(adminUrl) {
  const load = (name) => import(path.join(ROOT, 'dist/src', name));
  const [{ systemClock }, { createFaults }, { createQueueEmulator }, { createBuildbotEmulator }] = await Promise.all(
    ['clock.js', 'sandbox/faults.js', 'sandbox/queue/emulator.js', 'sandbox/buildbot/emulator.js'].map(load),
  );
  const { connect } = await import('amqplib');
  const pulse = await connect(adminUrl);
  // At the end RabbitMQ is stopped first.
  pulse.on('error', () => undefined);
  const channel = await pulse.createChannel();
  for (const name of ['defined', 'pending', 'running', 'completed', 'failed', 'exception']) {
    await channel.assertExchange(`exchange/taskcluster-queue/v1/task-${name}`, 'topic', { durable: true });
  }
  await channel.assertExchange('exchange/taskcluster-queue/v1/task-group-resolved', 'topic', { durable: true });
  await channel.assertExchange('exchange/taskcluster-queue/v1/artifact-created', 'topic', { durable: true });
  const client = { clientId: 'bench', accessToken: 'bench-access-token', scopes: ['*'] };
  const queue = createQueueEmulator({
    clock: systemClock,
    clients: [client],
    faults: createFaults(),
    publish: ({ exchange, routingKey, payload }) =>
      channel.publish(exchange, routingKey, Buffer.from(JSON.stringify(payload))),
  });
  await queue.start();
  const attempts = [{ results: 0, durationMs: 'wait' }];
  const buildbot = createBuildbotEmulator({
    clock: systemClock,
    version: '3.7',
    builders: [
      { name: 'waiting', workers: [], attempts },
      { name: 'building', workers: ['w1'], attempts },
    ],
    forceSchedulers: [
      { name: 'bridge', builderNames: ['waiting', 'building'], parameters: [{ name: 'taskId' }, { name: 'product' }] },
    ],
    faults: createFaults(),
  });
  await buildbot.start();
  return { queue, client, buildbotUrl: buildbot.url };
}

function configure({ queue, client, buildbotUrl }, { pulseUrl, databaseUrl }) {
  const { clientId, accessToken } = client;
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'bbb-bench-')), 'bridge.yml');
  const config = {
    taskcluster: { rootUrl: queue.rootUrl, credentials: { clientId, accessToken } },
    pulse: { url: pulseUrl, namespace: 'bridge' },
    database: { url: databaseUrl },
    legacyCi: { kind: 'data-api', dataApi: { url: buildbotUrl, forceScheduler: 'bridge' } },
    http: { port: 0 },
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}

/** The daemon, with all services and default settings; resolves when it has started. */
async function startDaemon(file, env) {
  await run(process.execPath, [CLI, 'migrate', '--config', file], { env });
  const child = spawn(process.execPath, [CLI, 'run', '--config', file], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  await new Promise((resolve, reject) => {
    lines.on('line', (line) => line.includes('"started"') && resolve());
    child.on('exit', (code) => reject(new Error(`bbb run ended with ${code}`)));
  });
  return child;
}

async function createTasks({ queue, client }) {
  const [{ default: taskcluster }, { default: slugid }] = await Promise.all([
    import('taskcluster-client'),
    import('slugid'),
  ]);
  const { clientId, accessToken } = client;
  const api = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: { clientId, accessToken } });
  const at = (hours) => new Date(Date.now() + hours * 3_600_000).toISOString();
  for (let made = 0; made < mappings; made += 1) {
    await api.createTask(slugid.nice(), {
      taskQueueId: 'buildbot/bridge',
      schedulerId: 'bench',
      created: at(0),
      deadline: at(24),
      expires: at(48),
      payload: {
        buildername: made % 2 === 0 ? 'waiting' : 'building',
        sourcestamp: { branch: 'main', revision: slugid.nice() },
        properties: { product: 'bench' },
      },
      metadata: { name: 'b', description: 'b', owner: 'b@example.com', source: 'https://example.com/b' },
    });
  }
}

/** Waits until half of the tasks are claimed, and everything else is asked for. */
async function settled({ queue, buildbotUrl }) {
  for (;;) {
    const running = queue.tasks.list().filter((task) => task.status.state === 'running').length;
    const answer = await fetch(`${buildbotUrl}/api/v2/buildrequests?complete=false`);
    const { meta } = await answer.json();
    if (running === Math.floor(mappings / 2) && meta.total === mappings) {
      return;
    }
    await sleep(1000);
  }
}

/** CPU seconds so far, and resident memory in MB. */
function usage(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  const rssKb = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return { cpu: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND, rssMb: Number(rssKb) / 1024 };
}

async function measure(pid) {
  const before = usage(pid);
  const samples = [];
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    await sleep(1000);
    samples.push(usage(pid).rssMb);
  }
  return { rssMb: Math.max(...samples), cpuPercent: ((usage(pid).cpu - before.cpu) / seconds) * 100 };
}

function report(name, figure, promised, unit) {
  process.stdout.write(
    `${name}: ${figure.toFixed(2)} ${unit}, ${(figure / promised).toFixed(2)} of the ${promised} ${unit} promised\n`,
  );
}

await ensureNodeModules();
await ensureDebianPackages();
await ensureBuild();
say('starting RabbitMQ and MariaDB');
const services = await startServices(['rabbitmq', 'mariadb']);
let daemon;
let file;
process.exitCode = 1;
try {
  const facts = JSON.parse(readFileSync(services.file, 'utf8'));
  const sandbox = await startSandbox(facts.rabbitmq.adminUrl);
  await run('mariadb', [...mariadbArguments(facts.mariadb.url), '-e', 'CREATE DATABASE bench']);
  file = configure(sandbox, { pulseUrl: facts.rabbitmq.url, databaseUrl: `${facts.mariadb.url}bench` });
  daemon = await startDaemon(file, services.env);
  say(`creating ${mappings} tasks`);
  await createTasks(sandbox);
  await settled(sandbox);
  // Whatever the rush has left behind is collected and given back.
  say('letting the bridge come to rest for a minute');
  await sleep(60_000);
  say(`measuring for ${seconds} s`);
  const { rssMb, cpuPercent } = await measure(daemon.pid);
  report(`idle with ${mappings} open mappings, most memory`, rssMb, PROMISED.rssMb, 'MB');
  report(`idle with ${mappings} open mappings, processor`, cpuPercent, PROMISED.cpuPercent, '% of a core');
  process.exitCode = 0;
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : error}\n`);
} finally {
  if (daemon?.exitCode === null) {
    daemon.removeAllListeners('exit');
    daemon.kill('SIGTERM');
    await once(daemon, 'exit');
  }
  if (file) {
    rmSync(path.dirname(file), { recursive: true, force: true });
  }
  await services.stop();
}
process.exit();

function mariadbArguments(url) {
  const { hostname, port, username, password } = new URL(url);
  return [`-h${hostname}`, `-P${port}`, `-u${username}`, `-p${password}`];
}
