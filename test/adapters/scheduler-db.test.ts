/** The scheduler database itself: submissions at once and cut off, rights, outages, and deadlocks. */
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { createSchedulerDb } from '../../src/buildbot/scheduler-db/database.ts';
import type { SchedulerDbOptions } from '../../src/buildbot/scheduler-db/index.ts';
import { connect } from '../../src/db/connection.ts';
import { ConfigError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import type { BuildSpec, LegacyCi } from '../../src/ports.ts';
import { type Bench, BRANCH, startBench } from '../support/classic-bench.ts';
import { newTaskId } from '../support/queue-emulator.ts';
import { mariadb } from '../support/services/index.ts';
import { startTcpGate } from '../support/tcp-gate.ts';

jest.setTimeout(60_000);

let bench: Bench;
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) {
    await end();
  }
  await bench?.stop();
});

function aSpec(more: Partial<BuildSpec> = {}): BuildSpec {
  const taskId = more.taskId ?? newTaskId();
  return {
    ...{ taskId, runId: 0, externalId: `${taskId}/0/1`, scheduled: Date.now(), priority: 'low', builder: 'build' },
    ...{ branch: BRANCH, revision: 'abc', repository: null, project: null, properties: { product: 'widget' } },
    ...more,
  };
}

/** An adapter on the database by another way. */
function adapterAt(url: string): LegacyCi {
  return bench.another({ ci: { db: connect(url) } }).ci;
}

/** Another user of the database, with these rights; answers the URL. */
async function userWith(...grants: string[]): Promise<string> {
  const url = new URL(bench.databaseUrl);
  const name = `u${Math.random().toString(36).slice(2, 10)}`;
  await bench.db.raw(`CREATE USER '${name}'@'%' IDENTIFIED BY 'secret'`);
  await bench.db.raw(`CREATE USER '${name}'@'localhost' IDENTIFIED BY 'secret'`);
  ends.push(() => bench.db.raw(`DROP USER '${name}'@'%', '${name}'@'localhost'`));
  for (const host of ['%', 'localhost']) {
    for (const grant of grants) {
      await bench.db.raw(`GRANT ${grant} TO '${name}'@'${host}'`);
    }
  }
  url.username = name;
  url.password = 'secret';
  return url.href;
}
const databaseName = () => new URL(bench.databaseUrl).pathname.slice(1);

describe.each(['mozilla', 'stock'] as const)('submitting to the database of a %s site', (site) => {
  it('the same at once, from several bridges, makes one request', async () => {
    bench = await startBench({ site });
    const adapters = [bench.one.ci, bench.another().ci, bench.another().ci];
    const spec = aSpec();
    const ids = await Promise.all([...adapters, ...adapters].map((ci) => ci.submit(spec)));
    expect(new Set(ids).size).toBe(1);
    expect(await bench.requests(spec.taskId)).toMatchObject([{ id: ids[0] }]);
    const [set] = await bench.db('buildsets').select('id', 'submitted_at');
    expect(set).toMatchObject({ submitted_at: Math.floor(spec.scheduled / 1000) });
    expect(await bench.db('buildset_properties').where({ buildsetid: set.id })).toHaveLength(3);
  });

  it('different things at once makes a request of each', async () => {
    bench = await startBench({ site });
    const two = bench.another().ci;
    const specs = Array.from({ length: 30 }, () => aSpec());
    const ids = await Promise.all(specs.map((spec, at) => (at % 2 ? two : bench.one.ci).submit(spec)));
    expect(new Set(ids).size).toBe(30);
  });

  it('again under another external id makes another request of the same task', async () => {
    bench = await startBench({ site });
    const spec = aSpec();
    const first = await bench.one.ci.submit(spec);
    const second = await bench.one.ci.submit({ ...spec, externalId: `${spec.taskId}/0/2` });
    expect(second).not.toBe(first);
    const found = await bench.one.ci.findByExternalId({ ...spec, deadline: Date.now() + 3_600_000 });
    expect(found).toMatchObject({ kind: 'present', value: { buildRequestId: first, state: 'pending' } });
  });

  it('again for a later run, hours after it was first asked for, makes no other request', async () => {
    bench = await startBench({ site });
    const spec = aSpec({ scheduled: Date.now() - 30 * 3_600_000 });
    const id = await bench.one.ci.submit(spec);
    expect(await bench.one.ci.submit({ ...spec, runId: 1, scheduled: Date.now() })).toBe(id);
  });

  it.each([
    { name: 'between commit and answer', when: 'answer', what: /COMMIT/ },
    { name: 'before the request is written', when: 'request', what: /insert into `buildrequests`/i },
  ] as const)('cut off $name: whoever submits it again gets the one request', async ({ when, what }) => {
    bench = await startBench({ site });
    const target = new URL(bench.databaseUrl);
    const gate = await startTcpGate(target.hostname, Number(target.port));
    ends.push(() => gate.stop());
    target.port = String(gate.port);
    const cutOff = adapterAt(target.href);
    const spec = aSpec();
    await cutOff.readMany([1]);
    const { reached } = gate.hold(what, when);
    const submission = cutOff.submit(spec);
    const failure = expect(submission).rejects.toMatchObject({ code: 'legacy-ci-unavailable', isTransient: true });
    await reached;
    gate.cut();
    await failure;
    const made = await bench.requests(spec.taskId);
    expect(made).toHaveLength(when === 'answer' ? 1 : 0);
    const id = await bench.one.ci.submit(spec);
    expect(await bench.requests(spec.taskId)).toMatchObject([{ id }]);
    gate.release();
    expect(await cutOff.submit(spec)).toBe(id);
  });
});

