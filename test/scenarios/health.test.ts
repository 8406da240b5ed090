/** What a daemon says of itself, in `/readyz` and `/metrics`, while what it needs is away or sends nonsense. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from '@jest/globals';
import got from 'got';
import slugid from 'slugid';
import { connect } from '../../src/db/connection.ts';
import { type Daemon, runDaemon, startDaemon } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { startMozillaSide } from '../support/legacy/classic.ts';
import { enterNamespace } from '../support/namespace.ts';
import { type DatabaseServer, mariadb, postgres, rabbitmq } from '../support/services/index.ts';
import { startSurroundings } from '../support/surroundings.ts';
import { startTcpGate } from '../support/tcp-gate.ts';

const PENDING = 'exchange/taskcluster-queue/v1/task-pending';
/** As many messages as a listener holds at most, and more than that. */
const PREFETCH = 50;
const FLOOD = 150;

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function startStage(server: DatabaseServer) {
  const { configFor, ...surroundings } = await startSurroundings(undo);
  const { rabbit, pulse } = surroundings;
  const database = await server.createDatabase();
  undo.push(() => database.drop());
  const target = new URL(database.url);
  const gate = await startTcpGate(target.hostname, Number(target.port));
  undo.push(() => gate.stop());
  target.port = String(gate.port);
  const publish = (payload: unknown) =>
    pulse.publish({ exchange: PENDING, routingKey: 'primary._._._._.buildbot.bridge._._._', payload });

  return {
    ...surroundings,
    ...{ gate, publish, config: configFor(target.href), vhost: new URL(rabbit.url).pathname.slice(1) },
    /** Messages of tasks that nobody knows. */
    flood() {
      for (let count = 0; count < FLOOD; count += 1) {
        publish({ status: { taskId: slugid.nice() }, runId: 0 });
      }
    },
  };
}

/** A daemon, and what its port says. */
async function run(config: object, prefix: readonly string[] = []) {
  const daemon: Daemon = await startDaemon(config, undefined, prefix);
  undo.push(() => daemon.kill());
  const line = daemon.lines.find(({ msg }) => msg === 'answering health checks');
  const get = (path: string) => got(`${line?.address}${path}`, { throwHttpErrors: false, retry: { limit: 0 } });
  return {
    daemon,
    async ready(): Promise<string> {
      const { statusCode, body } = await get('/readyz');
      return `${statusCode} ${body}`;
    },
    async metric(name: string): Promise<number> {
      const { body } = await get('/metrics');
      const sample = body.split('\n').find((one) => one.startsWith(`${name} `));
      return sample === undefined ? Number.NaN : Number(sample.split(' ').at(-1));
    },
    /** Sum of samples, each of which must be there. */
    async sum(names: readonly string[]): Promise<number> {
      const values = await Promise.all(names.map((name) => this.metric(name)));
      return values.reduce((sum, value) => sum + value, 0);
    },
    /** Lines that say so. */
    said: (words: string) => daemon.lines.filter(({ msg }) => msg === words),
  };
}

const READY = /^200 /;
const untilReady = (bridge: Awaited<ReturnType<typeof run>>, what: string) =>
  eventually(async () => READY.test(await bridge.ready()), { timeoutMs: 60_000, what });
const RECEIVED = 'bbb_messages_received_total{source="task-message"}';
/** However a pass fails: while the database is away it ends as `store-away`. */
const FAILED = ['failed', 'store-away'].map((result) => `bbb_passes_total{result="${result}"}`);

