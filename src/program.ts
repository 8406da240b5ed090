/** The command line: `bbb run`, `bbb migrate`, `bbb tasks`, `bbb demo`. */
import process from 'node:process';
import { Command, InvalidArgumentError, Option } from 'commander';
import { SERVICES, type Service } from './bridge.ts';
import { loadConfig } from './config.ts';
import { OPEN_STATES, type OpenState } from './domain/mapping.ts';
import { isTaskId } from './domain/task.ts';
import { BridgeError, ConfigError, codeOf, describeError } from './errors.ts';
import { EXIT, runUntilSignal } from './lifecycle.ts';
import { createLog } from './log.ts';
import { createProcess, instanceName } from './main.ts';
import { ADOPT_VARIABLE, runMigrate } from './migrate.ts';
import { plainLines } from './plain.ts';
import { DEFAULT_LIMIT, MAX_LIMIT, runTasks } from './tasks/command.ts';
import { readVersion } from './version.ts';

interface GlobalOptions {
  readonly config?: string;
}

function parseServices(text: string): readonly Service[] {
  const names = text.split(',').map((name) => name.trim());
  return names.map((name) => {
    const service = SERVICES.find((known) => known === name);
    if (service === undefined) {
      throw new InvalidArgumentError(`"${name}" is not a service: choose among ${SERVICES.join(', ')}.`);
    }
    return service;
  });
}

async function run(options: { services: readonly Service[] }, command: Command): Promise<number> {
  const { config: file } = command.optsWithGlobals<GlobalOptions>();
  const config = loadConfig({ file, env: process.env });
  const instance = instanceName(config);
  const log = createLog({ level: config.log.level, base: { instance } });
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'a bug: unhandled rejection');
    process.exit(EXIT.failure);
  });
  const { parts } = createProcess({ config, services: options.services, instance, log });
  return runUntilSignal({ parts, log, shutdownTimeoutMs: config.bridge.shutdownTimeout, process });
}

async function migrateDatabase(options: { adopt?: string | true }, command: Command): Promise<number> {
  const { config: file } = command.optsWithGlobals<GlobalOptions>();
  return runMigrate({
    file,
    env: process.env,
    adopt: options.adopt,
    say: (line) => process.stdout.write(`${line}\n`),
  });
}

function parseTaskId(text: string): string {
  if (!isTaskId(text)) {
    throw new InvalidArgumentError(
      'It is no id that a task can have: 22 of A-Z a-z 0-9 _ -, as Taskcluster shows them.',
    );
  }
  return text;
}

function parseLimit(text: string): number {
  const limit = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > MAX_LIMIT) {
    throw new InvalidArgumentError(`It has to be a number from 1 to ${MAX_LIMIT}.`);
  }
  return limit;
}

interface TasksFlags {
  readonly failing?: boolean;
  readonly state?: OpenState;
  readonly limit: number;
  readonly json?: boolean;
}

async function tasks(taskId: string | undefined, flags: TasksFlags, command: Command): Promise<number> {
  if (taskId !== undefined && (flags.failing === true || flags.state !== undefined)) {
    command.error('error: --failing and --state are for the list of open mappings: leave them out, or the task id');
  }
  // Where nobody reads the list any more, as of `bbb tasks | head`, there is nothing left to do.
  process.stdout.on('error', (error) => {
    if (hasNoReader(error)) {
      process.exit(EXIT.ok);
    }
  });
  return runTasks({
    ...{ taskId, state: flags.state, isFailing: flags.failing === true, limit: flags.limit },
    ...{ isJson: flags.json === true, file: command.optsWithGlobals<GlobalOptions>().config, env: process.env },
    say: (line) => process.stdout.write(`${line}\n`),
    note: (line) => process.stderr.write(`bbb: ${line}\n`),
  });
}

async function demo(options: { real?: boolean; classic?: boolean; keep?: boolean }): Promise<number> {
  // The sandbox is a program of its own; a bridge in production never loads it.
  const { runDemo } = await import('./sandbox/demo/demo.ts');
  return runDemo({
    isReal: options.real === true,
    isClassic: options.classic === true,
    isKept: options.keep === true,
  });
}

