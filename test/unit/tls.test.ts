/** No connection is made to a server whose certificate nobody vouches for, and nothing is said to it. */
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { startWatch } from '../../src/buildbot/data-api/watch.ts';
import { createBuilders } from '../../src/buildbot/scheduler-db/builders.ts';
import { createSchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import { createMasters } from '../../src/buildbot/scheduler-db/masters.ts';
import { createSelfServe } from '../../src/buildbot/scheduler-db/self-serve.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { systemClock } from '../../src/clock.ts';
import { connect } from '../../src/db/connection.ts';
import { ConfigError } from '../../src/errors.ts';
import { createPulseBroker } from '../../src/listeners/pulse-broker.ts';
import { createLog } from '../../src/log.ts';
import { Secret } from '../../src/secret.ts';
import { eventually } from '../support/eventually.ts';
import { clientOf, startFakeServer } from '../support/queue-client.ts';
import { certificateOf, startTlsServer, type TlsServer } from '../support/tls-server.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function serve(...given: Parameters<typeof startTlsServer>): Promise<TlsServer> {
  const server = await startTlsServer(...given);
  undo.push(() => server.stop());
  return server;
}

const failure = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );

const once = { retries: 0 };
const secret = new Secret('p');
const artifact = { kind: 'content', name: 'a', contentType: 'text/plain', expires: 0, content: 'x' } as const;

function rest(url: string) {
  return createRestClient({ url, session: createSession(url), ...once });
}

async function drain(chunks: AsyncGenerator<Buffer>): Promise<void> {
  for await (const _chunk of chunks) {
    // Nothing is wanted of it.
  }
}

async function listOfBuilders(url: string): Promise<unknown> {
  const database = createSchedulerDb(connect('sqlite::memory:'));
  undo.push(() => database.close());
  const masters = createMasters(undefined);
  return createBuilders({ url, masters, database, clock: systemClock, log: undefined })('b');
}

async function uploadTo(url: string): Promise<void> {
  const queue = await startFakeServer(() => ({ body: { putUrl: `${url}/bucket` } }));
  undo.push(() => queue.stop());
  await clientOf(queue.url).putArtifact('t', 0, artifact);
}

const HTTPS: Readonly<Record<string, (url: string) => Promise<unknown>>> = {
  'the queue': (url) => clientOf(url, once).claim('t', 0),
  auth: (url) => clientOf(url, once).expandScopes(['a']),
  'the bucket of an artifact': uploadTo,
  'a read of the Data API': (url) => rest(url).get('builds', z.unknown()),
  'a call of the Data API': (url) => rest(url).control('x', 'force', {}),
  'a log of the Data API': (url) => drain(rest(url).stream('logs/1/raw')),
  'the sign-in of the Data API': (url) => createSession(url, 'u', secret).renew(),
  'a web status': (url) => createWebStatus({ url }, once).builders(),
  'the sign-in of a web status': (url) => createWebStatus({ url, username: 'u', password: secret }, once).signIn(),
  'a log of a web status': (url) =>
    drain(createWebStatus({ url }, once).logText(`${url}/builders/b/builds/1/steps/s/logs/l`)),
  'Self-serve': (url) => createSelfServe(url, systemClock, once).cancelRequest('main', 1),
  'the list of builders': listOfBuilders,
};

it.each(Object.entries(HTTPS))(
  '%s',
  async (_what, call) => {
    const server = await serve();
    const error = await failure(call(`https://localhost:${server.port}`));
    expect(inspect(error)).toMatch(/self-signed certificate|DEPTH_ZERO_SELF_SIGNED_CERT/);
    expect(server.connections()).toBeGreaterThan(0);
    expect(server.heard()).toBe('');
  },
  20_000,
);

function logLines() {
  const lines: string[] = [];
  return { lines, log: createLog({ level: 'debug', destination: { write: (line) => void lines.push(line) } }) };
}

it('the WebSocket of the Data API', async () => {
  const server = await serve();
  const { lines, log } = logLines();
  const url = `https://localhost:${server.port}`;
  const quiet = { onHint: () => undefined, onGap: () => undefined };
  const watch = startWatch({ url, session: createSession(url), clock: systemClock, log, ...quiet });
  undo.push(() => watch.stop());
  await eventually(() => lines.join().includes('self-signed certificate'));
  expect(server.heard()).toBe('');
});

