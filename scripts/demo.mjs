/**
 * Installs what is missing, builds, and shows the demo: `npm run demo [-- --real] [-- --keep]`. With `--real` it starts
 * a private RabbitMQ, MariaDB and Buildbot first, and stops them afterwards.
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

async function startServers() {
  await ensureDebianPackages(['rabbitmq-server', 'mariadb-server', 'buildbot', 'buildbot-worker']);
  say('starting RabbitMQ, MariaDB and Buildbot');
  services = await startServices(['rabbitmq', 'mariadb', 'buildbot']);
  const facts = JSON.parse(readFileSync(services.file, 'utf8'));
  await mariadb(facts.mariadb, 'CREATE DATABASE demo');
  return {
    pulseUrl: facts.rabbitmq.url,
    adminUrl: facts.rabbitmq.adminUrl,
    databaseUrl: `${facts.mariadb.url}demo`,
    buildbotUrl: await startBuildbotCopy(facts.buildbot),
  };
}

/** The terminal sends its signals to the demo as well: it ends by itself, and then this does. */
function show(env) {
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => undefined);
  }
  const child = spawn(process.execPath, [path.join(ROOT, 'dist/src/cli.js'), 'demo', ...given], {
    stdio: 'inherit',
    env,
  });
  return new Promise((resolve) => {
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

try {
  await ensureNodeModules();
  await ensureBuild();
  const servers = given.includes('--real') ? { BBB_DEMO_SERVERS: JSON.stringify(await startServers()) } : {};
  process.exitCode = await show({ ...process.env, ...servers });
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
} finally {
  await services?.stop();
}
