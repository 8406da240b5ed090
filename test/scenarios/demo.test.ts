import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from '@jest/globals';
import { mariadb, rabbitmq, startBuildbot } from '../support/services/index.ts';

const CLI = path.resolve(import.meta.dirname, '../../dist/src/cli.js');

async function everyStoryIsRight(args: readonly string[], servers?: object): Promise<void> {
  const env = { ...process.env, ...(servers ? { BBB_DEMO_SERVERS: JSON.stringify(servers) } : {}) };
  const { stdout } = await promisify(execFile)(process.execPath, [CLI, 'demo', ...args], { env, timeout: 90_000 });
  expect(stdout).toContain('Every story came out right.');
  expect(stdout.match(/^ok /gm)).toHaveLength(10);
  expect(stdout).not.toContain('\u001B');
}

/** What the demo's own script would have started. */
async function withServers(work: (servers: Readonly<Record<string, string>>) => Promise<void>): Promise<void> {
  const { url: pulseUrl, adminUrl } = rabbitmq();
  const databases = [await mariadb().createDatabase(), await mariadb().createDatabase()];
  try {
    const [own, other] = databases.map(({ url }) => url);
    await work({ pulseUrl, adminUrl, databaseUrl: own ?? '', otherUrl: other ?? '' });
  } finally {
    await Promise.all(databases.map((database) => database.drop()));
  }
}

it('the demo shows every story right, in plain lines where there is no terminal', () => everyStoryIsRight([]));

it('the demo shows every story right on real servers', () =>
  withServers(async ({ otherUrl: _, ...servers }) => {
    const buildbot = await startBuildbot();
    try {
      await everyStoryIsRight(['--real'], { ...servers, buildbotUrl: buildbot.url });
    } finally {
      await buildbot.stop();
    }
  }));

it('the demo shows every story right with a classic Buildbot', () =>
  withServers(({ otherUrl, ...servers }) =>
    everyStoryIsRight(['--classic'], { ...servers, schedulerDbUrl: otherUrl }),
  ));
