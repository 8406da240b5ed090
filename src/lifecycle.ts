/** The life of the process: parts start in order and stop in reverse; the first signal drains, the second exits. */
import type { Logger } from 'pino';
import { BridgeError, ConfigError } from './errors.ts';

/** What the process's exit code says. The numbers from 64 on are sysexits(3)'s. */
export const EXIT = {
  ok: 0,
  /** A bug, or something that nobody thought of. */
  failure: 1,
  usage: 64,
  /** What was asked about is not there. */
  noInput: 66,
  /** What it had to say could not be written. */
  ioError: 74,
  /** Something did not end in time, or a dependency could not be reached at start: try again. */
  tempFail: 75,
  config: 78,
} as const;

/** Something that is started and stopped. */
export interface Part {
  readonly name: string;
  start(): Promise<void>;
  /** Resolves when nothing of it is left running. */
  stop(): Promise<void>;
}

export interface LifecycleOptions {
  /** In the order in which they start. */
  readonly parts: readonly Part[];
  readonly log: Logger;
  /** How long stopping may take, in milliseconds, before the process exits all the same. */
  readonly shutdownTimeoutMs: number;
  /** Where signals come from and where the exit goes; the process, but for tests. */
  readonly process: SignalSource;
}

type SignalListener = (signal: NodeJS.Signals) => void;
interface SignalSource {
  on(signal: 'SIGINT' | 'SIGTERM', listener: SignalListener): unknown;
  off(signal: 'SIGINT' | 'SIGTERM', listener: SignalListener): unknown;
  exit(code: number): unknown;
}

const LONG_MS = 3_600_000;

/**
 * Runs the parts until a signal comes or one of them cannot start.
 * @returns the exit code; the caller ends the process with it. Does not return when something does not stop in time:
 * what still runs would keep the process alive, so it ends here.
 */
export async function runUntilSignal(options: LifecycleOptions): Promise<number> {
  const { parts, log, process } = options;
  const started: Part[] = [];
  let onSignal: SignalListener = () => undefined;
  const signalled = new Promise<NodeJS.Signals>((resolve) => {
    let isSecond = false;
    onSignal = (signal) => {
      if (isSecond) {
        log.warn({ signal }, 'second signal: exit at once');
        process.exit(EXIT.tempFail);
      }
      isSecond = true;
      resolve(signal);
    };
  });
  // Before anything else: a signal that comes during the start must not be lost.
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  // Waits, idle connections and signals keep no process alive: without this one it ends as soon as it has nothing to do.
  const alive = setInterval(() => undefined, LONG_MS);
  try {
    const failed = await startAll(parts, started, log, signalled);
    if (failed === undefined) {
      log.info({ signal: await signalled }, 'stopping; a second signal exits at once');
    }
    const end = await stopAll(started, log, options.shutdownTimeoutMs);
    if (end === 'late') {
      process.exit(failed ?? EXIT.tempFail);
    }
    return failed ?? (end === 'clean' ? EXIT.ok : EXIT.tempFail);
  } finally {
    clearInterval(alive);
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/** @returns an exit code if a part could not start */
async function startAll(
  parts: readonly Part[],
  started: Part[],
  log: Logger,
  signalled: Promise<NodeJS.Signals>,
): Promise<number | undefined> {
  for (const part of parts) {
    started.push(part);
    try {
      const isSignalled = await Promise.race([part.start().then(() => false), signalled.then(() => true)]);
      if (isSignalled) {
        return undefined;
      }
    } catch (error) {
      log.fatal({ part: part.name, err: error }, 'could not start');
      return exitCodeOf(error);
    }
  }
  log.info({ parts: parts.map(({ name }) => name) }, 'started');
  return undefined;
}

/** What a start failed for. A port that is taken is like a dependency that is away: the system says so. */
function exitCodeOf(error: unknown): number {
  if (error instanceof ConfigError) {
    return EXIT.config;
  }
  const isKnown = error instanceof BridgeError || (typeof error === 'object' && error !== null && 'syscall' in error);
  return isKnown ? EXIT.tempFail : EXIT.failure;
}

type End = 'clean' | 'with errors' | 'late';

/** Stops the parts one after another, the last one first; one that cannot be stopped does not keep the others. */
async function stopAll(started: readonly Part[], log: Logger, timeoutMs: number): Promise<End> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<End>((resolve) => {
    timer = setTimeout(() => {
      log.error({ timeoutMs }, 'not everything stopped in time; what was under way is taken up by another instance');
      resolve('late');
    }, timeoutMs);
  });
  const end = await Promise.race([stopEach(started, log), late]);
  clearTimeout(timer);
  if (end === 'clean') {
    log.info('stopped');
  }
  return end;
}

async function stopEach(started: readonly Part[], log: Logger): Promise<End> {
  let end: End = 'clean';
  for (const part of [...started].reverse()) {
    try {
      await part.stop();
    } catch (error) {
      end = 'with errors';
      log.error({ part: part.name, err: error }, 'could not stop cleanly');
    }
  }
  return end;
}
