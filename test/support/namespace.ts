/** Mounts of a test's own, in a mount namespace. Needs root. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { eventually } from './eventually.ts';

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  readonly ended: Promise<Ended>;
  /** SIGTERM */
  stop(): void;
}

export interface Namespace {
  /** What stands before a command that is to see these mounts. */
  readonly prefix: readonly string[];
  start(command: readonly string[]): Running;
  /** @throws {Error} with what it said, where it fails */
  sh(script: string, ...args: readonly string[]): Promise<void>;
  end(): Promise<void>;
}

/**
 * Mounts of which nobody else sees anything, with memory for files at `folder`; they go with the process that has them.
 * @param options of that tmpfs, such as its size
 */
export async function enterNamespace(folder: string, options: string): Promise<Namespace> {
  // Whoever starts it is at the other end of its input: killed in whatever way, it takes the mounts along.
  const mount = 'mount -t tmpfs -o "$2" tmpfs "$1"; echo ready; exec cat';
  const holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-ec', mount, 'sh', folder, options], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const [out, err] = [collect(holder), collect(holder, 'stderr')];
  let failure: string | undefined;
  const ended = once(holder, 'exit').then(
    () => {
      failure = err();
    },
    (error: unknown) => {
      failure = String(error);
    },
  );
  try {
    await eventually(() => out() !== '' || failure !== undefined);
  } catch (error) {
    holder.kill('SIGKILL');
    throw error;
  }
  if (failure !== undefined) {
    throw new Error(`no mount namespace, for which a test has to be root: ${failure}`);
  }

  const prefix = ['nsenter', `--mount=/proc/${holder.pid}/ns/mnt`] as const;

  function start(command: readonly string[]): Running {
    const [program, ...args] = prefix;
    const child = spawn(program, [...args, ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [stdout, stderr] = [collect(child), collect(child, 'stderr')];
    const closed = once(child, 'close');
    return {
      ended: closed.then(([code]) => ({ code: code ?? -1, stdout: stdout(), stderr: stderr() })),
      stop: () => child.kill('SIGTERM'),
    };
  }

  return {
    prefix,
    start,
    async sh(script, ...args) {
      const end = await start(['sh', '-ec', script, 'sh', ...args]).ended;
      if (end.code !== 0) {
        throw new Error(`${args.at(-1)} ended with ${end.code}: ${end.stderr}\n${end.stdout}`);
      }
    },
    async end() {
      holder.kill('SIGKILL');
      await ended;
    },
  };
}

function collect(child: ChildProcess, from: 'stdout' | 'stderr' = 'stdout'): () => string {
  const chunks: string[] = [];
  child[from]?.setEncoding('utf8').on('data', (text: string) => chunks.push(text));
  return () => chunks.join('');
}
