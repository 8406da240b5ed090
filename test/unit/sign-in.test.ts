/** Signing in to a master over the Data API. */
import { afterEach, expect, it } from '@jest/globals';
import { createSession } from '../../src/buildbot/data-api/session.ts';
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
