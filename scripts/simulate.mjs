/**
 * Simulates the bridge between a queue and a Buildbot where everything goes wrong, in virtual time:
 * `npm run simulate -- --seeds 2000`. A seed that fails is printed with the end of its history; exit code 1.
 * `npm run simulate -- --mutations` shows that it sees: each bridge that is broken on purpose has to be caught.
 */
import { fork } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setImmediate } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ensureBuild, ensureNodeModules, ROOT, say } from './lib/packages.mjs';

const USAGE = `Usage: npm run simulate -- [options]

  --seeds N      how many seeds (200)
  --from K       the first of them (1)
  --seed S       this seed only, with its whole history
  --mutation M   with a bridge that is broken in this way: see src/sandbox/simulation/mutations.ts
  --mutations    every one of those, each until a seed catches it; nothing else but --processes goes with it
  --processes P  at once (one for each processor)
  --help         this text

Ctrl-C ends it early with the figures so far; once more, at once.
`;
/** Seeds that a process is given at once. */
const CHUNK = 20;
/** With fewer seeds other processes are not worth their start. */
const FEW = 40;
const PROGRESS_MS = 10_000;
/** Failures that are shown in full. */
const SHOWN = 5;

function readOptions() {
  const text = { type: 'string' };
  const flag = { type: 'boolean', default: false };
  const options = { seeds: text, from: text, seed: text, mutation: text, mutations: flag, processes: text, help: flag };
  const { values } = parseArgs({ options });
  const other = ['seeds', 'from', 'seed', 'mutation'].find((name) => values[name] !== undefined);
  if (values.mutations && other !== undefined) {
    throw new Error(`--${other} does not go with --mutations`);
  }
  const whole = (name, usual) => {
    const value = Number(values[name] ?? usual);
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new Error(`--${name} takes a whole number from 1 on`);
    }
    return value;
  };
  return {
    help: values.help,
    seed: values.seed === undefined ? undefined : whole('seed'),
    seeds: whole('seeds', 200),
    from: whole('from', 1),
    processes: whole('processes', os.availableParallelism()),
    mutation: values.mutation,
    mutations: values.mutations,
  };
}

const load = async (file) => import(path.join(ROOT, 'dist/src/sandbox/simulation', file));

/** What a process is given: seeds, or the name of a mutation to catch. */
async function perform({ toCatch, from, count, mutation }) {
  const { mutationNamed, simulateMany } = await load('batch.js');
  if (toCatch === undefined) {
    return await simulateMany(from, count, mutation);
  }
  const { catchMutation } = await load('catching.js');
  return { name: toCatch, caught: await catchMutation(mutationNamed(toCatch)) };
}

async function work() {
  // Ctrl-C reaches every process; what is under way is counted, and no more is asked for.
  process.on('SIGINT', () => undefined);
  process.on('message', async (job) => process.send(await perform(job)));
  process.on('disconnect', () => process.exit(0));
  process.send('ready');
}

/** Hands the jobs out, in order, to as many processes as are wanted, until all are done or somebody stops it. */
async function performAll(jobs, processes, stopped, onDone) {
  if (processes === 1) {
    for (const job of jobs) {
      // Signals are heard here: a simulation leaves no room for them.
      await setImmediate();
      if (stopped.aborted) {
        return;
      }
      onDone(await perform(job));
    }
    return;
  }
  const left = [...jobs];
  const one = () =>
    new Promise((resolve, reject) => {
      const child = fork(import.meta.filename, ['--worker']);
      child.on('message', (message) => {
        if (message !== 'ready') {
          onDone(message);
        }
        const job = stopped.aborted ? undefined : left.shift();
        if (job === undefined) {
          child.disconnect();
        } else {
          child.send(job);
        }
      });
      child.on('error', reject);
      child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`a process ended with code ${code}`))));
    });
  await Promise.all(Array.from({ length: processes }, one));
}

function chunks({ from, seeds, mutation }) {
  return Array.from({ length: Math.ceil(seeds / CHUNK) }, (_, index) => {
    const done = index * CHUNK;
    return { from: from + done, count: Math.min(CHUNK, seeds - done), mutation };
  });
}

// Whoever reads the output may go, as `npm run simulate | head` does.
process.stdout.on('error', () => process.exit(1));
const print = (...lines) => process.stdout.write(lines.map((line) => `${line}\n`).join(''));
const indented = (lines) => lines.map((line) => `  ${line}`);
const counts = (record) =>
  Object.entries(record)
    .sort((a, b) => b[1] - a[1])
    .map(([name, count]) => `${count} ${name}`)
    .join(', ');

function showFailure({ seed, complaints, trace }, mutation) {
  const broken = mutation === undefined ? '' : ` --mutation ${mutation}`;
  print(`\nseed ${seed} failed:`, ...indented(complaints));
  print(`what came before (all of it: npm run simulate -- --seed ${seed}${broken}):`, ...indented(trace));
}