function createProgram(finish: (code: number) => void): Command {
  const program = new Command('bbb')
    .description('Lets tasks in a Taskcluster queue be built by Buildbot.')
    .version(readVersion())
    .option('--config <file>', 'the configuration (or the variable BBB_CONFIG)')
    .showHelpAfterError('(bbb --help says more)')
    // It repeats what was typed, or pasted.
    .configureOutput({ outputError: (text, write) => write(plainLines(text)) })
    .exitOverride();
  program
    .command('run')
    .description('run the services, all in this process unless some are named, until a signal comes')
    .addOption(
      new Option('--services <list>', `the services to run, of: ${SERVICES.join(', ')}`)
        .default(SERVICES, 'all')
        .argParser(parseServices),
    )
    .addHelpText(
      'after',
      `
The first SIGTERM or SIGINT stops cleanly within bridge.shutdownTimeout, the second at once.
Exit codes: ${EXIT.ok} stopped cleanly, ${EXIT.failure} a bug, ${EXIT.usage} wrong usage, ${EXIT.tempFail} a dependency was away at the start or
something did not stop in time (try again), ${EXIT.config} wrong configuration.`,
    )
    .action(async (options, command) => finish(await run(options, command)));
  program
    .command('migrate')
    .description('bring the database up to date; safe to repeat')
    .option('--adopt [url]', "then take over what the first bridge's database has under way; needs the whole --config")
    .addHelpText(
      'after',
      `
--adopt reads the table tasks of the first bridge (mysql://, postgres:// or sqlite:FILE), and never writes there. Stop
the first bridge before, and start this one afterwards. A URL on the command line shows in the list of processes:
without one, the variable ${ADOPT_VARIABLE} names it. One line is printed for each row: adopted (this bridge
has it now), merged (another row of the same task counts), known (this bridge had it already), skipped or failed, and why.
Exit codes: ${EXIT.ok} done, ${EXIT.failure} a bug, ${EXIT.usage} wrong usage, ${EXIT.ioError} what it said could not be written, ${EXIT.tempFail} something
else could not be read or written (try again), ${EXIT.config} wrong configuration.`,
    )
    .action(async (options, command) => finish(await migrateDatabase(options, command)));
  program
    .command('tasks')
    .description('show what the bridge has under way, or all about one task; only reads the database')
    .argument('[taskId]', 'a task: all its mappings, newest first, and its trace', parseTaskId)
    .option(
      '--failing',
      'only mappings whose last pass failed, and tasks that could not be admitted in the last 24 hours',
    )
    .addOption(new Option('--state <state>', 'only mappings in this state').choices(OPEN_STATES))
    .addOption(
      new Option('--limit <number>', 'no more than so many mappings, and lines of a trace')
        .default(DEFAULT_LIMIT)
        .argParser(parseLimit),
    )
    .option('--json', 'lines of JSON, with times as UTC milliseconds')
    .addHelpText(
      'after',
      `
Without a task: all open mappings, those that fail first, and of these the one that failed most often. A row that cannot
be read is listed as such. Of the configuration only database.url is needed. An id that begins with - comes after --.
Exit codes: ${EXIT.ok} done, ${EXIT.usage} wrong usage, ${EXIT.noInput} nothing is known of this task, ${EXIT.ioError} the list could not be
written, ${EXIT.tempFail} the database could not be read, ${EXIT.config} wrong configuration.`,
    )
    .action(async (taskId, options, command) => finish(await tasks(taskId, options, command)));
  program
    .command('demo')
    .description('show what the bridge does, on an emulated Taskcluster and an emulated Buildbot; needs no services')
    .option('--real', 'on a real RabbitMQ, MariaDB and Buildbot (from Debian, installed if missing and root)')
    .option('--classic', 'with a classic Buildbot 0.8, emulated, on a real RabbitMQ and MariaDB')
    .option('--keep', 'leave everything running afterwards, for exploring')
    .action(async (options) => finish(await demo(options)));
  return program;
}

async function main(): Promise<number> {
  let code: number = EXIT.ok;
  const program = createProgram((result) => {
    code = result;
  });
  try {
    await program.parseAsync(process.argv);
    return code;
  } catch (error) {
    if (
      error instanceof Error &&
      'exitCode' in error &&
      'code' in error &&
      String(error.code).startsWith('commander.')
    ) {
      return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    }
    process.stderr.write(`bbb: ${plainLines(error instanceof ConfigError ? error.message : describeError(error))}\n`);
    if (error instanceof ConfigError) {
      return EXIT.config;
    }
    return error instanceof BridgeError ? EXIT.tempFail : EXIT.failure;
  }
}

/** Whoever reads may go: what was not read was not wanted. */
function hasNoReader(error: Error): boolean {
  return codeOf(error) === 'EPIPE';
}

let lost: Error | undefined;
// What is half done would help nobody: it goes on.
process.stdout.on('error', (error) => {
  lost ??= hasNoReader(error) ? undefined : error;
});
const code = await main();
if (process.stdout.writableLength > 0) {
  // A pipe takes only as much as is read of it; what is left would be lost.
  await new Promise((resolve) => process.stdout.write('', resolve));
}
// What could not be written is told a moment later.
await new Promise((resolve) => setImmediate(resolve));
if (lost !== undefined) {
  process.stderr.write(`bbb: not all could be written to stdout: ${plainLines(describeError(lost))}\n`);
}
// At once: a connection that hangs somewhere must not keep a finished process alive.
process.exit(lost !== undefined && code === EXIT.ok ? EXIT.ioError : code);
