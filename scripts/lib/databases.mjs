/** Private MariaDB and PostgreSQL servers. */
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { freePort, logTail, run, startDaemon, stopDaemon, waitFor } from './process.mjs';

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

export async function startMariadb(facts) {
  startDaemon(facts.folder, 'mariadb', '/usr/sbin/mariadbd', [
    '--no-defaults',
    `--datadir=${facts.data}`,
    `--socket=${facts.socket}`,
    `--port=${facts.port}`,
    '--bind-address=127.0.0.1',
    '--innodb-flush-log-at-trx-commit=0',
    '--innodb-buffer-pool-size=64M',
    '--performance-schema=OFF',
    ...asUser(),
  ]);
  await waitFor('MariaDB', () => mariadb(facts, 'SELECT 1').then(() => true), {
    timeoutMs: 60_000,
    hint: () => logTail(facts.folder, 'mariadb'),
  });
  await mariadb(
    facts,
    "CREATE USER IF NOT EXISTS 'bbb'@'127.0.0.1' IDENTIFIED BY 'bbb-pass'; GRANT ALL ON *.* TO 'bbb'@'127.0.0.1'; CREATE USER IF NOT EXISTS 'bbb'@'localhost' IDENTIFIED BY 'bbb-pass'; GRANT ALL ON *.* TO 'bbb'@'localhost'",
  );
}

export function mariadb(facts, sql) {
  return run('mariadb', ['--no-defaults', `--socket=${facts.socket}`, '-u', 'root', '-e', sql]);
}

export const stopMariadb = (facts, signal) => stopDaemon(facts.folder, 'mariadb', signal);

function asUser() {
  return process.getuid?.() === 0 ? ['--user=root'] : [];
}

export async function preparePostgres(base) {
  const folder = path.join(base, 'postgres');
  mkdirSync(folder, { recursive: true });
  const data = path.join(folder, 'data');
  mkdirSync(data);
  if (process.getuid?.() === 0) {
    const [, uid, gid] = /^postgres:[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8')) ?? [];
    chownSync(folder, Number(uid), Number(gid));
    chownSync(data, Number(uid), Number(gid));
    chmodSync(base, 0o755);
  }
  const port = await freePort();
  await asPostgres('initdb', ['-D', data, '-U', 'bbb', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync']);
  return { folder, data, port, url: `postgres://bbb@127.0.0.1:${port}/` };
}

export async function startPostgres(facts) {
  const [command, args] = postgresCommand('postgres', [
    ...['-D', facts.data, '-p', String(facts.port), '-k', facts.folder, '-h', '127.0.0.1'],
    ...['-c', 'fsync=off', '-c', 'full_page_writes=off', '-c', 'shared_buffers=64MB'],
  ]);
  startDaemon(facts.folder, 'postgres', command, args);
  await waitFor('PostgreSQL', () => psql(facts, 'SELECT 1').then(() => true), {
    timeoutMs: 60_000,
    hint: () => logTail(facts.folder, 'postgres'),
  });
}

export function psql(facts, sql) {
  return run(path.join(postgresBin(), 'psql'), [
    '-h',
    '127.0.0.1',
    '-p',
    String(facts.port),
    '-U',
    'bbb',
    '-d',
    'postgres',
    '-c',
    sql,
  ]);
}

export const stopPostgres = (facts, signal = 'SIGINT') => stopDaemon(facts.folder, 'postgres', signal);

/** Debian's newest; another one on the PATH may be anything. */
function postgresBin() {
  const base = '/usr/lib/postgresql';
  const [newest] = readdirSync(base)
    .filter((version) => existsSync(path.join(base, version, 'bin/postgres')))
    .sort((a, b) => Number(b) - Number(a));
  return path.join(base, newest, 'bin');
}

function asPostgres(name, args) {
  const [command, all] = postgresCommand(name, args);
  return run(command, all);
}

/** PostgreSQL refuses to run as root. */
function postgresCommand(name, args) {
  const program = path.join(postgresBin(), name);
  return process.getuid?.() === 0 ? ['runuser', ['-u', 'postgres', '--', program, ...args]] : [program, args];
}
