/** What keeps a `bbb run` alive, and what ends it. */
import { expect, it } from '@jest/globals';
import { EXIT } from '../../src/lifecycle.ts';
import { spawnBbb } from '../support/bbb.ts';

/** Nothing of it is there. */
const AWAY = {
  taskcluster: { rootUrl: 'http://127.0.0.1:1', credentials: { clientId: 'c', accessToken: 't' } },
  pulse: { url: 'amqp://u:p@127.0.0.1:1/', namespace: 'u' },
  database: { url: 'mysql://u:p@127.0.0.1:1/x' },
  legacyCi: { kind: 'data-api', dataApi: { url: 'http://127.0.0.1:1', forceScheduler: 'f' } },
  http: { port: 0 },
};

it('without http goes on waiting for a database that is away', async () => {
  const bbb = spawnBbb(['run', '--services', 'reflector'], { config: AWAY });
  await Promise.race([bbb.says(/"retryInMs":2000/), bbb.ended]);
  expect(bbb.isAlive()).toBe(true);
  expect(await bbb.kill()).toBe(EXIT.ok);
});
