/** The servers that the other tests rely on do what those tests take for granted. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { connect } from 'amqplib';
import got, { HTTPError } from 'got';
import knex from 'knex';
import { eventually } from '../support/eventually.ts';
import { type Buildbot, mariadb, postgres, rabbitmq, startBuildbot } from '../support/services/index.ts';

describe('RabbitMQ', () => {
  const { url, adminUrl, ctl, stop, kill, start } = rabbitmq();
  const id = randomBytes(4).toString('hex');
  const own = `queue/bridge/services-${id}`;
  const exchange = `exchange/services-${id}/v1/task-pending`;

  /** Does something as one of the users, on a connection of its own. */
  async function as<T>(user: string, work: (channel: Awaited<ReturnType<typeof openChannel>>) => Promise<T>) {
    const connection = await connect(user);
    connection.on('error', () => undefined);
    try {
      return await work(await openChannel(connection));
    } finally {
      await connection.close().catch(() => undefined);
    }
  }
  const openChannel = async (connection: Awaited<ReturnType<typeof connect>>) => {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => undefined);
    return channel;
  };

  afterAll(() =>
    as(adminUrl, async (channel) => {
      await channel.deleteQueue(own);
      await channel.deleteExchange(exchange);
    }),
  );

  it('gives the bridge quorum queues of its own, bound to exchanges of others, and nothing else', async () => {
    await as(adminUrl, (channel) => channel.assertExchange(exchange, 'topic', { durable: true }));
    await as(url, async (channel) => {
      await channel.assertQueue(own, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
      await channel.bindQueue(own, exchange, '#');
    });
    const refused = { code: 403 };
    await expect(as(url, (channel) => channel.assertQueue(`queue/other/${id}`))).rejects.toMatchObject(refused);
    await expect(as(url, (channel) => channel.checkQueue('queue/other/q'))).rejects.toMatchObject({ code: 404 });
    await expect(as(url, (channel) => channel.assertExchange(`exchange/x-${id}`, 'topic'))).rejects.toMatchObject(
      refused,
    );
  });

  /** Sees it gone, and has it back on the same port whatever was seen. */
  async function down(go: () => Promise<void>): Promise<void> {
    await go();
    try {
      await expect(connect(url)).rejects.toThrow('ECONNREFUSED');
    } finally {
      await start();
    }
  }

  it('keeps its queues when stopped, and what it confirmed when killed', async () => {
    await down(stop);
    await as(adminUrl, async (channel) => {
      channel.publish(exchange, 'key', Buffer.from('kept'), { persistent: true });
      await channel.waitForConfirms();
    });
    await down(kill);
    const message = await as(url, (channel) => eventually(() => channel.get(own, { noAck: true })));
    expect(message.content.toString()).toBe('kept');
  });

  it('has its queues listed by rabbitmqctl', async () => {
    expect(await ctl('list_queues', '--silent', 'name', 'type')).toContain(`${own}\tquorum`);
  });
});

describe.each([
  ['MariaDB', mariadb, 'mysql2', 'SELECT VERSION() AS version', /MariaDB/],
  ['PostgreSQL', postgres, 'pg', 'SELECT VERSION() AS version', /^PostgreSQL/],
] as const)('%s', (_name, server, client, sql, version) => {
  /** One statement, on a connection of its own. */
  async function query(url: string, text: string): Promise<unknown> {
    const db = knex({ client, connection: url, log: { error: () => undefined } });
    try {
      return await db.raw(text);
    } finally {
      await db.destroy();
    }
  }

  it('gives each test a database of its own, and forgets it', async () => {
    const [one, other] = [await server().createDatabase(), await server().createDatabase()];
    expect(JSON.stringify(await query(one.url, sql))).toMatch(
      new RegExp(`"version":"[^"]*${version.source.replace('^', '')}`),
    );
    await query(one.url, 'CREATE TABLE t (a INTEGER)');
    await query(other.url, 'CREATE TABLE t (a INTEGER)');
    await one.drop();
    await other.drop();
    await expect(query(one.url, sql)).rejects.toThrow();
  });

  it('keeps its data when it is stopped and started', async () => {
    const { url, drop } = await server().createDatabase();
    await query(url, 'CREATE TABLE t (a INTEGER)');
    await query(url, 'INSERT INTO t VALUES (42)');
    await server().stop();
    await expect(query(url, 'SELECT a FROM t')).rejects.toThrow();
    await server().start();
    expect(JSON.stringify(await query(url, 'SELECT a FROM t'))).toContain('"a":42');
    await drop();
  });
});

