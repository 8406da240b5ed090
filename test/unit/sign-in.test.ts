/** Signing in to a master over the Data API. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { Secret } from '../../src/secret.ts';
import { startHostileServer } from '../support/hostile-server.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

it.each([
  ['that is reached without TLS', 'TWISTED_SESSION'],
  ['that speaks TLS itself', 'TWISTED_SECURE_SESSION'],
  ['below a path', 'TWISTED_SECURE_SESSION_bb'],
])('a sign-in to a master %s is answered with %s', async (_what, name) => {
  const headers = { location: '/', 'set-cookie': `${name}=token; HttpOnly; Path=/` };
  const server = await startHostileServer('answers of a Data API, a web status or Self-serve', () => ({
    ...{ kind: 'says', status: 302, body: '', headers },
  }));
  undo.push(() => server.stop());
  const session = createSession(server.url, 'u', new Secret('p'));
  await session.renew();
  expect(await session.headers()).toEqual({ cookie: `${name}=token` });
});

/** A master that forgets its session before the first log, and refuses whoever is not signed in. */
async function forgetful({ takesSignIns = true } = {}) {
  let signIns = 0;
  const server = createServer((request, response) => {
    if (request.url === '/auth/login') {
      signIns += 1;
      response.setHeader('set-cookie', `TWISTED_SESSION=${signIns}`);
      response.writeHead(302).end();
      return;
    }
    const isSignedIn = takesSignIns && request.headers.cookie === `TWISTED_SESSION=${signIns}`;
    response.writeHead(isSignedIn && signIns > 1 ? 200 : 403).end('the log');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.push(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const session = createSession(url, 'u', new Secret('p'));
  await session.renew();
  const client = createRestClient({ url, session, retries: 0 });
  undo.push(() => client.close());
  return { log: () => client.stream('logs/1/raw'), signIns: () => signIns };
}

it('a log is read after another sign-in where the session is over', async () => {
  const master = await forgetful();
  const chunks: string[] = [];
  for await (const chunk of master.log()) {
    chunks.push(chunk.toString());
  }
  expect(chunks.join('')).toBe('the log');
  expect(master.signIns()).toBe(2);
});

it('a log is refused where another sign-in does not help', async () => {
  const master = await forgetful({ takesSignIns: false });
  await expect(master.log().next()).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
  expect(master.signIns()).toBe(2);
});

const SIGN_INS: Readonly<Record<string, (url: string) => Promise<void>>> = {
  'the Data API': (url) => createSession(url, 'u', new Secret('p')).renew(),
  async 'a web status'(url) {
    const master = createWebStatus({ url, username: 'u', password: new Secret('p') }, { retries: 0 });
    await master.signIn().finally(() => master.close());
  },
};

describe.each(Object.entries(SIGN_INS))('a sign-in to %s', (what, signIn) => {
  const answered = async (status: number, headers: Record<string, string> = {}) => {
    const server = await startHostileServer('answers of a Data API, a web status or Self-serve', () => ({
      ...{ kind: 'says', status, body: '<html>back soon</html>', headers },
    }));
    undo.push(() => server.stop());
    return signIn(server.url);
  };

  it.each([200, 302, 404, 429, 503])(
    'is tried again after a %i without a session, which no master says',
    async (status) => {
      const error = { code: 'legacy-ci-unavailable', isTransient: true };
      await expect(answered(status, status === 302 ? { location: '/maintenance' } : {})).rejects.toMatchObject(error);
    },
  );

  it('is over where the master says that user or password are wrong', async () => {
    const work = what === 'the Data API' ? answered(401) : answered(302, { location: './authfail' });
    await expect(work).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
  });
});
