/** Private MariaDB and PostgreSQL servers. */
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { postgresBin } from './packages.mjs';
import { freePort, run, startDaemon, stopDaemon, waitForDaemon } from './process.mjs';

const isRoot = () => process.getuid?.() === 0;

export async function prepareMariadb(base) {
  const folder = path.join(base, 'mariadb');
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  const data = path.join(folder, 'data');
  await run('mariadb-install-db', [
    '--no-defaults',
    `--datadir=${data}`,
    '--auth-root-authentication-method=normal',
    '--skip-test-db',
    ...asUser(),
  ]);
  return { folder, data, port, socket: path.join(folder, 's'), url: `mysql://bbb:bbb-pass@127.0.0.1:${port}/` };
}

export async function startMariadb(facts, env) {
  startDaemon(
    facts.folder,
    'mariadb',
    '/usr/sbin/mariadbd',
    [
      '--no-defaults',
      `--datadir=${facts.data}`,
      `--socket=${facts.socket}`,
      `--port=${facts.port}`,
      '--bind-address=127.0.0.1',
      '--innodb-flush-log-at-trx-commit=0',
      '--innodb-buffer-pool-size=64M',
      '--performance-schema=OFF',
      // As every server has it that others copy.
      '--log-bin=bin',
      '--binlog-format=MIXED',
      ...asUser(),
    ],
    { env },
  );
  await waitForDaemon(facts.folder, 'mariadb', () => mariadb(facts, 'SELECT 1').then(() => true));
  await mariadb(
    facts,
    "CREATE USER IF NOT EXISTS 'bbb'@'127.0.0.1' IDENTIFIED BY 'bbb-pass'; GRANT ALL ON *.* TO 'bbb'@'127.0.0.1' WITH GRANT OPTION; CREATE USER IF NOT EXISTS 'bbb'@'localhost' IDENTIFIED BY 'bbb-pass'; GRANT ALL ON *.* TO 'bbb'@'localhost' WITH GRANT OPTION",
  );
}

/** Runs statements as the server's root. */
export function mariadb(facts, sql) {
  return run('mariadb', ['--no-defaults', `--socket=${facts.socket}`, '-u', 'root', '-e', sql]);
}

export const stopMariadb = (facts, signal) => stopDaemon(facts.folder, 'mariadb', signal);

function asUser() {
  return isRoot() ? ['--user=root'] : [];
}

export async function preparePostgres(base) {
  const folder = path.join(base, 'postgres');
  const data = path.join(folder, 'data');
  mkdirSync(data, { recursive: true });
  const { uid, gid } = postgresUser();
  if (uid !== undefined) {
    chownSync(folder, uid, gid);
    chownSync(data, uid, gid);
    chmodSync(base, 0o755);
  }
  const port = await freePort();
  const initdb = ['-D', data, '-U', 'bbb', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync'];
  await run(path.join(postgresBin(), 'initdb'), initdb, { cwd: folder, uid, gid });
  // Whoever a test makes needs a password.
  const rules = ['local all all trust', 'host all bbb 127.0.0.1/32 trust', 'host all all 127.0.0.1/32 scram-sha-256'];
  writeFileSync(path.join(data, 'pg_hba.conf'), `${rules.join('\n')}\n`);
  return { folder, data, port, url: `postgres://bbb@127.0.0.1:${port}/` };
}

export async function startPostgres(facts, env) {
  startDaemon(
    facts.folder,
    'postgres',
    path.join(postgresBin(), 'postgres'),
    [
      ...['-D', facts.data, '-p', String(facts.port), '-k', facts.folder, '-h', '127.0.0.1'],
      ...['-c', 'fsync=off', '-c', 'full_page_writes=off', '-c', 'shared_buffers=64MB'],
    ],
    { cwd: facts.folder, env, ...postgresUser() },
  );
  await waitForDaemon(facts.folder, 'postgres', () => psql(facts, 'SELECT 1').then(() => true));
}

function psql(facts, sql) {
  const connection = ['-h', '127.0.0.1', '-p', String(facts.port), '-U', 'bbb', '-d', 'postgres'];
  return run(path.join(postgresBin(), 'psql'), [...connection, '-c', sql]);
}

/** SIGINT ends its connections first; SIGKILL would leave its shared memory behind. */
export const stopPostgres = (facts, signal = 'SIGINT') => stopDaemon(facts.folder, 'postgres', signal);

/** PostgreSQL refuses to run as root: Debian's package has a user for it. Nobody in particular where we are not root. */
function postgresUser() {
  if (!isRoot()) {
    return {};
  }
  const [, uid, gid] = /^postgres:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8')) ?? [];
  if (uid === undefined) {
    throw new Error('PostgreSQL does not run as root, and there is no user `postgres` here to run it as');
  }
  return { uid: Number(uid), gid: Number(gid) };
}
