/**
 * Private servers for the tests, on free ports below one temporary folder.
 *   node scripts/services.mjs FACTS start|stop|kill rabbitmq|mariadb|postgres
 * moves one of the running set, whose facts are in the file FACTS.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { prepareBuildbot } from './lib/buildbot.mjs';
import {
  prepareMariadb,
  preparePostgres,
  startMariadb,
  startPostgres,
  stopMariadb,
  stopPostgres,
} from './lib/databases.mjs';
import { daemonsBelow, OWNER, stopDaemon, sweep } from './lib/process.mjs';
import { addPulseUsers, prepareRabbitmq, startRabbitmq, stopRabbitmq } from './lib/rabbitmq.mjs';

/**
 * Starts the named ones. `env` marks what belongs to them: a process that is started with it ends with them, at `stop`,
 * which removes the folder too.
 * @returns {Promise<{ file: string, env: NodeJS.ProcessEnv, stop: () => Promise<void> }>}
 */
export async function startServices(names = ['rabbitmq', 'mariadb', 'postgres', 'buildbot']) {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-services-'));
  const temporary = path.join(folder, 'tmp');
  mkdirSync(temporary);
  const env = { ...process.env, [OWNER]: folder, TMPDIR: temporary };
  const facts = { folder };
  const starters = {
    async rabbitmq() {
      facts.rabbitmq = await prepareRabbitmq(folder);
      await startRabbitmq(facts.rabbitmq);
      await addPulseUsers(facts.rabbitmq);
    },
    async mariadb() {
      facts.mariadb = await prepareMariadb(folder);
      await startMariadb(facts.mariadb, env);
    },
    async postgres() {
      facts.postgres = await preparePostgres(folder);
      await startPostgres(facts.postgres, env);
    },
    async buildbot() {
      facts.buildbot = await prepareBuildbot(folder);
    },
  };
  // All of them come to an end, so that none starts after the others were stopped.
  const ends = await Promise.allSettled(names.map((name) => starters[name]()));
  const errors = ends.filter(({ status }) => status === 'rejected').map(({ reason }) => reason);
  if (errors.length > 0) {
    await stopServices(folder);
    throw new Error(errors.map((error) => error.message).join('\n\n'), { cause: errors[0] });
  }
  const file = path.join(folder, 'facts.json');
  writeFileSync(file, JSON.stringify(facts, null, 2));
  return { file, env, stop: () => stopServices(folder) };
}

async function stopServices(folder) {
  // Nobody needs what they would still write; only PostgreSQL has something to tidy up outside the folder.
  await Promise.all(
    daemonsBelow(folder).map(([at, name]) => stopDaemon(at, name, name === 'postgres' ? 'SIGINT' : 'SIGKILL')),
  );
  await sweep(folder);
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
}

const SERVERS = {
  rabbitmq: { start: startRabbitmq, stop: stopRabbitmq },
  mariadb: { start: startMariadb, stop: stopMariadb },
  postgres: { start: startPostgres, stop: stopPostgres },
};

async function main([file, what, name]) {
  const all = JSON.parse(readFileSync(file, 'utf8'));
  const server = SERVERS[name];
  if (what === 'start') {
    await server.start(all[name], { ...process.env, [OWNER]: all.folder });
  } else {
    await server.stop(all[name], what === 'kill' ? 'SIGKILL' : undefined);
  }
}

if (process.argv[1] === import.meta.filename) {
  await main(process.argv.slice(2));
}