describe('the database', () => {
  it.each([
    ['MariaDB', 'cut', mariadb],
    ['MariaDB', 'swallow', mariadb],
    ['PostgreSQL', 'swallow', postgres],
  ] as const)(
    '%s away (%s): /readyz says so at once, and nothing spins or is taken in meanwhile',
    async (_name, how, server) => {
      const stage = await startStage(server());
      const bridge = await run(stage.config);
      await stage.isBuilt(await stage.createTask());
      await untilReady(bridge, 'the start');
      expect(await bridge.metric('bbb_database_up')).toBe(1);
      // Every connection of the pool is made, and so none is spared.
      stage.flood();
      const before = await eventually(async () => {
        const received = await bridge.metric(RECEIVED);
        return received >= FLOOD && (await bridge.metric('bbb_work_queue_tasks')) === 0 && received;
      });

      stage.gate[how]();
      const waiting = await stage.createTask();
      stage.flood();
      await eventually(async () => (await bridge.metric(RECEIVED)) - before >= PREFETCH, {
        what: 'the first messages',
      });
      const lines = bridge.daemon.lines.length;
      const failed = await bridge.sum(FAILED);
      const began = Date.now();
      // Repeated probes, several at once.
      for (let round = 0; round < 3; round += 1) {
        const asked = Date.now();
        for (const answer of await Promise.all([bridge.ready(), bridge.ready(), bridge.ready()])) {
          expect(answer).toMatch(/^503 .*"name":"database","isOk":false/);
        }
        expect(Date.now() - asked).toBeLessThan(5000);
      }
      expect(await bridge.metric('bbb_database_up')).toBe(0);
      await eventually(() => Date.now() - began >= 6000, { timeoutMs: 7000 });
      // Each task waits twice as long every time: after six seconds three tries, and the passes of a sweep.
      const failures = (await bridge.sum(FAILED)) - failed;
      expect(failures).toBeGreaterThan(0);
      expect(failures).toBeLessThan(PREFETCH * 4);
      expect(bridge.daemon.lines.length - lines).toBeLessThan(PREFETCH * 8);
      expect((await bridge.metric(RECEIVED)) - before).toBe(PREFETCH);

      stage.gate.release();
      await untilReady(bridge, 'the database again');
      await stage.isBuilt(waiting);
      await eventually(async () => (await bridge.metric(RECEIVED)) - before >= FLOOD, { timeoutMs: 60_000 });
    },
  );
});

describe('the disk of an SQLite database', () => {
  const CANNOT = 'the mapping database cannot be written';
  const ROUND_END = 'bbb_round_end_timestamp_seconds';

  it('full: said once, /readyz is 503, nothing spins; with room again it goes on, and nothing is half-written', async () => {
    const { configFor, createTask, isBuilt, queue } = await startSurroundings(undo);
    const folder = mkdtempSync(path.join(tmpdir(), 'bbb-disk-'));
    undo.push(() => rmSync(folder, { recursive: true }));
    const disk = await enterNamespace(folder, 'size=2m,mode=755');
    undo.push(() => disk.end());
    const [file, filler] = [path.join(folder, 'bridge.db'), path.join(folder, 'filler')];
    const config = configFor(`sqlite:${file}`);
    const bridge = await run(config, disk.prefix);
    await isBuilt(await createTask());
    await untilReady(bridge, 'the start');

    await disk.sh('! head -c 10m /dev/zero > "$1"', filler);
    const waiting = await createTask();
    const line = await eventually(() => bridge.said(CANNOT)[0], { what: 'the line that says so' });
    expect(line).toMatchObject({ level: 'error', database: `sqlite:${file}`, err: { code: 'store-full' } });
    expect(JSON.stringify(line)).toContain('make room');
    expect(await bridge.ready()).toMatch(/^503 .*"name":"database","isOk":false,.*disk is full/);
    expect(await bridge.metric('bbb_database_up')).toBe(0);
    // Another one that is started now waits.
    const other = runDaemon(config, undefined, disk.prefix);
    undo.push(() => other.kill());
    await eventually(() => other.lines.some(({ msg }) => msg === CANNOT), { timeoutMs: 60_000, what: 'the other one' });
    const [lines, failed, round] = [
      bridge.daemon.lines.length,
      await bridge.sum(FAILED),
      await bridge.metric(ROUND_END),
    ];
    await eventually(async () => (await bridge.metric(ROUND_END)) >= round + 6, { what: 'rounds of six seconds' });
    expect((await bridge.sum(FAILED)) - failed).toBeLessThan(20);
    expect(bridge.daemon.lines.length - lines).toBeLessThan(100);
    expect(await bridge.ready()).toMatch(/^503 /);
    expect(bridge.said(CANNOT)).toHaveLength(1);

    await disk.sh('rm "$1"', filler);
    await untilReady(bridge, 'room again');
    await Promise.all([other.started, isBuilt(waiting), isBuilt(await createTask())]);
    expect(bridge.said('the mapping database is written again')).toHaveLength(1);
    expect(await bridge.metric('bbb_database_up')).toBe(1);
    expect(queue.tasks.get(waiting)?.status.runs).toHaveLength(1);
    expect([await bridge.daemon.stop(), await other.stop()]).toEqual([0, 0]);
    const copy = mkdtempSync(path.join(tmpdir(), 'bbb-disk-'));
    undo.push(() => rmSync(copy, { recursive: true }));
    await disk.sh('cp "$1"* "$2"', file, copy);
    const db = connect(`sqlite:${path.join(copy, 'bridge.db')}`);
    undo.push(() => db.destroy());
    expect(await db.raw('PRAGMA integrity_check')).toEqual([{ integrity_check: 'ok' }]);
  });
});