it('Pulse', async () => {
  const server = await serve();
  const { lines, log } = logLines();
  const url = `amqps://u:p@localhost:${server.port}`;
  const broker = createPulseBroker({ url, namespace: 'n', clock: systemClock, log });
  undo.push(() => broker.close());
  const subscription = broker.subscribe({
    ...{ name: 'q', bindings: [], prefetch: 1, onGap: () => undefined },
    onMessage: async () => undefined,
  });
  void subscription.start();
  undo.push(() => subscription.stop());
  await eventually(() => lines.join().includes('self-signed certificate'));
  expect(broker.status()).toMatchObject({ isConnected: false });
  expect(server.heard()).toBe('');
}, 20_000);

describe('a database with TLS in its URL', () => {
  async function query(url: string): Promise<unknown> {
    const db = connect(url);
    undo.push(() => db.destroy());
    return failure(db.raw('SELECT 1').then());
  }

  it.each(['ssl=true', 'ssl={}', 'ssl={"minVersion":"TLSv1.2"}'])('MySQL, with %s', async (option) => {
    const server = await serve('mysql');
    const error = await query(`mysql://u:p@localhost:${server.port}/d?${encodeURI(option)}`);
    expect(inspect(error)).toContain('self-signed certificate');
    expect(server.heard()).toBe('');
  });

  it('MySQL, of another host than the certificate is for', async () => {
    const server = await serve('mysql', 'other');
    const option = encodeURIComponent(JSON.stringify({ ca: certificateOf('other') }));
    const error = await query(`mysql://u:p@localhost:${server.port}/d?ssl=${option}`);
    expect(inspect(error)).toMatch(/Hostname\/IP does not match/);
    expect(server.heard()).toBe('');
  });

  it('MySQL, with a certificate that is vouched for, is spoken to', async () => {
    const server = await serve('mysql');
    const option = encodeURIComponent(JSON.stringify({ ca: certificateOf('localhost') }));
    const db = connect(`mysql://u:p@localhost:${server.port}/d?ssl=${option}`);
    undo.push(() => db.destroy());
    void failure(db.raw('SELECT 1').then());
    await eventually(() => server.heard() !== '');
  });

  it.each(['ssl=true', 'sslmode=require', 'sslmode=prefer', 'sslmode=verify-ca', 'sslmode=verify-full'])(
    'PostgreSQL, with %s',
    async (option) => {
      const server = await serve('postgres');
      const error = await query(`postgres://u:p@localhost:${server.port}/d?${option}`);
      expect(inspect(error)).toContain('self-signed certificate');
      expect(server.heard()).toBe('');
    },
  );

  it.each([
    'mysql://u:hunter2@h/d?ssl={"rejectUnauthorized":false}',
    'mysql://u:hunter2@h/d?ssl={"verifyIdentity":false}',
    'mysql://u:hunter2@h/d?ssl=Amazon%20RDS',
    'mysql://u:hunter2@h/d?ssl=1',
    'mysql://u:hunter2@h/d?ssl=false&ssl={"rejectUnauthorized":false}',
    // Another's words for it, over which the driver would pass.
    'mysql://u:hunter2@h/d?sslmode=verify-full',
    'mysql://u:hunter2@h/d?ssl-mode=VERIFY_IDENTITY',
    'mysql://u:hunter2@h/d?tls=true',
    'mysql://u:hunter2@h/d?SSL=true',
    'mysql://u:hunter2@h/d?useSSL=true',
    'mysql://u:hunter2@h/d?ssl=true&sslca=/ca.pem',
    'postgres://u:hunter2@h/d?ssl-mode=verify-full',
    'postgres://u:hunter2@h/d?SSLMODE=verify-full',
    'postgres://u:hunter2@h/d?tls=true',
    'postgres://u:hunter2@h/d?sslmode=no-verify',
    'postgres://u:hunter2@h/d?sslmode=require&uselibpqcompat=true',
    'postgres://u:hunter2@h/d?ssl=no-verify',
    'postgresql://u:hunter2@h/d?ssl=tru',
  ])('%s is refused', (url) => {
    expect(() => connect(url)).toThrow(ConfigError);
    expect(() => connect(url)).not.toThrow(/hunter2/);
  });
});
