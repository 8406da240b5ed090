/** Small helpers around processes, for scripts that run before anything is installed. */
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Runs a command to its end.
 * @returns {Promise<string>} what it printed on stdout
 * @throws {Error} with `exitCode` and the end of what it printed
 */
export function run(command, args, { isShown = false, onStart, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const stdio = ['ignore', isShown ? 'inherit' : 'pipe', isShown ? 'inherit' : 'pipe'];
    const child = spawn(command, args, { ...options, stdio });
    let out = '';
    let err = '';
    child.stdout?.on('data', (data) => {
      out += data;
    });
    child.stderr?.on('data', (data) => {
      err += data;
    });
    child.on('spawn', () => onStart?.(child.pid));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) {
        resolve(out);
      } else {
        const said = `${out}\n${err}`.trim().slice(-2000);
        const error = new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}${said ? `:\n${said}` : ''}`);
        reject(Object.assign(error, { exitCode: code ?? 1 }));
      }
    });
  });
}

/**
 * A port that is free, and stays so until it is used: not one of those that the system gives to outgoing connections.
 */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port)) {
      return port;
    }
  }
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/**
 * Starts a daemon in a process group of its own; its pid goes to `<folder>/<name>.pid`, its output to `.log`.
 * @param options those of spawn()
 */
export function startDaemon(folder, name, command, args, options = {}) {
  mkdirSync(folder, { recursive: true });
  const log = openSync(path.join(folder, `${name}.log`), 'a');
  const child = spawn(command, args, { ...options, detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  // A program that is not there has no pid, and is found dead by whoever waits for it.
  child.on('error', () => undefined);
  child.unref();
  writeFileSync(path.join(folder, `${name}.pid`), String(child.pid ?? 0));
}

/**
 * Waits until a daemon answers.
 * @param check throws, or answers something false, until it does
 * @throws {Error} with the end of its log, when it has died or `timeoutMs` have passed
 */
export async function waitForDaemon(folder, name, check, timeoutMs = 90_000) {
  const pid = readPid(folder, name);
  const end = Date.now() + timeoutMs;
  for (;;) {
    const [answer, cause] = await Promise.resolve(check()).then(
      (value) => [value],
      (error) => [false, error],
    );
    if (answer) {
      return;
    }
    const isGone = !stat(pid).isAlive;
    if (isGone || Date.now() > end) {
      const what = isGone ? `${name} ended while it started` : `${name} did not answer within ${timeoutMs} ms`;
      throw new Error(`${what}${logTail(folder, name)}`, { cause });
    }
    await delay(100);
  }
}

/** Ends a daemon and its whole group, with SIGKILL if it takes too long; resolves when all of it is gone. */
export async function stopDaemon(folder, name, signal = 'SIGTERM', timeoutMs = 20_000) {
  const pid = readPid(folder, name);
  rmSync(path.join(folder, `${name}.pid`), { force: true });
  if (pid > 0) {
    await endGroup(pid, signal, timeoutMs);
  }
}

/** Ends the group that a process leads; resolves when nobody of it is left. */
export async function endGroup(leader, signal, timeoutMs) {
  killQuietly(-leader, signal);
  const end = Date.now() + timeoutMs;
  while (isGroupAlive(leader)) {
    if (Date.now() > end) {
      killQuietly(-leader, 'SIGKILL');
    }
    await delay(30);
  }
}

/** The environment variable by which a process, and all that it starts, is known to belong to a folder. */
export const OWNER = 'BBB_SERVICES_FOLDER';

/** Ends every process that belongs to a folder: daemons that left their group, the steps of a build, a test's own. */
export async function sweep(folder) {
  const end = Date.now() + 10_000;
  for (;;) {
    const left = processes().filter((pid) => pid !== process.pid && owner(pid) === folder);
    if (left.length === 0 || Date.now() > end) {
      return;
    }
    for (const pid of left) {
      killQuietly(pid, 'SIGKILL');
    }
    await delay(30);
  }
}

/** All daemons below a folder whose pid files are there, as [folder, name]. */
export function daemonsBelow(folder) {
  const files = existsSync(folder) ? readdirSync(folder, { recursive: true, encoding: 'utf8' }) : [];
  return files
    .filter((file) => file.endsWith('.pid'))
    .map((file) => [path.dirname(path.join(folder, file)), path.basename(file, '.pid')]);
}

function logTail(folder, name) {
  const file = path.join(folder, `${name}.log`);
  return existsSync(file) && statSync(file).size > 0
    ? `; its log ends:\n${readFileSync(file, 'utf8').slice(-1500)}`
    : '';
}

function readPid(folder, name) {
  const file = path.join(folder, `${name}.pid`);
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) || 0 : 0;
}

function killQuietly(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already.
  }
}

function processes() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** A process's group, and whether it still does anything; a process that has gone has neither. */
function stat(pid) {
  try {
    // The program's name, in parentheses, may hold anything. From there: state, parent, group, ...
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
    // A zombie is dead, though nobody may ever collect it; but not while its other threads still hold its sockets.
    return { isAlive: fields[0] !== 'Z' || Number(fields[17]) > 1, group: Number(fields[2]) };
  } catch {
    return { isAlive: false };
  }
}

function isGroupAlive(leader) {
  return processes()
    .map(stat)
    .some(({ isAlive, group }) => isAlive && group === leader);
}

function owner(pid) {
  try {
    const entries = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    return entries.find((entry) => entry.startsWith(`${OWNER}=`))?.slice(OWNER.length + 1);
  } catch {
    return undefined;
  }
}
