/** `bbb` in a process of its own, and every byte that it says. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { stringify } from 'yaml';
import { eventually } from './eventually.ts';

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');

export interface BbbOptions {
  /** Written to a file that `--config` names; without it there is no file. */
  readonly config?: object | undefined;
  readonly env?: Readonly<Record<string, string>>;
  /** A file descriptor in place of the stdout that is read here. */
  readonly stdout?: number;
  /** What stands before its command. */
  readonly prefix?: readonly string[];
}

export interface Bbb {
  readonly pid: number | undefined;
  isAlive(): boolean;
  /** So far. */
  stdout(): string;
  stderr(): string;
  /** Resolves with the exit code, when all that it said has been read. */
  readonly ended: Promise<number | null>;
  /** Waits until it has said something, on stdout or stderr; after `act`, where there is one. */
  says(words: RegExp, act?: () => unknown): Promise<void>;
  /** SIGTERM, or another signal; resolves with the exit code. */
  kill(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts `bbb` with these arguments; returns at once. */
export function spawnBbb(args: readonly string[], { config, env = {}, stdout, prefix = [] }: BbbOptions = {}): Bbb {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-command-'));
  const file = path.join(folder, 'bridge.yml');
  if (config !== undefined) {
    writeFileSync(file, stringify(config));
  }
  const named = config === undefined ? [] : ['--config', file];
  const [program = '', ...rest] = [...prefix, process.execPath, CLI, ...args, ...named];
  const child = spawn(program, rest, {
    stdio: ['ignore', stdout ?? 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '', ...env },
  });
  const [out, err] = [collect(child.stdout), collect(child.stderr)];
  const ended = once(child, 'close').then(([code]): number | null => {
    rmSync(folder, { recursive: true, force: true });
    return code;
  });
  return {
    pid: child.pid,
    isAlive: () => child.exitCode === null && child.signalCode === null,
    stdout: out,
    stderr: err,
    ended,
    async says(words, act) {
      const [outBefore, errBefore] = act === undefined ? [0, 0] : [out().length, err().length];
      const what = `bbb ${args.join(' ')} to say ${words}`;
      await act?.();
      try {
        await eventually(() => words.test(out().slice(outBefore)) || words.test(err().slice(errBefore)), {
          timeoutMs: 30_000,
          what,
        });
      } catch (cause) {
        throw new Error(`${what}, in vain; it said:\n${err()}\n${out().slice(-4000)}`, { cause });
      }
    },
    kill(signal = 'SIGTERM') {
      child.kill(signal);
      return ended;
    },
  };
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: string[] = [];
  stream?.setEncoding('utf8');
  stream?.on('data', (text: string) => chunks.push(text));
  return () => chunks.join('');
}
