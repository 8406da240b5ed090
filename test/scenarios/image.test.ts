/** The image as operators are told to run it: a user without rights, a read-only root, and `/tmp` to write to. */
import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import { buildImage, type Image } from '../support/image.ts';
import { startSurroundings } from '../support/surroundings.ts';

let image: Image;
beforeAll(async () => {
  image = await buildImage();
}, 300_000);
afterAll(() => image?.remove());
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

const bbb = (...args: readonly string[]) => [...image.entryPoint, ...args];

it('gives its user no right, and nowhere to write but in /tmp', async () => {
  const look =
    'id -u; id -g; grep -E "^(CapEff|CapPrm|CapBnd|NoNewPrivs)" /proc/self/status; for x in /app/x /app/dist/x /etc/x /root/x /x; do touch $x; done; touch /tmp/x';
  const { code, stdout, stderr } = await image.run(['sh', '-c', look]);
  expect(stdout.replace(/\s+/g, ' ')).toBe(
    `1000 1000 CapPrm: ${'0'.repeat(16)} CapEff: ${'0'.repeat(16)} CapBnd: ${'0'.repeat(16)} NoNewPrivs: 1 `,
  );
  expect(stderr.match(/Read-only file system|Permission denied/g)).toHaveLength(5);
  expect(code).toBe(0);
});

it('has the program with what it needs, and neither its sources nor what builds and tests it', async () => {
  expect(image.command).toEqual(['node', '/app/dist/src/cli.js', 'run']);
  const { stdout: has } = await image.run(['sh', '-c', 'ls -A']);
  expect(has.trim().split('\n')).toEqual(['LICENSE', 'dist', 'migrations', 'node_modules', 'package.json']);
  const wanted = ['amqplib', 'knex', 'libsql', 'pino'];
  const packages = [...wanted, 'jest', 'typescript', '@biomejs/biome', '@swc/core'];
  const { stdout: installed } = await image.run([
    'sh',
    '-c',
    'cd node_modules && ls -d "$@" || true',
    'sh',
    ...packages,
  ]);
  expect(installed.trim().split('\n')).toEqual(wanted);
  expect(await image.run(bbb('--version'))).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
  });
});

it('runs every story of the demo, its database and the artifacts of its queue in /tmp', async () => {
  const { code, stdout } = await image.run(bbb('demo'));
  expect(stdout).toContain('Every story came out right.');
  expect(code).toBe(0);
});

it('builds a task, and ends when it is asked to', async () => {
  const { configFor, createTask, isBuilt } = await startSurroundings(undo);
  const config = JSON.stringify(configFor('sqlite:/tmp/bridge.db'));
  const script = 'printf %s "$1" > /tmp/bridge.yml; shift; "$@" migrate; exec "$@" run';
  const bridge = image.start(['sh', '-ec', script, 'sh', config, ...image.entryPoint], {
    env: { BBB_CONFIG: '/tmp/bridge.yml' },
  });
  undo.push(() => bridge.stop());
  await isBuilt(await createTask());
  bridge.stop();
  expect(await bridge.ended).toMatchObject({ code: 0, stderr: '' });
});

it('says what is wrong where it can write nothing at all', async () => {
  const { code, stderr } = await image.run(bbb('migrate'), {
    hasTmp: false,
    env: { DATABASE_URL: 'sqlite:/tmp/bridge.db' },
  });
  expect(code).not.toBe(0);
  expect(stderr).toContain('/tmp/bridge.db');
});

it('migrates a database in a folder that it may write to', async () => {
  expect(await image.run(bbb('migrate'), { env: { DATABASE_URL: 'sqlite:/tmp/bridge.db' } })).toMatchObject({
    code: 0,
    stderr: '',
  });
});

it('ends with a clear error where nothing is configured', async () => {
  const { code, stderr } = await image.run(image.command);
  expect(code).not.toBe(0);
  expect(stderr).toContain('configuration');
});
