/** `bbb tasks` as an operator runs it. */
import { afterAll, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import slugid from 'slugid';
import { EXIT } from '../../src/lifecycle.ts';
import { type BbbOptions, spawnBbb } from '../support/bbb.ts';
import { mariadb } from '../support/services/index.ts';
import { addReleased, ENGINES, NOW, type Opened, openStore } from './mapping-store-support.ts';

jest.setTimeout(60_000);

async function tasks(args: readonly string[], options: BbbOptions) {
  const bbb = spawnBbb(['tasks', ...args], { env: { DATABASE_URL: '', BBB_CONFIG: '' }, ...options });
  const code = await bbb.ended;
  return { code, lines: bbb.stdout().split('\n').slice(0, -1), errors: bbb.stderr() };
}

describe.each(ENGINES)('bbb tasks, on $name', (engine) => {
  let opened: Opened;
  let config: object;
  beforeAll(async () => {
    opened = await openStore(engine);
    config = { database: { url: opened.url } };
  });
  beforeEach(() => opened.clear());
  afterAll(() => opened?.drop());
  const dump = async (): Promise<unknown> =>
    Promise.all(['tasks', 'events', 'instances', 'knex_migrations'].map(async (table) => opened.db(table)));

  it('lists what is open, what fails first, also what cannot be read, and changes nothing', async () => {
    const fine = await addReleased(opened.store, { builder: 'b\u001b[2J' });
    const failing = await addReleased(opened.store, {}, { attempts: 2, lastError: 'queue\r\nis\u001b]0;x\u0007 away' });
    const broken = await addReleased(opened.store, {}, { attempts: 1 });
    await opened.db('tasks').where({ id: broken.id }).update({ state: 'nonsense' });
    await addReleased(opened.store, {}, { state: 'closed', resolved: NOW, attempts: 9 });
    const before = await dump();

    const all = await tasks([], { config });
    expect(all).toMatchObject({ code: EXIT.ok, errors: '' });
    expect(all.lines).toEqual([
      expect.stringMatching(/^task\/run +state +builder/),
      expect.stringMatching(new RegExp(`^${failing.taskId}/0 .* 2 .* queue\\\\u000d\\\\u000ais\\\\u001b`)),
      expect.stringMatching(new RegExp(`^${broken.taskId} +unreadable .* row ${broken.id} `)),
      expect.stringMatching(new RegExp(`^${fine.taskId}/0 +intended +b\\\\u001b\\[2J `)),
    ]);
    expect((await tasks(['--failing'], { config })).lines).toEqual([
      expect.anything(),
      expect.stringContaining(failing.taskId),
      expect.stringContaining(broken.taskId),
    ]);
    const json = await tasks(['--json', '--state', 'intended', '--limit', '1'], { config });
    expect(json.lines.map((line): unknown => JSON.parse(line))).toEqual([{ kind: 'mapping', ...failing }]);
    expect([json.code, json.errors]).toEqual([EXIT.ok, expect.stringContaining('more than these 1 mappings')]);
    expect(await dump()).toEqual(before);
  });

  it('lists what could not be admitted for a day, once, and not what has been since', async () => {
    const now = await opened.store.now();
    const [stuck, admitted, old] = [slugid.nice(), (await addReleased(opened.store)).taskId, slugid.nice()];
    const event = { runId: 0, instance: 'i', what: 'notAdmitted' };
    await opened.store.addEvents([
      { ...event, taskId: old, at: now - 25 * 3_600_000, detail: 'the day before' },
      { ...event, taskId: old, at: now - 24.5 * 3_600_000, detail: 'and once more' },
      { ...event, taskId: stuck, at: now - 2000, detail: 'first' },
      { ...event, taskId: stuck, at: now - 1000, detail: 'no\u001b[2J rights' },
      { ...event, taskId: admitted, at: now - 1000, detail: 'before its mapping' },
      { ...event, taskId: slugid.nice(), at: now, what: 'claimRun', detail: 'something else' },
      { ...event, taskId: old, at: now - 24.1 * 3_600_000, detail: 'written late' },
    ]);
    await opened.db('tasks').update({ updated: now });
    const failing = await tasks(['--failing'], { config });
    expect(failing).toMatchObject({ code: EXIT.ok, errors: '' });
    expect(failing.lines).toEqual([
      expect.stringMatching(/^task\/run +state/),
      expect.stringMatching(new RegExp(`^${stuck}/0 +not admitted .* at 20[^ ]*Z: no\\\\u001b\\[2J rights$`)),
    ]);
    const json = await tasks(['--failing', '--json'], { config });
    expect(json.lines.map((line): unknown => JSON.parse(line))).toMatchObject([
      { kind: 'event', taskId: stuck, runId: 0 },
    ]);
    expect((await tasks(['--state', 'held'], { config })).lines).toEqual([]);
  });

  it('tells the whole of a long trace to whoever reads it through a pipe', async () => {
    const taskId = slugid.nice();
    const event = { taskId, runId: 0, instance: 'i', what: 'claimRun', detail: 'x'.repeat(400) };
    const ats = Array.from({ length: 3000 }, (_, at) => NOW + at);
    while (ats.length > 0) {
      await opened.store.addEvents(ats.splice(0, 100).map((at) => ({ ...event, at })));
    }
    const { code, lines } = await tasks([taskId, '--json', '--limit', '3000'], { config });
    expect([code, lines.length]).toEqual([EXIT.ok, 3000]);
  });

  it('tells all of one task', async () => {
    const lastError = 'x'.repeat(1500);
    const old = await addReleased(opened.store, {}, { state: 'closed', resolved: NOW, resolution: 'failed' });
    const { taskId, id } = await addReleased(opened.store, { taskId: old.taskId, runId: 1 }, { lastError });
    const event = { taskId, runId: 0, at: NOW, instance: 'i' };
    await opened.store.addEvents([
      { ...event, what: 'claimRun', detail: 'the build has started' },
      { ...event, what: 'resolveRun', detail: 'the build\u001b[1m has failed' },
    ]);
    const { code, lines, errors } = await tasks([taskId], { config });
    expect([code, errors]).toEqual([EXIT.ok, '']);
    expect(lines.filter((line) => line.startsWith('mapping'))).toEqual([
      `mapping ${id}: task ${taskId}, run 1, intended`,
      `mapping ${old.id}: task ${taskId}, run 0, closed`,
    ]);
    expect(lines).toContain(`  last error    ${lastError}`);
    expect(lines.slice(-2)).toEqual([
      expect.stringContaining('claimRun  the build has started (i)'),
      expect.stringContaining('resolveRun  the build\\u001b[1m has failed (i)'),
    ]);

    const last = await tasks([taskId, '--json', '--limit', '1'], { config });
    expect(last.lines.map((line): unknown => JSON.parse(line))).toEqual([
      expect.objectContaining({ kind: 'mapping', id }),
      expect.objectContaining({ kind: 'event', what: 'resolveRun' }),
    ]);
    expect(last.errors).toMatch(/more than these 1 mappings.*\n.*more than these 1 lines of its trace/);
  });

  it('says what is wrong', async () => {
    const id = slugid.nice();
    for (const [args, code, message] of [
      [[], EXIT.ok, 'no such mapping is open'],
      [[id], EXIT.noInput, `nothing of task ${id}`],
      [['task\u001b[31m'], EXIT.usage, 'no id that a task can have'],
      [[id, '--failing'], EXIT.usage, '--failing and --state are for the list'],
      [['--state', 'closed'], EXIT.usage, 'Allowed choices are refusing, held'],
      [['--limit', '0'], EXIT.usage, 'a number from 1 to'],
    ] as const) {
      const { errors, ...rest } = await tasks(args, { config });
      expect({ args, ...rest }).toEqual({ args, code, lines: [] });
      expect(errors).toContain(message);
      expect(errors).not.toContain('\u001b');
    }
  });
});

describe('bbb tasks', () => {
  it('says that the database is away, or empty, or not there, and where to find it', async () => {
    const empty = await mariadb().createDatabase();
    const away = new URL(empty.url);
    away.port = '1';
    for (const [url, code, message] of [
      [away.href, EXIT.tempFail, 'the database failed'],
      [empty.url, EXIT.tempFail, 'run `bbb migrate` once'],
      ['sqlite:/nowhere/bridge.db', EXIT.config, 'database.url: there is no file /nowhere/bridge.db'],
    ] as const) {
      const { errors, ...rest } = await tasks([], { env: { DATABASE_URL: url, BBB_CONFIG: '' } });
      expect(rest).toEqual({ code, lines: [] });
      expect(errors).toContain(message);
    }
    await empty.drop();
  });

  it('says in its help what it does', async () => {
    const { code, lines } = await tasks(['--help'], {});
    expect(code).toBe(EXIT.ok);
    expect(lines.join(' ')).toMatch(/tasks \[options\] \[taskId\].*--failing.*--state.*--limit.*--json.*Exit codes/);
  });
});