describe('a database', () => {
  it('of a 0.8.6, which knows no codebases, takes submissions', async () => {
    bench = await startBench({ site: 'stock' });
    await bench.db.raw('ALTER TABLE sourcestamps DROP COLUMN codebase');
    await bench.one.ci.check();
    const spec = aSpec();
    const id = await bench.one.ci.submit(spec);
    expect(await bench.requests(spec.taskId)).toMatchObject([{ id }]);
  });

  it('that does not let the bridge write is a mistake in the configuration, which the start tells', async () => {
    bench = await startBench({ site: 'stock' });
    const all = `ON ${databaseName()}.*`;
    await expect(adapterAt(await userWith(`SELECT ${all}`)).check()).rejects.toThrow(
      /GRANT SELECT, INSERT ON .*sourcestamps/,
    );
    await expect(adapterAt(await userWith(`SELECT ${all}`)).check()).rejects.toThrow(ConfigError);
    await expect(adapterAt(await userWith(`SELECT ON ${databaseName()}.objects`)).check()).rejects.toThrow(
      /without the tables sourcestamps/,
    );
    await expect(adapterAt(await userWith(`SELECT, INSERT ${all}`)).check()).resolves.toBeUndefined();
  });

  it.each(['mozilla', 'stock'] as const)(
    'that may only be read is enough for an instance that observes, which says what is missing (%s)',
    async (site) => {
      bench = await startBench({ site });
      const id = await bench.one.ci.submit(aSpec());
      const said: string[] = [];
      const log = createLog({ level: 'warn', destination: { write: (line: string) => said.push(line) } });
      const ci = bench.another({
        ci: {
          ...{ webStatus: undefined, selfServeUrl: undefined, isObserving: true, log },
          db: connect(await userWith(`SELECT ON ${databaseName()}.*`)),
        },
      }).ci;
      await ci.check();
      expect(said.join('')).toMatch(/GRANT SELECT, INSERT ON <database>\.sourcestamps/);
      expect((await ci.readMany([id])).get(id)).toMatchObject({ kind: 'present', value: { state: 'pending' } });
    },
  );

  it('that is read-only is enough for an instance that observes', async () => {
    bench = await startBench({ site: 'stock' });
    const db = connect(await userWith(`SELECT, INSERT ON ${databaseName()}.*`));
    const { ci } = bench.another({ ci: { db, isObserving: true } });
    await bench.db.raw('SET GLOBAL read_only = 1');
    try {
      await ci.check();
    } finally {
      await bench.db.raw('SET GLOBAL read_only = 0');
    }
  });

  it.each(['mozilla', 'stock'] as const)(
    'of which some are missing for cancelling in the database itself is refused where nothing else can (%s)',
    async (site) => {
      bench = await startBench({ site });
      const table = (name: string) => `${databaseName()}.${name}`;
      const needed = [
        'UPDATE ON buildrequests',
        'UPDATE ON buildsets',
        ...(site === 'stock' ? ['INSERT ON buildrequest_claims', 'INSERT ON objects'] : []),
      ];
      const written = ['sourcestamps', 'buildsets', 'buildset_properties', 'buildrequests', 'sourcestampsets'];
      const given = [
        `SELECT ON ${table('*')}`,
        ...written
          .filter((name) => site === 'stock' || name !== 'sourcestampsets')
          .map((name) => `INSERT ON ${table(name)}`),
      ];
      const grants = (rights: readonly string[]) => rights.map((right) => right.replace(/\w+$/, table));
      const withRights = async (rights: readonly string[], ci: Partial<SchedulerDbOptions> = {}) =>
        bench.another({
          ci: {
            ...{ webStatus: undefined, selfServeUrl: undefined, ...ci },
            db: connect(await userWith(...given, ...grants(rights))),
          },
        }).ci;
      for (const missing of needed) {
        const others = needed.filter((right) => right !== missing);
        const [right, name] = missing.split(' ON ');
        await expect((await withRights(others)).check()).rejects.toThrow(
          new RegExp(`^the user .* GRANT SELECT, ${right} ON <database>\\.${name} TO it`),
        );
      }
      await (await withRights([], { webStatus: { url: 'http://127.0.0.1:1' } })).check();
      const ci = await withRights(needed);
      await ci.check();
      const id = await ci.submit(aSpec());
      const view = (await ci.readMany([id])).get(id);
      expect(view?.kind === 'present' && (await ci.cancel(view.value, 'why'))).toEqual({ kind: 'asked' });
      expect((await ci.readMany([id])).get(id)).toMatchObject({ value: { state: 'complete', results: 'CANCELLED' } });
    },
  );

  it.each(['mozilla', 'stock'] as const)('needs no more rights than are documented (%s)', async (site) => {
    bench = await startBench({ site });
    const read = ['builds', ...(site === 'stock' ? ['buildrequest_claims', 'objects'] : [])];
    const written = ['sourcestamps', 'buildsets', 'buildset_properties', 'buildrequests'];
    const url = await userWith(
      ...read.map((table) => `SELECT ON ${databaseName()}.${table}`),
      ...[...written, ...(site === 'stock' ? ['sourcestampsets'] : [])].map(
        (table) => `SELECT, INSERT ON ${databaseName()}.${table}`,
      ),
    );
    const ci = adapterAt(url);
    await ci.check();
    const id = await ci.submit(aSpec());
    expect((await ci.readMany([id])).get(id)).toMatchObject({ kind: 'present' });
  });

  it('that forbids a submission later is no reason to refuse the task', async () => {
    bench = await startBench({ site: 'stock' });
    const ci = adapterAt(await userWith(`SELECT ON ${databaseName()}.*`));
    await expect(ci.submit(aSpec())).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
  });

  it('that is read-only for a while is written again afterwards', async () => {
    bench = await startBench({ site: 'stock' });
    const ci = adapterAt(await userWith(`SELECT, INSERT ON ${databaseName()}.*`));
    const spec = aSpec();
    await bench.db.raw('SET GLOBAL read_only = 1');
    try {
      await expect(ci.submit(spec)).rejects.toMatchObject({
        ...{ code: 'legacy-ci-unavailable', isTransient: true, message: expect.stringContaining('read-only') },
      });
      await expect(ci.check()).rejects.toMatchObject({ code: 'legacy-ci-unavailable' });
      expect((await ci.readMany([1])).get(1)).toEqual({ kind: 'absent' });
    } finally {
      await bench.db.raw('SET GLOBAL read_only = 0');
    }
    expect(await ci.submit(spec)).toBeGreaterThan(0);
  });

  it('that is slow is given up in bounded time', async () => {
    bench = await startBench();
    const database = createSchedulerDb(bench.db, { answerMs: 200 });
    const begun = Date.now();
    await expect(database.run('sleeping', async (db) => db.raw('SELECT SLEEP(2)'))).rejects.toMatchObject({
      ...{ code: 'legacy-ci-unavailable', isTransient: true },
      message: 'the scheduler database did not answer for 0.2 s, sleeping',
    });
    expect(Date.now() - begun).toBeLessThan(1500);
  });

  it('that reports a deadlock is asked again, and nobody hears of it', async () => {
    bench = await startBench({ site: 'stock' });
    await bench
      .db('objects')
      .insert(
        ['a', 'b', ...Array.from({ length: 50 }, (_, at) => `x${at}`)].map((name) => ({ name, class_name: 'c' })),
      );
    const other = await bench.db.transaction();
    // It has more to undo, so that the engine gives up the other one.
    await other('objects').whereNot('name', 'b').update({ class_name: 'd' });
    let tries = 0;
    let meeting: Promise<unknown> | undefined;
    const database = createSchedulerDb(bench.db);
    await database.run('updating', (db) =>
      db.transaction(async (trx) => {
        tries += 1;
        await trx('objects').where({ name: 'b' }).update({ class_name: 'e' });
        meeting ??= other('objects')
          .where({ name: 'b' })
          .update({ class_name: 'd' })
          .then(() => other.commit());
        await trx('objects').where({ name: 'a' }).update({ class_name: 'e' });
      }),
    );
    await meeting;
    expect(tries).toBe(2);
    expect(await bench.db('objects').whereIn('name', ['a', 'b']).pluck('class_name')).toEqual(['e', 'e']);
  });

  it('that is down is nothing to conclude from; when it is back, everything goes on', async () => {
    bench = await startBench({ site: 'stock' });
    const { taskId, brid } = await bench.building();
    const waiting = await bench.createTask({ builder: 'other' });
    await mariadb().stop();
    try {
      expect((await bench.one.ci.readMany([brid])).get(brid)).toMatchObject({
        ...{ kind: 'unreadable', error: { code: 'legacy-ci-unavailable', isTransient: true } },
      });
      expect(await bench.look(waiting)).toMatchObject({ kind: 'failed' });
      await bench.forward(11 * 60_000);
      await bench.one.sweep();
      // Its claim is kept alive by what is known of it.
      expect(bench.one.asked('queue.reclaim')).toEqual([taskId]);
    } finally {
      await mariadb().start();
    }
    await bench.buildbot.finish(brid);
    await bench.forward(60_000);
    await bench.look(taskId);
    expect(bench.runs(taskId)).toEqual(['completed']);
    await bench.look(waiting);
    expect(await bench.requests(waiting)).toHaveLength(1);
  });
});
