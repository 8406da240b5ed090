/** `npm run simulate`, as people and continuous integration call it. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { expect, it } from '@jest/globals';
import { simulateOne } from '../../src/sandbox/simulation/batch.ts';

const SCRIPT = path.resolve(import.meta.dirname, '../../scripts/simulate.mjs');
/** It shows early. */
const MUTATION = 'no-look-up';

function simulate(...args: string[]): Promise<{ code: unknown; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [SCRIPT, ...args], { maxBuffer: 100_000_000 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, stdout, stderr }),
    );
  });
}

/** A seed of which something is complained, and what. */
async function seedThatFails(mutation: string): Promise<{ seed: number; complaint: string }> {
  for (let seed = 1; seed <= 50; seed += 1) {
    const complaint = (await simulateOne(seed, mutation)).complaints[0];
    if (complaint !== undefined) {
      return { seed, complaint };
    }
  }
  throw new Error(`no seed shows ${mutation}`);
}

it('fails on a seed that fails, and shows it, the complaint and what came before', async () => {
  const { seed, complaint } = await seedThatFails(MUTATION);
  const found = await simulate('--from', `${seed}`, '--seeds', '1', '--mutation', MUTATION);
  expect(found).toMatchObject({ code: 1, stderr: '' });
  const [, failure = ''] = found.stdout.split(`\nseed ${seed} failed:\n`);
  const [complaints = '', trace = ''] = failure.split(
    `what came before (all of it: npm run simulate -- --seed ${seed} --mutation ${MUTATION}):\n`,
  );
  expect(complaints).toContain(`  ${complaint}\n`);
  const lines = trace.split('\n').filter((line) => line.startsWith('  '));
  expect(lines.length).toBeGreaterThan(10);
  expect(lines.at(-1)?.trim()).toMatch(/^\S+ !! /);
  expect(lines.at(-1)).toContain(complaint.slice(complaint.indexOf(' ')));
  expect(found.stdout).toContain('\n1 seeds, 1 failed; ');

  const whole = await simulate('--seed', `${seed}`, '--mutation', MUTATION);
  expect(whole.code).toBe(1);
  expect(whole.stdout).toContain(lines.at(-1)?.trim());
  expect(whole.stdout).toMatch(new RegExp(`\nseed ${seed}: failed; history [0-9a-f]{64}\n`));
});

it('tells the same history of a seed twice, to the byte, and succeeds if nothing is wrong', async () => {
  const [first, second] = await Promise.all([simulate('--seed', '3'), simulate('--seed', '3')]);
  expect(first).toMatchObject({ code: 0, stderr: '' });
  expect(first.stdout).toMatch(/\nseed 3: nothing wrong; history [0-9a-f]{64}\n$/);
  expect(second.stdout === first.stdout).toBe(true);
});

it.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('says how far it came when it is stopped with %s', async (signal, expected) => {
  const child = spawn(process.execPath, [SCRIPT, '--seeds', '100000'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (data: string) => {
    stdout += data;
    // A second signal would end it at once.
    if (!child.killed && /^-- \d+ of 100000 seeds/m.test(stdout)) {
      child.kill(signal);
    }
  });
  const [code]: unknown[] = await once(child, 'close');
  expect(code).toBe(expected);
  const [, seeds] = /^(\d+) seeds, 0 failed; \d+ tasks, /m.exec(stdout) ?? [];
  expect(Number(seeds)).toBeGreaterThan(0);
  expect(Number(seeds)).toBeLessThan(100_000);
});

it('says how it is used when it is asked', async () => {
  const { code, stdout } = await simulate('--help');
  expect(code).toBe(0);
  expect(stdout).toMatch(/^Usage: npm run simulate -- \[options\]\n/);
  expect(stdout).toContain('--mutations');
});

it.each([
  ['an option that there is not', ['--sedes', '3'], /^Unknown option '--sedes'/],
  ['no number', ['--seeds', 'many'], /^--seeds takes a whole number from 1 on\n/],
  ['what does not go together', ['--mutations', '--seed', '3'], /^--seed does not go with --mutations\n/],
])('says how it is used when it is given %s', async (_what, args, words) => {
  const { code, stdout, stderr } = await simulate(...args);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(words);
  expect(stderr).toContain('\nUsage: npm run simulate -- [options]\n');
});

it('names the mutations that there are when it is given another', async () => {
  const { code, stderr } = await simulate('--seeds', '100', '--mutation', 'none-such');
  expect(code).toBe(1);
  expect(stderr).toMatch(/^no mutation "none-such": there are no-lease, /);
});