function summarize(totals, seconds) {
  const hours = Math.round(totals.virtualMs / 3_600_000);
  print(`faults: ${counts(totals.faults)}`);
  print(`runs resolved: ${counts(totals.resolutions)}`);
  print(
    `${totals.seeds} seeds, ${totals.failures.length} failed; ${totals.tasks} tasks, ${totals.steps} steps, ${hours} virtual hours in ${seconds.toFixed(1)} s (${(totals.seeds / seconds).toFixed(1)} seeds/s)`,
  );
}

async function showOne({ seed, mutation }) {
  const { simulateOne } = await load('batch.js');
  const report = await simulateOne(seed, mutation);
  print(...report.trace());
  print(`\nseed ${seed}: ${report.complaints.length === 0 ? 'nothing wrong' : 'failed'}; history ${report.digest()}`);
  print(...indented(report.complaints));
  return report.complaints.length;
}

/**
 * Tells how far it is for as long as the work takes. The first Ctrl-C or SIGTERM ends it early, with its figures and
 * the exit code of a command that was stopped; the next ends it at once.
 */
async function withProgress(tell, work) {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const progress = setInterval(() => say(`${tell()}, ${seconds().toFixed(0)} s`), PROGRESS_MS);
  const stopping = new AbortController();
  const stop = (signal) => {
    say('stopping: what is under way is still counted');
    process.exitCode = 128 + os.constants.signals[signal];
    stopping.abort();
  };
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    await work(stopping.signal);
  } finally {
    clearInterval(progress);
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
  return seconds();
}

async function showMany(options) {
  const { addTotals, mutationNamed, noTotals } = await load('batch.js');
  if (options.mutation !== undefined) {
    mutationNamed(options.mutation);
  }
  const totals = noTotals();
  const { failures } = totals;
  const seconds = await withProgress(
    () => `${totals.seeds} of ${options.seeds} seeds, ${failures.length} failed`,
    (stopped) =>
      performAll(chunks(options), options.seeds <= FEW ? 1 : options.processes, stopped, (more) => {
        addTotals(totals, more);
        for (const { seed, complaints } of more.failures) {
          say(`seed ${seed} failed: ${complaints[0]}`);
        }
      }),
  );
  failures.sort((a, b) => a.seed - b.seed);
  for (const failure of failures.slice(0, SHOWN)) {
    showFailure(failure, options.mutation);
  }
  if (failures.length > SHOWN) {
    const others = failures.slice(SHOWN).map(({ seed }) => seed);
    print(`\nthese seeds failed, too: ${others.join(' ')}`);
  }
  summarize(totals, seconds);
  return failures.length;
}

/** A line for each, in the order of the list, as soon as it is known. */
async function showMutations({ processes }) {
  const { MUTATIONS } = await load('mutations.js');
  const { MOST_SEEDS } = await load('catching.js');
  const waiting = MUTATIONS.map(({ name }) => name);
  const width = Math.max(...waiting.map((name) => name.length));
  const jobs = waiting.map((toCatch) => ({ toCatch }));
  const known = new Map();
  const missed = [];
  const seconds = await withProgress(
    () => `${known.size} of ${jobs.length} mutations`,
    (stopped) =>
      performAll(jobs, processes, stopped, ({ name, caught }) => {
        known.set(name, caught ?? null);
        if (!caught) {
          missed.push(name);
        }
        while (known.has(waiting[0])) {
          const next = waiting.shift();
          const by = known.get(next);
          const what = by === null ? `not caught within ${MOST_SEEDS} seeds` : `seed ${by.seed}: ${by.complaint}`;
          print(`${next.padEnd(width)}  ${what}`);
        }
      }),
  );
  print(`caught ${known.size - missed.length} of ${jobs.length} in ${seconds.toFixed(1)} s`);
  return missed.length;
}

/** How many things are wrong. */
async function main(options) {
  await ensureNodeModules();
  await ensureBuild();
  if (options.mutations) {
    return await showMutations(options);
  }
  return await (options.seed === undefined ? showMany(options) : showOne(options));
}

/** What was asked for; nothing if that was for help, or cannot be understood, which is said. */
function understand() {
  try {
    const options = readOptions();
    if (!options.help) {
      return options;
    }
    process.stdout.write(USAGE);
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${USAGE}`);
    process.exitCode = 1;
  }
  return undefined;
}

// Nobody reads the stacks of the errors that are simulated, and they take time.
Error.stackTraceLimit = 0;
if (process.argv[2] === '--worker') {
  await work();
} else {
  try {
    const options = understand();
    if (options !== undefined) {
      const wrong = await main(options);
      process.exitCode = wrong > 0 ? 1 : (process.exitCode ?? 0);
    }
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