interface Request {
  readonly complete: boolean;
  readonly results: number;
}
interface Build {
  readonly buildid: number;
  readonly results: number | null;
  readonly state_string: string;
  readonly properties: Record<string, [unknown, string]>;
}

/** Asks for a build; answers the id of its request. */
async function force(buildbot: Buildbot, builderName: string, params: object): Promise<number> {
  const answer = await buildbot.control('forceschedulers/bridge', 'force', {
    builderNames: [builderName],
    reason: 'a test',
    owner: 'test',
    ...params,
  });
  const { result } = answer as { result: [number, Record<string, number>] };
  return Object.values(result[1])[0] ?? 0;
}

const requestOf = async (buildbot: Buildbot, id: number): Promise<Request | undefined> =>
  (await buildbot.get<{ buildrequests: Request[] }>(`buildrequests/${id}`)).buildrequests[0];
const buildsOf = async (buildbot: Buildbot, id: number): Promise<Build[]> =>
  (await buildbot.get<{ builds: Build[] }>(`buildrequests/${id}/builds?property=*`)).builds;

/** Waits for the end of a request; answers the results of its builds. */
async function ended(buildbot: Buildbot, id: number): Promise<(number | null)[]> {
  await eventually(async () => (await requestOf(buildbot, id))?.complete, {
    timeoutMs: 30_000,
    what: `request ${id} to be complete`,
  });
  return (await buildsOf(buildbot, id)).map(({ results }) => results);
}

/** What the last step of a build has printed. */
async function stdio(buildbot: Buildbot, { buildid }: Build): Promise<string> {
  const { steps } = await buildbot.get<{ steps: { stepid: number }[] }>(`builds/${buildid}/steps`);
  const { logs } = await buildbot.get<{ logs: { logid: number; name: string }[] }>(
    `steps/${steps.at(-1)?.stepid}/logs`,
  );
  const log = logs.find(({ name }) => name === 'stdio');
  return log ? got(`${buildbot.url}/api/v2/logs/${log.logid}/raw`).text() : '';
}

