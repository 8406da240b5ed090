/** A MySQL server that logs statements, as old ones do unless told otherwise: it takes no writes without gap locks. */
import { afterEach, expect, it, jest } from '@jest/globals';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { type Bench, BRANCH, startBench } from '../support/classic-bench.ts';
import { newTaskId } from '../support/queue-emulator.ts';
import { mariadb } from '../support/services/index.ts';

jest.setTimeout(60_000);

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) {
    await end();
  }
});

/** Of connections from now on. */
async function logStatements(): Promise<void> {
  const { url, drop } = await mariadb().createDatabase();
  const db = connect(url);
  ends.push(drop, () => db.destroy());
  await db.raw("SET GLOBAL binlog_format = 'STATEMENT'");
  ends.push(() => db.raw("SET GLOBAL binlog_format = 'MIXED'"));
}

it('keeps mappings', async () => {
  await logStatements();
  const { url, drop } = await mariadb().createDatabase();
  const db = connect(url);
  ends.push(drop, () => db.destroy());
  expect((await migrate(db)).length).toBeGreaterThan(0);
  const store = createMappingStore(db);
  const instance = { instance: 'a', version: '1', services: [], started: 1, heartbeat: 1 };
  await store.heartbeat(instance);
  await store.heartbeat({ ...instance, heartbeat: 2 });
});

it.each(['mozilla', 'stock'] as const)('takes the submissions of a %s site', async (site) => {
  await logStatements();
  const bench: Bench = await startBench({ site });
  ends.push(() => bench.stop());
  const taskId = newTaskId();
  const spec: BuildSpec = {
    ...{ taskId, runId: 0, externalId: `${taskId}/0/1`, scheduled: Date.now(), priority: 'low', builder: 'build' },
    ...{ branch: BRANCH, revision: 'abc', repository: null, project: null, properties: { product: 'widget' } },
  };
  const adapters = [bench.one.ci, bench.another().ci, bench.another().ci];
  const ids = await Promise.all([...adapters, ...adapters].map((ci) => ci.submit(spec)));
  expect(new Set(ids).size).toBe(1);
});
