/**
 * Private servers for the tests, on free ports below one temporary folder.
 *   node scripts/services.mjs FACTS start|stop|kill rabbitmq|mariadb|postgres
 * moves one of the running set, whose facts are in the file FACTS.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { prepareBuildbot } from './lib/buildbot.mjs';
import {
  prepareMariadb,
  preparePostgres,
  startMariadb,
  startPostgres,
  stopMariadb,
  stopPostgres,
} from './lib/databases.mjs';
import { stopAllDaemons } from './lib/process.mjs';
import { addPulseUsers, prepareRabbitmq, startRabbitmq, stopEpmd, stopRabbitmq } from './lib/rabbitmq.mjs';

const ALL = ['rabbitmq', 'mariadb', 'postgres', 'buildbot'];

/** Starts the named ones; `stop` ends whatever runs below the folder and removes it. */
export async function startServices(names = ALL) {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-services-'));
  const facts = { folder };
  const stop = async () => {
    await stopAllDaemons(folder);
    if (facts.rabbitmq) {
      await stopEpmd(facts.rabbitmq);
    }
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  const starters = {
    async rabbitmq() {
      facts.rabbitmq = await prepareRabbitmq(folder);
      await startRabbitmq(facts.rabbitmq);
      await addPulseUsers(facts.rabbitmq);
    },
    async mariadb() {
      facts.mariadb = await prepareMariadb(folder);
      await startMariadb(facts.mariadb);
    },
    async postgres() {
      facts.postgres = await preparePostgres(folder);
      await startPostgres(facts.postgres);
    },
    async buildbot() {
      facts.buildbot = await prepareBuildbot(folder);
    },
  };
  try {
    await Promise.all(names.map((name) => starters[name]()));
  } catch (error) {
    await stop();
    throw error;
  }
  const file = path.join(folder, 'facts.json');
  writeFileSync(file, JSON.stringify(facts, null, 2));
  return { file, stop };
}

const SERVERS = {
  rabbitmq: { start: startRabbitmq, stop: stopRabbitmq },
  mariadb: { start: startMariadb, stop: stopMariadb },
  postgres: { start: startPostgres, stop: stopPostgres },
};

async function main([file, what, name]) {
  const facts = JSON.parse(readFileSync(file, 'utf8'))[name];
  const server = SERVERS[name];
  await (what === 'start' ? server.start(facts) : server.stop(facts, what === 'kill' ? 'SIGKILL' : undefined));
}

if (process.argv[1] === import.meta.filename) {
  await main(process.argv.slice(2));
}
