/**
 * Installs what is missing, builds, and shows the demo: `npm run demo [-- --real | --classic] [-- --keep]`. With `--real`
 * it starts a private RabbitMQ, MariaDB and Buildbot first, with `--classic` only the first two, and stops them afterwards.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { startBuildbotCopy } from './lib/buildbot.mjs';
import { mariadb } from './lib/databases.mjs';
import { ensureBuild, ensureDebianPackages, ensureNodeModules, ROOT, say } from './lib/packages.mjs';
import { startServices } from './services.mjs';

const given = process.argv.slice(2);
let services;
let demo;
let isInterrupted = false;

// The demo ends by itself at a signal, and then this does. A terminal sends its Ctrl-C to the demo as well.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    isInterrupted = true;
    if (signal !== 'SIGINT') {
      demo?.kill(signal);
    }
  });
}

async function startServers(isClassic) {
  const packages = ['rabbitmq-server', 'mariadb-server', ...(isClassic ? [] : ['buildbot', 'buildbot-worker'])];
  await ensureDebianPackages(packages);
  say(`starting RabbitMQ${isClassic ? ' and MariaDB' : ', MariaDB and Buildbot'}`);
  services = await startServices(['rabbitmq', 'mariadb', ...(isClassic ? [] : ['buildbot'])]);
  const facts = JSON.parse(readFileSync(services.file, 'utf8'));
  await mariadb(facts.mariadb, 'CREATE DATABASE demo');
  await mariadb(facts.mariadb, 'CREATE DATABASE buildbot');
  return {
    pulseUrl: facts.rabbitmq.url,
    adminUrl: facts.rabbitmq.adminUrl,
    databaseUrl: `${facts.mariadb.url}demo`,
    ...(isClassic
      ? { schedulerDbUrl: `${facts.mariadb.url}buildbot` }
      : { buildbotUrl: await startBuildbotCopy(facts.buildbot, services.env) }),
  };
}

function show(env) {
  demo = spawn(process.execPath, [path.join(ROOT, 'dist/src/cli.js'), 'demo', ...given], { stdio: 'inherit', env });
  return new Promise((resolve) => {
    demo.on('exit', (code) => resolve(code ?? 1));
  });
}

try {
  await ensureNodeModules();
  await ensureBuild();
  const isClassic = given.includes('--classic');
  const hasServers = isClassic || given.includes('--real');
  const servers = hasServers ? { BBB_DEMO_SERVERS: JSON.stringify(await startServers(isClassic)) } : {};
  process.exitCode = isInterrupted ? 130 : await show({ ...process.env, ...servers });
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
} finally {
  await services?.stop();
}
