/** The real daemon in a process of its own, as an operator runs it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { stringify } from 'yaml';
import { EXIT } from '../../src/lifecycle.ts';

export interface Daemon {
  /** The end of its log, line by line. */
  readonly lines: readonly Record<string, unknown>[];
  /** Resolves when it says that it has started; rejects when it ends before. */
  readonly started: Promise<void>;
  /** Whether it has not ended yet; a paused one has not. */
  isRunning(): boolean;
  /** The most memory that it has had so far, in bytes; 0 where the system does not tell. */
  peakMemory(): number;
  /** Resolves when it ends: in words, if it died of itself; undefined otherwise. */
  readonly crash: Promise<string | undefined>;
  /** SIGTERM, and the exit code that comes of it. */
  stop(): Promise<number | null>;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** SIGSTOP and SIGCONT. */
  pause(): void;
  resume(): void;
}

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');
const MAX_LINES = 20_000;

/**
 * Writes the configuration to a file, migrates the database and runs the services; resolves when they are started.
 * @param prefix what stands before its command, as where it is to have mounts of its own
 */
export async function startDaemon(
  config: object,
  services?: readonly string[],
  prefix: readonly string[] = [],
): Promise<Daemon> {
  await migrateDatabase(config, prefix);
  const daemon = runDaemon(config, services, prefix);
  await daemon.started;
  return daemon;
}

/** `bbb migrate` */
export async function migrateDatabase(config: object, prefix: readonly string[] = []): Promise<void> {
  const { file, remove } = writeConfig(config);
  const migrated = spawnBbb(prefix, ['migrate', '--config', file]);
  const said = collect(migrated);
  const [code] = await once(migrated, 'exit');
  remove();
  if (code !== 0) {
    throw new Error(`bbb migrate ended with ${code}: ${said.join('\n')}`);
  }
}

/** `bbb run`; returns at once. */
export function runDaemon(config: object, services?: readonly string[], prefix: readonly string[] = []): Daemon {
  const { file, remove } = writeConfig(config);
  const list = services ? ['--services', services.join(',')] : [];
  const child = spawnBbb(prefix, ['run', '--config', file, ...list]);
  const lines: Record<string, unknown>[] = [];
  const errors = collect(child);
  const sent = new Set<NodeJS.Signals>();
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  let peak = 0;
  const peakMemory = () => {
    // Another process may have the number of one that has ended.
    peak = isRunning() ? Math.max(peak, readPeakMemory(child.pid)) : peak;
    return peak;
  };
  const send = (signal: NodeJS.Signals) => {
    // Nobody can tell any more once it has ended.
    peakMemory();
    sent.add(signal);
    child.kill(signal);
  };
  const ended = once(child, 'exit').then(([code, signal]): End => ({ code, signal }));
  const exited = ended.then(({ code }) => {
    remove();
    return code;
  });
  const started = new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout ?? process.stdin }).on('line', (line) => {
      const entry = parseLine(line);
      lines.push(entry);
      if (lines.length > MAX_LINES) {
        lines.splice(0, MAX_LINES / 2);
      }
      if (entry.msg === 'started') {
        resolve();
      }
    });
    void exited.then((exitCode) =>
      reject(new Error(`bbb run ended with ${exitCode}: ${errors.join('\n')}\n${JSON.stringify(lines.slice(-5))}`)),
    );
  });
  // Whoever stops it before it has started knows.
  started.catch(() => undefined);
  return {
    lines,
    started,
    isRunning,
    peakMemory,
    crash: ended.then((end) =>
      isCrash(end, sent) ? `bbb run died (${end.signal ?? end.code}): ${errors.join('\n')}` : undefined,
    ),
    async stop() {
      send('SIGTERM');
      return exited;
    },
    async kill() {
      send('SIGKILL');
      await exited;
    },
    pause: () => send('SIGSTOP'),
    resume: () => send('SIGCONT'),
  };
}

function spawnBbb(prefix: readonly string[], args: readonly string[]): ChildProcess {
  const [program = process.execPath, ...rest] = [...prefix, process.execPath, CLI, ...args];
  return spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
}

export interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Whether a process died of itself. What it depends on may be away, and then it ends with an exit code that says so. */
export function isCrash({ code, signal }: End, sent: ReadonlySet<NodeJS.Signals>): boolean {
  return signal === null ? code !== EXIT.ok && code !== EXIT.tempFail : !sent.has(signal);
}

/** `VmHWM`, the largest that a process has been in memory; 0 of one that has ended. */
function readPeakMemory(pid: number | undefined): number {
  try {
    const [, kilobytes] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return Number(kilobytes ?? 0) * 1024;
  } catch {
    return 0;
  }
}

function writeConfig(config: object): { readonly file: string; remove(): void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-daemon-'));
  const file = path.join(folder, 'bridge.yml');
  writeFileSync(file, stringify(config));
  return { file, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** A process that is killed in the middle of a line leaves half of it. */
function parseLine(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line);
  } catch {
    return { msg: line };
  }
}

function collect(child: ChildProcess): string[] {
  const said: string[] = [];
  child.stderr?.setEncoding('utf8').on('data', (text: string) => said.push(text));
  return said;
}