describe('Pulse', () => {
  it('connected but not consuming: /readyz says so and why, until it consumes', async () => {
    const stage = await startStage(mariadb());
    const user = `bridge-${randomBytes(4).toString('hex')}`;
    await rabbitmq().ctl('add_user', user, 'p');
    undo.push(() => rabbitmq().ctl('delete_user', user));
    const allow = (what: string) => rabbitmq().ctl('set_permissions', '-p', stage.vhost, user, what, what, what);
    await allow('.*');
    const url = new URL(stage.rabbit.url);
    [url.username, url.password] = [user, 'p'];
    const bridge = await run({ ...stage.config, pulse: { url: url.href, namespace: 'bridge' } });
    await untilReady(bridge, 'the start');
    expect(await bridge.metric('bbb_pulse_consuming')).toBe(1);

    await allow('^$');
    await stage.pulse.deleteQueue('queue/bridge/tasks');
    const refused = await eventually(async () => /^503 .*may not use.*/.exec(await bridge.ready())?.[0]);
    expect(refused).toContain('connected, but not consuming: the Pulse user may not use queue/bridge/tasks');
    expect([await bridge.metric('bbb_pulse_connected'), await bridge.metric('bbb_pulse_consuming')]).toEqual([1, 0]);
    await allow('.*');
    await untilReady(bridge, 'the rights again');
    await stage.isBuilt(await stage.createTask());
  });
});

describe('what cannot be read', () => {
  /** That it was counted, and said in one short line. */
  async function isReported(bridge: Awaited<ReturnType<typeof run>>, source: string, words: string): Promise<void> {
    await eventually(async () => (await bridge.metric(`bbb_inputs_rejected_total{source="${source}"}`)) === 1);
    expect(bridge.said(words)).toHaveLength(1);
    expect(JSON.stringify(bridge.said(words)[0]).length).toBeLessThan(700);
  }
  const nonsense = `\u001b[2J${'x'.repeat(5000)}`;

  it('is counted and said once: a Pulse message, and a frame of a WebSocket', async () => {
    const stage = await startStage(mariadb());
    const bridge = await run(stage.config);
    await untilReady(bridge, 'the start');
    stage.publish({ status: { taskId: nonsense } });
    await isReported(bridge, 'task-message', 'malformed message dropped');
    await eventually(() => bridge.said('connected to the legacy CI; open mappings are looked at again').length > 0);
    stage.buildbot.say(nonsense);
    await isReported(bridge, 'websocket-frame', 'malformed frame dropped');
    await stage.isBuilt(await stage.createTask());
  });

  it('is counted and said once: an event of a classic Buildbot', async () => {
    const stage = await startStage(mariadb());
    const side = await startMozillaSide({ hasListener: true, pulseUrl: stage.rabbit.adminUrl });
    undo.push(() => side.stop());
    const bridge = await run({ ...stage.config, legacyCi: side.config });
    await untilReady(bridge, 'the start');
    const payload = { payload: { build: { number: nonsense } } };
    stage.pulse.publish({ exchange: 'exchange/build/', routingKey: 'build.b.1.started', payload });
    await isReported(bridge, 'build-event', 'malformed message dropped');
    const taskId = await stage.createTask();
    await stage.isBuilt(taskId);
  });
});
