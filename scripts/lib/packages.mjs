/** What the scripts need of the machine: node_modules, a build, Debian's servers. */
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { run } from './process.mjs';

export const ROOT = path.resolve(import.meta.dirname, '../..');

/** Debian's packages, and the program by which each is known to be there. */
const DEBIAN = {
  'rabbitmq-server': () => '/usr/lib/rabbitmq/bin/rabbitmq-server',
  'mariadb-server': () => '/usr/sbin/mariadbd',
  postgresql: () => path.join(postgresBin(), 'postgres'),
  buildbot: () => '/usr/bin/buildbot',
  'buildbot-worker': () => '/usr/bin/buildbot-worker',
};

/** The folder of Debian's newest PostgreSQL server; another one on the PATH may be anything. */
export function postgresBin() {
  const base = '/usr/lib/postgresql';
  const versions = (existsSync(base) ? readdirSync(base) : [])
    .filter((version) => existsSync(path.join(base, version, 'bin/postgres')))
    .sort((a, b) => Number(b) - Number(a));
  return path.join(base, versions[0] ?? '*', 'bin');
}

/** Installs the dependencies when they are missing or older than the lock file. */
export async function ensureNodeModules() {
  const stamp = path.join(ROOT, 'node_modules/.package-lock.json');
  const lock = path.join(ROOT, 'package-lock.json');
  if (!existsSync(stamp) || statSync(stamp).mtimeMs < statSync(lock).mtimeMs) {
    say('installing dependencies (npm ci)');
    await run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], { cwd: ROOT, isShown: true });
  }
}

/** Compiles the sources into dist/, unless what is there is newer than all of them. */
export async function ensureBuild() {
  await run(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-b', 'tsconfig.build.json'], {
    cwd: ROOT,
    isShown: true,
  });
}

/**
 * Installs those of Debian's packages that are missing.
 * @throws {Error} that says what to install, where this process may not do it
 */
export async function ensureDebianPackages(names = Object.keys(DEBIAN)) {
  const missing = names.filter((name) => !existsSync(DEBIAN[name]()));
  if (missing.length === 0) {
    return;
  }
  const install = ['-y', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=300', 'install', ...missing];
  const command = `apt-get update && apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || !existsSync('/usr/bin/apt-get')) {
    throw new Error(
      `these servers are missing: ${missing.join(', ')}. Install them, on Debian as root with:\n  ${command}`,
    );
  }
  say(`installing ${missing.join(', ')} with apt-get; this takes a few minutes`);
  try {
    await withoutStartingServers(async (env) => {
      await run('apt-get', ['update'], { env });
      await run('apt-get', install, { env });
    });
  } catch (error) {
    throw new Error(`the servers that the tests need could not be installed with:\n  ${command}\n${error.message}`);
  }
  const still = missing.filter((name) => !existsSync(DEBIAN[name]()));
  if (still.length > 0) {
    const places = still.map((name) => DEBIAN[name]()).join(', ');
    throw new Error(`apt-get installed ${still.join(', ')}, but not where they are expected: ${places}`);
  }
}

const POLICY = '/usr/sbin/policy-rc.d';

/** Debian's packages start their servers when installed, unless this program says 101; only private ones are wanted. */
async function withoutStartingServers(work) {
  const isOurs = !existsSync(POLICY);
  const remove = () => rmSync(POLICY, { force: true });
  if (isOurs) {
    writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
    process.once('exit', remove);
  }
  try {
    await work({ ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' });
  } finally {
    if (isOurs) {
      remove();
      process.off('exit', remove);
    }
  }
}

export function say(text) {
  process.stdout.write(`-- ${text}\n`);
}
