/** Small helpers around processes, for scripts that run before anything is installed. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Runs a command to its end.
 * @returns {Promise<string>} what it printed on stdout
 */
export function run(command, args, { env = process.env, cwd, isShown = false } = {}) {
  return new Promise((resolve, reject) => {
    const stdio = ['ignore', isShown ? 'inherit' : 'pipe', isShown ? 'inherit' : 'pipe'];
    const child = spawn(command, args, { env, cwd, stdio });
    let out = '';
    let err = '';
    child.stdout?.on('data', (data) => {
      out += data;
    });
    child.stderr?.on('data', (data) => {
      err += data;
    });
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

/** A port on 127.0.0.1 that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Waits until `check` answers something true; says `what` was waited for when it never does. */
export async function waitFor(what, check, { timeoutMs = 60_000, intervalMs = 100, hint = () => '' } = {}) {
  const end = Date.now() + timeoutMs;
  let last;
  for (;;) {
    try {
      if (await check()) {
        return;
      }
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      throw new Error(`waited ${timeoutMs} ms in vain for ${what}${hint()}`, { cause: last });
    }
    await delay(intervalMs);
  }
}

/**
 * Starts a daemon in a process group of its own; its pid goes to `<folder>/<name>.pid`, its output to `.log`.
 * @returns {number} the pid
 */
export function startDaemon(folder, name, command, args, { env = process.env, cwd } = {}) {
  mkdirSync(folder, { recursive: true });
  const log = openSync(path.join(folder, `${name}.log`), 'a');
  const child = spawn(command, args, { env, cwd, detached: true, stdio: ['ignore', log, log] });
  child.on('error', () => undefined);
  child.unref();
  writeFileSync(path.join(folder, `${name}.pid`), String(child.pid));
  return child.pid;
}

/** Ends a daemon and its whole group; resolves when it is gone. */
export async function stopDaemon(folder, name, signal = 'SIGTERM', timeoutMs = 20_000) {
  const file = path.join(folder, `${name}.pid`);
  if (!existsSync(file)) {
    return;
  }
  const pid = Number(readFileSync(file, 'utf8'));
  rmSync(file, { force: true });
  killGroup(pid, signal);
  const end = Date.now() + timeoutMs;
  while (isAlive(pid)) {
    if (Date.now() > end) {
      killGroup(pid, 'SIGKILL');
    }
    await delay(30);
  }
}

/** Ends every daemon that was started below a folder. */
export async function stopAllDaemons(folder) {
  const files = existsSync(folder) ? readdirSync(folder, { recursive: true, encoding: 'utf8' }) : [];
  await Promise.all(
    files
      .filter((file) => file.endsWith('.pid'))
      .map((file) => stopDaemon(path.dirname(path.join(folder, file)), path.basename(file, '.pid'), 'SIGKILL')),
  );
}

export function logTail(folder, name) {
  const file = path.join(folder, `${name}.log`);
  return existsSync(file) ? `; its log ends:\n${readFileSync(file, 'utf8').slice(-1500)}` : '';
}

function killGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch {
    // Gone already.
  }
}

function isAlive(pid) {
  try {
    // A zombie still answers: it is dead all the same.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
