/** The whole daemon, with secrets that cannot be mistaken, through everything that makes it talk: none of them shows. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EXIT } from '../../src/lifecycle.ts';
import { eventually } from '../support/eventually.ts';
import { mistakesIn } from '../support/secrets/mistakes.ts';
import { type SetUp, type Stage, startStage } from '../support/secrets/stage.ts';
import { changeSecret, wrongSecrets } from '../support/secrets/wrong.ts';
import { rabbitmq } from '../support/services/index.ts';

const REFUSED = { kind: 'status', status: 403 } as const;
const FAILED = { kind: 'status', status: 500 } as const;

/** Not a person's, who makes a task. */
const BRIDGES_CALLS = /^(?!.*\/task\/[\w-]{22}$)/;

const SET_UPS: readonly SetUp[] = [
  { legacy: 'data-api', mappings: 'postgres', secretsIn: 'file', credentials: 'permanent' },
  { legacy: 'stock', mappings: 'mariadb', secretsIn: 'environment', credentials: 'temporary' },
  { legacy: 'mozilla', mappings: 'sqlite', secretsIn: 'file', credentials: 'permanent' },
];

describe.each(SET_UPS)('secrets in the $secretsIn, with $legacy, $mappings, $credentials credentials', (setUp) => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await startStage(setUp);
    expect(await stage.spawn(['migrate']).ended).toBe(EXIT.ok);
  });
  afterAll(() => stage?.stop());

  it('show nowhere, whatever breaks', async () => {
    const { legacy, faults, mappings } = stage;
    // The first sign-in comes with the start, or with the first task.
    legacy.faults.http.push({ path: /login/, takesEffect: false, times: 1, outcome: FAILED });
    legacy.faults.http.push({ path: /login/, takesEffect: true, times: 2, outcome: { kind: 'reset' } });
    const bridge = stage.spawn(['run']);
    await bridge.says(/"msg":"started"/);
    await stage.becomes(await stage.create(), 'completed');
    await stage.look(bridge);

    const slow = await stage.create({ builder: 'slow' });
    await stage.becomes(slow, 'running');
    legacy.faults.http.push({ takesEffect: false, times: 2, outcome: REFUSED });
    legacy.faults.http.push({ path: /login|self-serve/, takesEffect: false, times: 1, outcome: FAILED });
    await stage.person.cancelTask(slow);
    await eventually(async () => !(await legacy.isBusy()), { timeoutMs: 60_000, what: 'the build to be stopped' });

    const second = await stage.create();
    await stage.create({ builder: 'nope' });
    await bridge.says(/pass failed/, () => {
      const times = 6;
      faults.http.push({ path: BRIDGES_CALLS, takesEffect: false, times, outcome: FAILED });
      faults.http.push({ path: BRIDGES_CALLS, takesEffect: false, times, outcome: { kind: 'status', status: 401 } });
      faults.http.push({ path: BRIDGES_CALLS, takesEffect: true, times, outcome: { kind: 'reset' } });
      legacy.faults.http.push({ takesEffect: false, times, outcome: REFUSED });
      legacy.faults.http.push({ takesEffect: false, times, outcome: FAILED });
      legacy.faults.http.push({ takesEffect: false, times, outcome: { kind: 'reset' } });
      return stage.create();
    });
    faults.http.length = 0;
    legacy.faults.http.length = 0;

    for (const [gate, words] of [
      [mappings.gate, /"StoreError"/],
      [legacy.database?.gate, /the scheduler database failed/],
    ] as const) {
      if (gate !== undefined) {
        await stage.create();
        await bridge.says(words, () => gate.cut());
        await stage.look(bridge);
        gate.release();
      }
    }
    await bridge.says(/connection to Pulse lost/, () =>
      rabbitmq().ctl('close_all_user_connections', stage.pulseUser, 'x'),
    );
    await stage.look(bridge);
    await stage.becomes(second, 'completed');
    await legacy.restart();
    await stage.becomes(await stage.create(), 'completed');
    expect(await bridge.kill()).toBe(EXIT.ok);
    expect(await stage.leaks()).toEqual([]);
  });

  it('show nowhere where one of them is wrong', async () => {
    for (const { config, says } of wrongSecrets(stage)) {
      await stage.create();
      const bridge = stage.spawn(['run'], config);
      await bridge.says(says);
      await stage.look(bridge);
      await bridge.kill();
    }
    expect(await stage.leaks()).toEqual([]);
  });

  it('show in no complaint about the configuration', async () => {
    for (const { what, config, keys } of mistakesIn(stage.config)) {
      const bridge = stage.spawn(['run'], config);
      const code = await bridge.ended;
      const missing = keys.filter((key) => !bridge.stderr().includes(key));
      expect({ what, code, missing, said: bridge.stderr() }).toMatchObject({ code: EXIT.config, missing: [] });
    }
    expect(await stage.leaks()).toEqual([]);
  });

  it('show nowhere in bbb tasks', async () => {
    for (const flags of [[], ['--json'], ['--failing']]) {
      expect(await stage.spawn(['tasks', ...flags]).ended).toBe(EXIT.ok);
    }
    if (stage.mappings.gate !== undefined) {
      const tasks = stage.spawn(['tasks'], changeSecret(stage.config, ['database', 'url']));
      expect([await tasks.ended, tasks.stderr()]).toEqual([EXIT.tempFail, expect.stringContaining('the database')]);
    }
    expect(await stage.leaks()).toEqual([]);
  });

  it('show nowhere in bbb migrate', async () => {
    if (stage.mappings.gate !== undefined) {
      const config = changeSecret(stage.config, ['database', 'url']);
      const migrate = stage.spawn(['migrate'], config);
      expect([await migrate.ended, migrate.stderr()]).toEqual([EXIT.tempFail, expect.stringContaining('at migrate')]);
    }
    const database = stage.legacy.database;
    if (database !== undefined) {
      const wrong = new URL(database.url);
      wrong.password += 'x';
      const away = new URL(database.url);
      away.port = '1';
      const unescaped = database.url.replace(/:[^:]*@/, () => `:${decodeURIComponent(wrong.password)}@`);
      for (const [url, code, words] of [
        [database.url, EXIT.tempFail, 'no table tasks of the first bridge'],
        [wrong.href, EXIT.tempFail, 'could not be read'],
        [away.href, EXIT.tempFail, 'could not be read'],
        [wrong.href.replace('mysql', 'postgres'), EXIT.tempFail, 'could not be read'],
        [wrong.href.replace('mysql', 'mysql+pymysql'), EXIT.config, 'ADOPT_DATABASE_URL: expected'],
        [unescaped, EXIT.config, 'ADOPT_DATABASE_URL: this is no mysql URL'],
      ] as const) {
        const adopt = stage.spawn(['migrate', '--adopt'], stage.config, { ADOPT_DATABASE_URL: url });
        expect([await adopt.ended, adopt.stderr()]).toEqual([code, expect.stringContaining(words)]);
      }
    }
    expect(await stage.leaks()).toEqual([]);
  });
});
