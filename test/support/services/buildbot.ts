/** A Buildbot master and worker of a test's own, copied from a template. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import got from 'got';
import { eventually } from '../eventually.ts';
import { readFacts } from './facts.ts';

export interface BuildbotOptions {
  /** Whether requests collapse, as they do by default. */
  readonly collapse?: boolean;
  /** Control wants a session then. */
  readonly auth?: { readonly username: string; readonly password: string };
}

export interface Buildbot {
  readonly url: string;
  /** Lets the `slow` build of a task end. */
  finish(taskId: string): Promise<void>;
  /** Reads below /api/v2/. */
  get<T>(path: string): Promise<T>;
  /** A control call, as a person's click makes it. */
  control(path: string, method: string, params?: object): Promise<unknown>;
  /** As an operator stops it: running builds are cancelled. */
  stopMaster(): Promise<void>;
  killMaster(): Promise<void>;
  /** Resolves when the API answers and the worker is back. */
  startMaster(): Promise<void>;
  killWorker(): Promise<void>;
  startWorker(): Promise<void>;
  stop(): Promise<void>;
}

export async function startBuildbot({ collapse = true, auth }: BuildbotOptions = {}): Promise<Buildbot> {
  const { buildbot: facts } = readFacts();
  const folder = mkdtempSync(path.join(facts.folder, 'copy-'));
  cpSync(facts.template, folder, { recursive: true });
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
    const exited = once(child, 'exit');
    process.kill(isGroup ? -child.pid : child.pid, signal);
    await exited;
  }

  const get = <T>(below: string): Promise<T> => got.get(`${url}/api/v2/${below}`, { retry: { limit: 1 } }).json<T>();

  async function workerConnected(): Promise<void> {
    await eventually(
      async () => {
        const { workers } = await get<{ workers: { name: string; connected_to: unknown[] }[] }>('workers');
        return workers.some((worker) => worker.name === 'w1' && worker.connected_to.length > 0);
      },
      { timeoutMs: 60_000, intervalMs: 100, what: `Buildbot and its worker${tail(folder)}` },
    );
  }

  start('master');
  start('worker');
  await workerConnected();
  return {
    url,
    async finish(taskId) {
      writeFileSync(path.join(folder, 'master/markers', `finish-${taskId}`), '');
    },
    get,
    async control(below, method, params = {}) {
      const json = { jsonrpc: '2.0', id: 1, method, params };
      return got.post(`${url}/api/v2/${below}`, { json, retry: { limit: 0 } }).json();
    },
    stopMaster: () => end('master', 'SIGTERM', false),
    killMaster: () => end('master', 'SIGKILL', true),
    async startMaster() {
      start('master');
      await workerConnected();
    },
    killWorker: () => end('worker', 'SIGKILL', true),
    async startWorker() {
      start('worker');
      await workerConnected();
    },
    async stop() {
      await end('worker', 'SIGKILL', true);
      await end('master', 'SIGKILL', true);
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function tail(folder: string): string {
  const file = path.join(folder, 'master/twistd.log');
  return existsSync(file) ? `; the master's log ends:\n${readFileSync(file, 'utf8').slice(-1500)}` : '';
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
