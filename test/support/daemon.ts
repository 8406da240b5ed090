/** The real daemon in a process of its own, as an operator runs it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { stringify } from 'yaml';

export interface Daemon {
  /** Its log, line by line. */
  readonly lines: readonly Record<string, unknown>[];
  /** SIGTERM, and the exit code that comes of it. */
  stop(): Promise<number | null>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');

/** Writes the configuration to a file, migrates the database and runs the services; resolves when they are started. */
export async function startDaemon(config: object, services?: readonly string[]): Promise<Daemon> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-daemon-'));
  const file = path.join(folder, 'bridge.yml');
  writeFileSync(file, stringify(config));
  const migrated = spawn(process.execPath, [CLI, 'migrate', '--config', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  const said = collect(migrated);
  const [code] = await once(migrated, 'exit');
  if (code !== 0) {
    throw new Error(`bbb migrate ended with ${code}: ${said.join('\n')}`);
  }

  const list = services ? ['--services', services.join(',')] : [];
  const child = spawn(process.execPath, [CLI, 'run', '--config', file, ...list], { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines: Record<string, unknown>[] = [];
  const exited = once(child, 'exit').then(([exitCode]): number | null => {
    rmSync(folder, { recursive: true, force: true });
    return exitCode;
  });
  const errors = collect(child);
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout ?? process.stdin }).on('line', (line) => {
      const entry: Record<string, unknown> = JSON.parse(line);
      lines.push(entry);
      if (entry.msg === 'started') {
        resolve();
      }
    });
    exited.then((exitCode) =>
      reject(new Error(`bbb run ended with ${exitCode}: ${errors.join('\n')}\n${JSON.stringify(lines.slice(-5))}`)),
    );
  });
  return {
    lines,
    async stop() {
      child.kill('SIGTERM');
      return exited;
    },
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

function collect(child: ChildProcess): string[] {
  const said: string[] = [];
  child.stderr?.setEncoding('utf8').on('data', (text: string) => said.push(text));
  return said;
}