describe('Buildbot', () => {
  let buildbot: Buildbot;
  beforeAll(async () => {
    buildbot = await startBuildbot();
  });
  afterAll(() => buildbot?.stop());

  it.each([
    ['success', [0]],
    ['warnings', [1]],
    ['failure', [2]],
    ['exception', [4]],
    ['retry-once', [5, 0]],
    ['retry-always', [5, 5, 5, 0]],
    ['release-x', [0]],
  ])('has a builder %s whose builds end %j', async (name, results) => {
    const id = await force(buildbot, name, { taskId: `t-${name}` });
    expect(await ended(buildbot, id)).toEqual(results);
  });

  it('takes declared parameters with their types, and properties in the slots', async () => {
    const id = await force(buildbot, 'success', {
      taskId: 't',
      product: 'widget',
      number: 7,
      flag: true,
      p1_name: 'extra',
      p1_value: 'x/y-1.0',
      branch: 'main',
      undeclared: 'dropped',
    });
    await ended(buildbot, id);
    const [build] = await buildsOf(buildbot, id);
    expect(build?.properties).toMatchObject({
      taskId: ['t', 'Force Build Form'],
      product: ['widget', 'Force Build Form'],
      number: [7, 'Force Build Form'],
      flag: [true, 'Force Build Form'],
      extra: ['x/y-1.0', 'Force Build Form'],
      artifact_url: ['http://example.com/build.zip', 'SetProperty'],
    });
    expect(build?.properties).not.toHaveProperty('undeclared');
  });

  it.each([
    ['large-log', 4_000_000, '700000\n'],
    ['unicode', 20, 'Grüße 🎉\n'],
  ])('writes the log of %s', async (name, atLeast, words) => {
    const id = await force(buildbot, name, { taskId: 't' });
    expect(await ended(buildbot, id)).toEqual([0]);
    const [build] = await buildsOf(buildbot, id);
    const text = build ? await stdio(buildbot, build) : '';
    expect(Buffer.byteLength(text)).toBeGreaterThan(atLeast);
    expect(text).toContain(words);
  });

  it('holds a slow build until it is told, for the task it is told of', async () => {
    const [one, other] = [
      await force(buildbot, 'slow', { taskId: 't-one' }),
      await force(buildbot, 'slow-2', { taskId: 't-other' }),
    ];
    await buildbot.begun('t-one');
    await buildbot.begun('t-other');
    await buildbot.finish('t-one');
    expect(await ended(buildbot, one)).toEqual([0]);
    expect(await requestOf(buildbot, other)).toMatchObject({ complete: false });
    await buildbot.control(`buildrequests/${other}`, 'cancel');
    expect(await ended(buildbot, other)).toEqual([6]);
  });

  it('collapses requests by default', async () => {
    const older = await force(buildbot, 'noworker', { taskId: 't-1' });
    const newer = await force(buildbot, 'noworker', { taskId: 't-2' });
    expect(await ended(buildbot, older)).toEqual([]);
    expect(await requestOf(buildbot, older)).toMatchObject({ complete: true, results: 3 });
    expect(await requestOf(buildbot, newer)).toMatchObject({ complete: false, results: -1 });
  });

  it('builds again what a killed worker lost, once it is back', async () => {
    const id = await force(buildbot, 'slow', { taskId: 't-worker' });
    await buildbot.begun('t-worker');
    await buildbot.killWorker();
    await eventually(async () => (await buildsOf(buildbot, id))[0]?.results === 5, { what: 'RETRY' });
    expect(await requestOf(buildbot, id)).toMatchObject({ complete: false });
    await buildbot.startWorker();
    await buildbot.begun('t-worker', 2);
    await buildbot.finish('t-worker');
    expect(await ended(buildbot, id)).toEqual([5, 0]);
  });

  it('keeps a request while no worker runs, and the master is started again without one', async () => {
    await buildbot.stopWorker();
    const id = await force(buildbot, 'quick-1', { taskId: 't' });
    await buildbot.stopMaster();
    await expect(buildbot.get('workers')).rejects.toThrow('ECONNREFUSED');
    await buildbot.startMaster();
    expect(await buildsOf(buildbot, id)).toEqual([]);
    await buildbot.startWorker();
    expect(await ended(buildbot, id)).toEqual([0]);
  });

  it('cancels what it builds when it is stopped', async () => {
    const id = await force(buildbot, 'slow', { taskId: 't-stopped' });
    await buildbot.begun('t-stopped');
    await buildbot.stopMaster();
    await buildbot.startMaster();
    expect(await requestOf(buildbot, id)).toMatchObject({ complete: true, results: 6 });
    expect((await buildsOf(buildbot, id))[0]?.state_string).toContain('Master Shutdown');
  });

  it('builds again what it lost when it was killed', async () => {
    const id = await force(buildbot, 'slow', { taskId: 't-killed' });
    await buildbot.begun('t-killed');
    await buildbot.killMaster();
    await buildbot.startMaster();
    await buildbot.begun('t-killed', 2);
    await buildbot.finish('t-killed');
    expect(await ended(buildbot, id)).toEqual([5, 0]);
  });
});

describe('Buildbot with rules', () => {
  it('does not collapse where it is told so, and wants a session for control', async () => {
    const auth = { username: 'bridge', password: 'pass' };
    const buildbot = await startBuildbot({ collapse: false, auth });
    try {
      const refusal = await force(buildbot, 'quick-1', {}).catch((error: unknown) => error);
      expect(refusal instanceof HTTPError && refusal.response.statusCode).toBe(403);
      const { headers } = await got(`${buildbot.url}/auth/login`, { ...auth, followRedirect: false });
      const cookie = String(headers['set-cookie']?.at(-1)).split(';')[0];
      const ids: number[] = [];
      for (const taskId of ['t-1', 't-2']) {
        const params = { builderNames: ['noworker'], reason: 'r', owner: 'o', taskId };
        const json = { jsonrpc: '2.0', id: 1, method: 'force', params };
        const { result } = await got
          .post(`${buildbot.url}/api/v2/forceschedulers/bridge`, { json, headers: { cookie } })
          .json<{ result: [number, Record<string, number>] }>();
        ids.push(...Object.values(result[1]));
      }
      for (const id of ids) {
        expect(await requestOf(buildbot, id)).toMatchObject({ complete: false });
      }
    } finally {
      await buildbot.stop();
    }
  });
});
