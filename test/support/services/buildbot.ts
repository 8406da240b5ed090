/** A Buildbot master and worker of a test's own, copied from a template. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, cpSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import got from 'got';
import { eventually } from '../eventually.ts';
import { readFacts } from './facts.ts';

/** A master waits for ever for a build whose worker was lost before its first step. */
const STOP_TIMEOUT_MS = 30_000;

export interface BuildbotOptions {
  /** Whether requests collapse, as they do by default. */
  readonly collapse?: boolean;
  /** Control wants a session then. */
  readonly auth?: { readonly username: string; readonly password: string };
}

export interface Change {
  readonly branch: string;
  readonly revision: string;
  readonly repository: string;
  readonly project: string;
}

export interface Buildbot {
  readonly url: string;
  /**
   * Waits until so many `slow` builds of a task have begun their command. A build that is merely there is not yet safe
   * to interrupt: Buildbot 3.7 never ends one whose worker is lost before its first step, and a master stopped at the
   * first moment of a step ends the build with RETRY or EXCEPTION instead of CANCELLED.
   */
  begun(taskId: string, count?: number): Promise<void>;
  /** Lets the `slow` build of a task end. */
  finish(taskId: string): Promise<void>;
  /** Reads below /api/v2/. */
  get<T>(path: string): Promise<T>;
  /** A control call, as a person's click makes it. */
  control(path: string, method: string, params?: object): Promise<unknown>;
  /** A change in a repository, as its hook tells of it. */
  addChange(change: Change): Promise<void>;
  /** As an operator stops it: running builds are cancelled. */
  stopMaster(): Promise<void>;
  killMaster(): Promise<void>;
  /** Resolves when the API answers and the worker, if it runs, is back. */
  startMaster(): Promise<void>;
  /** As an operator stops it: the master hears of it. */
  stopWorker(): Promise<void>;
  /** The build that it was at is lost. */
  killWorker(): Promise<void>;
  /** Resolves when the master has the worker. */
  startWorker(): Promise<void>;
  /** Ends both, and removes all they had. */
  stop(): Promise<void>;
}

/**
 * A master and a worker that nobody else uses; both run when it resolves.
 * @throws with the end of the master's log, when it does not start within a minute
 */
export async function startBuildbot({ collapse = true, auth }: BuildbotOptions = {}): Promise<Buildbot> {
  const { buildbot: facts } = readFacts();
  const folder = mkdtempSync(path.join(facts.folder, 'copy-'));
  cpSync(facts.template, folder, { recursive: true });
  const markers = path.join(folder, 'master/markers');
  const settings = { web: await freePort(), pb: await freePort(), collapse, ...(auth ? { auth } : {}) };
  for (const part of ['master', 'worker']) {
    writeFileSync(path.join(folder, part, 'settings.json'), JSON.stringify(settings));
  }
  const url = `http://127.0.0.1:${settings.web}`;
  const daemons = new Map<string, ChildProcess>();
  const env = { ...process.env, PYTHONPATH: facts.pythonPath, PYTHONDONTWRITEBYTECODE: '1', TZ: 'UTC' };

  function start(part: 'master' | 'worker'): void {
    const log = openSync(path.join(folder, `${part}.log`), 'a');
    const args = ['--nodaemon', '--no_save', '--pidfile=', '--logfile=-', '-y', 'buildbot.tac'];
    const child = spawn('/usr/bin/python3', ['/usr/bin/twistd3', ...args], {
      cwd: path.join(folder, part),
      env,
      detached: true,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    // The test script ends by its pid file what a test leaves running.
    writeFileSync(path.join(folder, `${part}.pid`), String(child.pid));
    daemons.set(part, child);
  }

  /** @param isGroup whether the processes it started die with it */
  async function end(part: 'master' | 'worker', signal: NodeJS.Signals, isGroup: boolean): Promise<void> {
    const child = daemons.get(part);
    daemons.delete(part);
    rmSync(path.join(folder, `${part}.pid`), { force: true });
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
      return;
    }
    const exited = once(child, 'exit', { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
    process.kill(isGroup ? -child.pid : child.pid, signal);
    try {
      await exited;
    } catch (cause) {
      process.kill(-child.pid, 'SIGKILL');
      throw new Error(`Buildbot's ${part} had to be killed: ${signal} did not end it; ${tail(folder)}`, { cause });
    }
  }

  const get = <T>(below: string): Promise<T> => got.get(`${url}/api/v2/${below}`, { retry: { limit: 1 } }).json<T>();

  /** The master answers, and has exactly the worker that runs; the database may still know one that does not. */
  async function ready(): Promise<void> {
    const isWanted = daemons.has('worker');
    try {
      await eventually(
        async () => {
          const { workers } = await get<{ workers: { name: string; connected_to: unknown[] }[] }>('workers');
          return workers.some(({ name, connected_to: masters }) => name === 'w1' && masters.length > 0 === isWanted);
        },
        { timeoutMs: 60_000, intervalMs: 100, what: 'Buildbot and its worker' },
      );
    } catch (cause) {
      throw new Error(`Buildbot did not start; ${tail(folder)}`, { cause });
    }
  }

  start('master');
  start('worker');
  await ready();
  return {
    url,
    async begun(taskId, count = 1) {
      const file = path.join(markers, `started-${taskId}`);
      await eventually(() => existsSync(file) && readFileSync(file, 'utf8').split('\n').length > count, {
        timeoutMs: 60_000,
        what: `build ${count} of ${taskId} to begin`,
      });
    },
    async finish(taskId) {
      writeFileSync(path.join(markers, `finish-${taskId}`), '');
    },
    get,
    async control(below, method, params = {}) {
      const json = { jsonrpc: '2.0', id: 1, method, params };
      return got.post(`${url}/api/v2/${below}`, { json, retry: { limit: 0 } }).json();
    },
    async addChange(change) {
      const form = { ...change, author: 'somebody', comments: 'a change' };
      await got.post(`${url}/change_hook/base`, { form, retry: { limit: 0 } });
    },
    stopMaster: () => end('master', 'SIGTERM', false),
    killMaster: () => end('master', 'SIGKILL', true),
    async startMaster() {
      start('master');
      await ready();
    },
    stopWorker: () => end('worker', 'SIGTERM', false),
    killWorker: () => end('worker', 'SIGKILL', true),
    async startWorker() {
      start('worker');
      await ready();
    },
    async stop() {
      await end('worker', 'SIGKILL', true);
      await end('master', 'SIGKILL', true);
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function tail(folder: string): string {
  return `the master's log ends:\n${readFileSync(path.join(folder, 'master.log'), 'utf8').slice(-1500)}`;
}

/** Not one of those that the system gives to outgoing connections: it has to stay free until it is used. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port)) {
      return port;
    }
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.on('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}
