/**
 * Runs tests, doing all of its own set-up: `node scripts/test.mjs [unit] [adapters] [scenarios] [-- jest's arguments]`.
 * Without a name, all of them; the last line says how many passed and failed.
 */
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { ensureBuild, ensureDebianPackages, ensureNodeModules, ROOT, say } from './lib/packages.mjs';
import { run } from './lib/process.mjs';
import { startServices } from './services.mjs';

const PROJECTS = ['unit', 'adapters', 'scenarios'];

const separator = process.argv.indexOf('--');
const given = process.argv.slice(2, separator === -1 ? undefined : separator);
const jestArguments = separator === -1 ? [] : process.argv.slice(separator + 1);
const unknown = given.filter((name) => !PROJECTS.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`no such tests: ${unknown.join(', ')}; there are ${PROJECTS.join(', ')}\n`);
  process.exit(64);
}
const projects = given.length > 0 ? given : PROJECTS;

let services;
let isStopping = false;

async function stopServices() {
  if (services && !isStopping) {
    isStopping = true;
    say('stopping the services');
    await services.stop();
  }
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    stopServices().finally(() => process.exit(130));
  });
}

/** One project after the other: scenarios would disturb each other, and everything else. */
async function runProject(name) {
  const output = path.join(tmpdir(), `bbb-jest-${process.pid}-${name}.json`);
  const env = {
    ...process.env,
    NODE_OPTIONS: '--experimental-vm-modules --no-warnings',
    ...(services ? { BBB_TEST_SERVICES: services.file } : {}),
  };
  const jest = path.join(ROOT, 'node_modules/jest/bin/jest.js');
  const workers = name === 'scenarios' ? ['--runInBand'] : ['--maxWorkers=2'];
  const timeout = name === 'unit' ? 10_000 : 120_000;
  const args = [
    jest,
    '--selectProjects',
    name,
    ...workers,
    `--testTimeout=${timeout}`,
    '--json',
    `--outputFile=${output}`,
    ...jestArguments,
  ];
  const isGood = await run(process.execPath, args, { cwd: ROOT, env, isShown: true }).then(
    () => true,
    () => false,
  );
  try {
    const result = JSON.parse(readFileSync(output, 'utf8'));
    const failedToRun = result.numRuntimeErrorTestSuites;
    return { isGood, passed: result.numPassedTests, failed: result.numFailedTests + failedToRun };
  } catch {
    return { isGood: false, passed: 0, failed: 1 };
  } finally {
    rmSync(output, { force: true });
  }
}

async function main() {
  await ensureNodeModules();
  if (projects.some((name) => name !== 'unit')) {
    await ensureDebianPackages();
    await ensureBuild();
    say('starting RabbitMQ, MariaDB, PostgreSQL; preparing Buildbot');
    services = await startServices();
  }
  const total = { isGood: true, passed: 0, failed: 0 };
  for (const name of projects) {
    say(`${name} tests`);
    const { isGood, passed, failed } = await runProject(name);
    total.isGood &&= isGood;
    total.passed += passed;
    total.failed += failed;
  }
  return total;
}

try {
  const { isGood, passed, failed } = await main();
  await stopServices();
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  process.exitCode = isGood && failed === 0 && passed > 0 ? 0 : 1;
} catch (error) {
  process.stderr.write(`\n${error instanceof Error ? error.message : error}\n`);
  await stopServices();
  process.exitCode = 1;
}
