/** What the scripts need of the machine: node_modules, a build, Debian's servers. */
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { run } from './process.mjs';

export const ROOT = path.resolve(import.meta.dirname, '../..');

/** What each Debian package is needed for, and the file by which it is known to be there. */
const DEBIAN = {
  'rabbitmq-server': '/usr/lib/rabbitmq/bin/rabbitmq-server',
  'mariadb-server': '/usr/sbin/mariadbd',
  postgresql: '/usr/lib/postgresql',
  buildbot: '/usr/bin/buildbot',
  'buildbot-worker': '/usr/bin/buildbot-worker',
};

/** Installs the dependencies when they are missing or older than the lock file. */
export async function ensureNodeModules() {
  const stamp = path.join(ROOT, 'node_modules/.package-lock.json');
  const lock = path.join(ROOT, 'package-lock.json');
  if (!existsSync(stamp) || statSync(stamp).mtimeMs < statSync(lock).mtimeMs) {
    say('installing dependencies (npm ci)');
    await run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: ROOT, isShown: true });
  }
}

/** Compiles the sources into dist/. */
export async function ensureBuild() {
  await run(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json'], {
    cwd: ROOT,
    isShown: true,
  });
}

/**
 * Installs those of Debian's packages that are missing.
 * @throws {Error} that says what to install, where this process may not do it
 */
export async function ensureDebianPackages(names = Object.keys(DEBIAN)) {
  const missing = names.filter((name) => !existsSync(DEBIAN[name]));
  if (missing.length === 0) {
    return;
  }
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot || !existsSync('/usr/bin/apt-get')) {
    throw new Error(
      `these servers are missing: ${missing.join(', ')}. Install them, on Debian as root with:\n  ${command}`,
    );
  }
  say(`installing ${missing.join(', ')} (apt-get)`);
  // Packages start their servers when they are installed; only private instances are wanted here.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  try {
    await run('apt-get', ['update'], { env });
    await run('apt-get', command.split(' ').slice(1), { env });
  } catch (error) {
    throw new Error(`the servers that the tests need could not be installed with:\n  ${command}\n${error.message}`);
  }
  const still = missing.filter((name) => !existsSync(DEBIAN[name]));
  if (still.length > 0) {
    throw new Error(
      `apt-get installed ${still.join(', ')}, but not where they are expected: ${still.map((name) => DEBIAN[name]).join(', ')}`,
    );
  }
}

export function say(text) {
  process.stdout.write(`-- ${text}\n`);
}
