/**
 * Simulates the bridge between a queue and a Buildbot where everything goes wrong, in virtual time:
 * `npm run simulate -- --seeds 2000`. A seed that fails is printed with the end of its history; exit code 1.
 */
import { fork } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { ensureBuild, ensureNodeModules, ROOT, say } from './lib/packages.mjs';

const USAGE = `Usage: npm run simulate -- [options]

  --seeds N      how many seeds (200)
  --from K       the first of them (1)
  --seed S       this seed only, with its whole history
  --mutation M   with a bridge that is broken in this way: see src/sandbox/simulation/mutations.ts
  --processes P  at once (one for each processor)
  --help         this text
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
  const options = { seeds: text, from: text, seed: text, mutation: text, processes: text, help: { type: 'boolean' } };
  const { values } = parseArgs({ options });
  const whole = (name, usual) => {
    const value = Number(values[name] ?? usual);
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new Error(`--${name} takes a whole number from 1 on`);
    }
    return value;
  };
  return {
    help: values.help ?? false,
    seed: values.seed === undefined ? undefined : whole('seed'),
    seeds: whole('seeds', 200),
    from: whole('from', 1),
    processes: whole('processes', os.availableParallelism()),
    mutation: values.mutation,
  };
}

const load = () => import(path.join(ROOT, 'dist/src/sandbox/simulation/batch.js'));

async function work() {
  const { simulateMany } = await load();
  process.on('message', async ({ from, count, mutation }) => {
    process.send(await simulateMany(from, count, mutation));
  });
  process.on('disconnect', () => process.exit(0));
  process.send('ready');
}

/** Hands the seeds out in chunks, in order, to as many processes as are wanted. */
async function runAll({ from, seeds, processes, mutation }, onTotals) {
  const end = from + seeds;
  let next = from;
  const take = () => {
    const chunk = { from: next, count: Math.min(CHUNK, end - next), mutation };
    next += chunk.count;
    return chunk;
  };
  if (seeds <= FEW || processes === 1) {
    const { simulateMany } = await load();
    while (next < end) {
      const chunk = take();
      onTotals(await simulateMany(chunk.from, chunk.count, mutation));
    }
    return;
  }
  const one = () =>
    new Promise((resolve, reject) => {
      const child = fork(import.meta.filename, ['--worker']);
      child.on('message', (message) => {
        if (message !== 'ready') {
          onTotals(message);
        }
        if (next < end) {
          child.send(take());
        } else {
          child.disconnect();
        }
      });
      child.on('error', reject);
      child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`a process ended with code ${code}`))));
    });
  await Promise.all(Array.from({ length: processes }, one));
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
  const { simulateOne } = await load();
  const report = await simulateOne(seed, mutation);
  print(...report.trace());
  print(`\nseed ${seed}: ${report.complaints.length === 0 ? 'nothing wrong' : 'failed'}; history ${report.digest()}`);
  print(...indented(report.complaints));
  return report.complaints.length;
}

async function main() {
  const options = readOptions();
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  await ensureNodeModules();
  await ensureBuild();
  if (options.seed !== undefined) {
    return await showOne(options);
  }
  const { addTotals, noTotals } = await load();
  const totals = noTotals();
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const progress = setInterval(
    () => say(`${totals.seeds} of ${options.seeds} seeds, ${totals.failures.length} failed, ${seconds().toFixed(0)} s`),
    PROGRESS_MS,
  );
  try {
    await runAll(options, (more) => {
      addTotals(totals, more);
      for (const { seed, complaints } of more.failures) {
        say(`seed ${seed} failed: ${complaints[0]}`);
      }
    });
  } finally {
    clearInterval(progress);
  }
  const failures = totals.failures.sort((a, b) => a.seed - b.seed);
  for (const failure of failures.slice(0, SHOWN)) {
    showFailure(failure, options.mutation);
  }
  if (failures.length > SHOWN) {
    print(
      `\nthese seeds failed, too: ${failures
        .slice(SHOWN)
        .map(({ seed }) => seed)
        .join(' ')}`,
    );
  }
  summarize(totals, seconds());
  return failures.length;
}

// Nobody reads the stacks of the errors that are simulated, and they take time.
Error.stackTraceLimit = 0;
if (process.argv[2] === '--worker') {
  await work();
} else {
  try {
    process.exitCode = (await main()) === 0 ? 0 : 1;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    process.exitCode = 1;
  }
}
