/**
 * Runs tests, doing all of its own set-up: `node scripts/test.mjs [unit] [simulation] [adapters] [scenarios] [chaos]
 * [jest's arguments]`.
 * Without a name, all of them; the last line says how many passed and failed. Before it stands how much hostile input they
 * tried.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { ensureBuild, ensureDebianPackages, ensureNodeModules, ROOT, say } from './lib/packages.mjs';
import { endGroup, run } from './lib/process.mjs';
import { startServices } from './services.mjs';

/** For one test, and for all of a project: a run that hangs has failed, and says so. Milliseconds. */
const LIMITS = {
  unit: { test: 10_000, project: 5 * 60_000 },
  simulation: { test: 180_000, project: 10 * 60_000 },
  adapters: { test: 120_000, project: 15 * 60_000 },
  scenarios: { test: 120_000, project: 25 * 60_000 },
  chaos: { test: 600_000, project: 40 * 60_000 },
};

/** These talk to nothing but themselves. */
const ALONE = new Set(['unit', 'simulation']);
const SHARING = new Set(['adapters', 'chaos']);

const given = process.argv.slice(2);
const firstOther = given.findIndex((argument) => !Object.hasOwn(LIMITS, argument));
const named = firstOther === -1 ? given : given.slice(0, firstOther);
const projects = named.length > 0 ? named : Object.keys(LIMITS);
const jestArguments = given.slice(named.length).filter((argument, index) => index > 0 || argument !== '--');

/** Where the tests say how much hostile input they tried: see test/support/hostile-input.ts. */
const HOSTILE_INPUT = path.join(tmpdir(), `bbb-hostile-input-${process.pid}`);

// Of a process of the same number that was killed there may still be one.
rmSync(HOSTILE_INPUT, { force: true });
process.on('exit', () => rmSync(HOSTILE_INPUT, { force: true }));

/** What is under way, for whoever has to end it. */
let starting;
let jestPid;
let stopping;

/** Ends the tests and the services, once; resolves when nothing is left of them. */
function stopEverything() {
  stopping ??= (async () => {
    if (jestPid !== undefined) {
      await endGroup(jestPid, 'SIGTERM', 3000);
    }
    const services = await starting?.catch(() => undefined);
    if (services !== undefined) {
      say('stopping the services');
      await services.stop();
    }
  })();
  return stopping;
}

/** One project after the other: each would disturb the others. */
async function runProject(name, env) {
  const output = path.join(tmpdir(), `bbb-jest-${process.pid}-${name}.json`);
  const args = [
    path.join(ROOT, 'node_modules/jest/bin/jest.js'),
    ...['--selectProjects', name],
    // Tests that stop and kill the servers that they share come one after the other.
    ...(SHARING.has(name) ? ['--runInBand'] : ['--maxWorkers=2']),
    ...[`--testTimeout=${LIMITS[name].test}`, '--json', `--outputFile=${output}`],
    ...(jestArguments.length > 0 ? ['--passWithNoTests', ...jestArguments] : []),
  ];
  const isGood = await runJest(args, env, LIMITS[name].project);
  try {
    const result = JSON.parse(readFileSync(output, 'utf8'));
    const { numPassedTests: passed, numFailedTests, numRuntimeErrorTestSuites } = result;
    const skipped = jestArguments.length > 0 ? 0 : result.numPendingTests + result.numTodoTests;
    if (skipped > 0) {
      say(`${skipped} of the ${name} tests were skipped: that counts as failed`);
    }
    const failed = numFailedTests + numRuntimeErrorTestSuites + skipped;
    return { passed, failed: isGood ? failed : Math.max(failed, 1) };
  } catch {
    return { passed: 0, failed: 1 };
  } finally {
    rmSync(output, { force: true });
  }
}

/** In a group of its own, so that the daemons of its tests end with it. */
async function runJest(args, env, limitMs) {
  let limit;
  const onStart = (pid) => {
    jestPid = pid;
    limit = setTimeout(() => {
      say(`stopping the tests: they have not ended within ${limitMs / 60_000} minutes`);
      endGroup(pid, 'SIGTERM', 3000);
    }, limitMs);
  };
  try {
    await run(process.execPath, args, { cwd: ROOT, env, isShown: true, detached: true, onStart });
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(limit);
    if (jestPid !== undefined) {
      await endGroup(jestPid, 'SIGKILL', 3000);
    }
    jestPid = undefined;
  }
}

/** How much was tried at each edge, by all files of tests together. */
function showHostileInput() {
  const lines = existsSync(HOSTILE_INPUT) ? readFileSync(HOSTILE_INPUT, 'utf8').split('\n').filter(Boolean) : [];
  const total = new Map();
  for (const { edge, count } of lines.map((line) => JSON.parse(line))) {
    total.set(edge, (total.get(edge) ?? 0) + count);
  }
  if (total.size > 0) {
    say('hostile input tried');
  }
  for (const [edge, count] of [...total].sort()) {
    process.stdout.write(`${String(count).padStart(8)} ${edge}\n`);
  }
}

async function main() {
  await ensureNodeModules();
  let env = process.env;
  if (projects.some((name) => !ALONE.has(name))) {
    await ensureDebianPackages();
    await ensureBuild();
    say('starting RabbitMQ, MariaDB, PostgreSQL; preparing Buildbot');
    starting = startServices();
    const services = await starting;
    env = { ...services.env, BBB_TEST_SERVICES: services.file };
  }
  const total = { passed: 0, failed: 0 };
  for (const name of projects) {
    if (stopping === undefined) {
      say(`${name} tests`);
      const options = `${process.env.NODE_OPTIONS ?? ''} --experimental-vm-modules --no-warnings`;
      const { passed, failed } = await runProject(name, {
        ...env,
        NODE_OPTIONS: options.trim(),
        BBB_HOSTILE_INPUT: HOSTILE_INPUT,
      });
      total.passed += passed;
      total.failed += failed;
    }
  }
  return total;
}

// A terminal's Ctrl-C comes twice, from the terminal and from npm: only the first one counts.
for (const [signal, number] of [
  ['SIGHUP', 1],
  ['SIGINT', 2],
  ['SIGTERM', 15],
]) {
  process.on(signal, () => {
    stopEverything().finally(() => process.exit(128 + number));
  });
}
// Whoever reads the output may go, as `npm test | head` does; the services must not stay.
process.stdout.on('error', () => {
  stopEverything().finally(() => process.exit(1));
});

try {
  const { passed, failed } = await main();
  await stopEverything();
  showHostileInput();
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
} catch (error) {
  const isInterrupted = stopping !== undefined;
  process.stderr.write(isInterrupted ? '\ninterrupted\n' : `\n${error instanceof Error ? error.message : error}\n`);
  await stopEverything();
  process.exitCode = 1;
}
