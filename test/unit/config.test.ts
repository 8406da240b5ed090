import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { stringify } from 'yaml';
import { ENVIRONMENT } from '../../src/config/source.ts';
import { allKeys, type Config, loadConfig, loadDatabaseUrl, parseConfig } from '../../src/config.ts';
import { ConfigError } from '../../src/errors.ts';
import { Secret } from '../../src/secret.ts';

const DOCUMENTATION = readFileSync(path.join(import.meta.dirname, '../../docs/configuration.md'), 'utf8');
const EXAMPLES = [...DOCUMENTATION.matchAll(/```yaml\n([^`]*)```/g)].map(([, yaml = '']) => yaml);

/** The least that is a configuration. */
function least() {
  return {
    taskcluster: {
      rootUrl: 'https://tc.example.com',
      credentials: { clientId: 'project/bridge', accessToken: 'tc-secret' },
    },
    pulse: { url: 'amqps://user:pulse-secret@pulse.example.com/', namespace: 'user' },
    legacyCi: { kind: 'data-api', dataApi: { url: 'http://buildbot:8010', forceScheduler: 'bridge' } },
  };
}

/** The least for a classic Buildbot. */
function classic() {
  const schedulerDb = { url: 'mysql://u:p@h/buildbot', webStatus: { url: 'http://m', username: 'u', password: 'p' } };
  return { ...least(), legacyCi: { kind: 'scheduler-db', schedulerDb } };
}

function dataApiOf({ legacyCi }: Config) {
  if (legacyCi.kind !== 'data-api') {
    throw new Error('not the Data API');
  }
  return legacyCi.dataApi;
}

function schedulerDbOf({ legacyCi }: Config) {
  if (legacyCi.kind !== 'scheduler-db') {
    throw new Error('not the scheduler database');
  }
  return legacyCi.schedulerDb;
}
const parse = (given: unknown, env: NodeJS.ProcessEnv = {}) => parseConfig(given, env, 'bridge.yml');

/** The lines of the error that `given` leads to, without the first. */
function problems(given: unknown, env: NodeJS.ProcessEnv = {}): string[] {
  try {
    parse(given, env);
  } catch (error) {
    if (error instanceof ConfigError) {
      const [first, ...lines] = error.message.split('\n');
      expect(first).toBe('bridge.yml is not a valid configuration:');
      return lines.map((line) => line.replace(/^ {2}- /, ''));
    }
    throw error;
  }
  return [];
}
const withKey = (section: string, keys: object) => ({ ...least(), [section]: keys });

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'bbb-config-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));
function fileOf(content: string): string {
  const file = path.join(folder, 'bridge.yml');
  writeFileSync(file, content);
  return file;
}

describe('a configuration', () => {
  it('has defaults for all that can have them', () => {
    const config = parse(least());
    expect(config).toMatchObject({
      taskcluster: { provisionerId: 'buildbot', workerType: 'bridge', workerGroup: 'buildbot-bridge' },
      legacyCi: { kind: 'data-api', absentGrace: 120_000, dataApi: { collapseGuard: true } },
      builders: { ignored: [], restricted: [] },
      results: { warnings: 'failed', failure: 'failed', exception: 'internal-error', skipped: 'internal-error' },
      reflector: { schedule: '*/60 * * * * *', reclaimThreshold: 600_000, recheck: 60_000 },
      artifacts: { maxLogSize: 1_000_000_000 },
      bridge: { mode: 'normal', shutdownTimeout: 30_000 },
      retention: 30 * 86_400_000,
      http: { host: '127.0.0.1', port: 8080 },
      log: { level: 'info' },
    });
    expect(config.database.url.reveal()).toBe('sqlite:./bridge.db');
  });

  it('does not show its secrets', () => {
    const config = parse(least(), {
      BUILDBOT_USERNAME: 'u',
      BUILDBOT_PASSWORD: 'bb-secret',
      DATABASE_URL: 'mysql://u:db-secret@h/d',
    });
    for (const shown of [inspect(config, { depth: 10 }), JSON.stringify(config), `${config.pulse.url}`]) {
      expect(shown).not.toMatch(/(tc|pulse|bb|db)-secret/);
      expect(shown).toContain('[secret]');
    }
    expect(config.taskcluster.credentials.accessToken.reveal()).toBe('tc-secret');
    expect(dataApiOf(config).password?.reveal()).toBe('bb-secret');
  });

  it('cannot be changed', () => {
    const config = parse(withKey('builders', { ignored: ['a'] }));
    const attempts: ((c: Config) => unknown)[] = [
      (c) => Reflect.set(c, 'retention', 1),
      (c) => Reflect.set(dataApiOf(c), 'url', 'x'),
      (c) => Reflect.set(c.builders.ignored, 0, 'x'),
    ];
    expect(attempts.map((attempt) => attempt(config))).toEqual([false, false, false]);
  });

  it.each([
    ['1000ms', 1000],
    ['1s', 1000],
    ['1.5m', 90_000],
    ['1 h', 3_600_000],
  ])('reads the duration %p as %p milliseconds', (shutdownTimeout, expected) => {
    expect(parse(withKey('bridge', { shutdownTimeout })).bridge.shutdownTimeout).toBe(expected);
  });

  it.each(['999ms', '61m', '0s', '10', '10 minutes', '-1m', '1e3s', ''])(
    'does not read the duration %p',
    (shutdownTimeout) => {
      expect(problems(withKey('bridge', { shutdownTimeout }))).toEqual([
        `bridge.shutdownTimeout: expected something like 30s, from 1s to 1h, not "${shutdownTimeout}"`,
      ]);
    },
  );

  it.each([
    ['1kB', 1000],
    ['100MB', 100_000_000],
    ['1.5GB', 1_500_000_000],
    ['2000B', 2000],
  ])('reads the size %p as %p bytes', (maxLogSize, expected) => {
    expect(parse(withKey('artifacts', { maxLogSize })).artifacts.maxLogSize).toBe(expected);
  });

  it.each([
    ['#', 'http://b:8010/#/'],
    ['#', 'http://b:8010#builders?x'],
    ['#', 'http://b:8010/#'],
    ['?', 'http://b:8010/?token=tc-secret#/'],
    ['?', 'http://b:8010?'],
  ])('has no URL of a server with a %s: what is asked would be part of that (%s)', (mark, url) => {
    const wrong = `paths are put behind it: give it without ${mark} and what follows`;
    const dataApi = { url, forceScheduler: 'bridge' };
    expect(problems({ ...least(), legacyCi: { kind: 'data-api', dataApi } })).toEqual([
      `legacyCi.dataApi.url: ${wrong}`,
    ]);
    expect(problems(least(), { TASKCLUSTER_ROOT_URL: url })).toEqual([
      `taskcluster.rootUrl (from the variable TASKCLUSTER_ROOT_URL): ${wrong}`,
    ]);
    const schedulerDb = { url: 'mysql://h/d', selfServeUrl: url, buildersUrl: url, webStatus: { url } };
    expect(problems({ ...least(), legacyCi: { kind: 'scheduler-db', schedulerDb } })).toEqual(
      ['selfServeUrl', 'webStatus.url'].map((key) => `legacyCi.schedulerDb.${key}: ${wrong}`),
    );
  });

  it.each([
    '*/60 * * * * *',
    '* * * * * *',
    '*/2 * * * * *',
    '0 * * * * *',
    '  30,50  0-59 * ? jan-dec  0-7 ',
    '15 0-29,30-59 0-23 1-31 1-12 mon-sun',
  ])('has its turns by the schedule %j', (schedule) => {
    expect(parse(withKey('reflector', { schedule })).reflector.schedule).toBe(schedule);
  });

  it.each([
    '* * * * *',
    '*/60 * * * *',
    '0 0 1 1 *',
    '@daily',
    '@hourly',
    '* * * * * * *',
    '61 * * * * *',
    '* * * 32 * *',
    '',
    // Ranges that would be written out, to the end of all memory, before anybody sees that there is no such second.
    '0-999999999 * * * * *',
    '* * * * * 0-9999999',
    `${'1,'.repeat(500_000)}2 * * * * *`,
  ])('has no schedule %j, which is not six fields', (schedule) => {
    expect(problems(withKey('reflector', { schedule }))).toEqual([
      'reflector.schedule: expected a cron expression of six fields, seconds first, such as "*/60 * * * * *"',
    ]);
  });

  it.each([
    ['0 */2 * * * *', '120 seconds'],
    ['0 0-58 * * * *', '120 seconds'],
    ['* * 8-17 * * *', '50401 seconds'],
    ['0 0 * * * *', '3600 seconds'],
    ['0 0 0 * * *', '86400 seconds'],
    ['* * * * * 1-5', 'a day'],
    ['* * * 1-30 * *', 'a day'],
    ['* * * L * *', 'a day'],
    ['* * * * 1-11 *', 'a day'],
  ])('has no schedule %j, with %s between two turns', (schedule, gap) => {
    const given = gap === 'a day' ? 'a day or more' : gap;
    expect(problems(withKey('reflector', { schedule }))).toEqual([
      `reflector.schedule: there can be ${given} between two turns, and claims and deadlines have to be looked at every 60 seconds: use "*/60 * * * * *"`,
    ]);
  });

  it('tells a number in quotes to be one', () => {
    expect(problems(withKey('http', { port: '8080' }))).toEqual([
      'http.port: expected number, received string: take its quotes away',
    ]);
    expect(problems(withKey('http', { port: 'eighty' }))).toEqual(['http.port: expected number, received string']);
  });

  it('lets no log be longer than a bucket takes it', () => {
    expect(problems(withKey('artifacts', { maxLogSize: '5.001GB' }))).toEqual([
      'artifacts.maxLogSize: expected something like 1GB, from 1kB to 5GB, not "5.001GB"',
    ]);
  });

  it('has patterns in RE2’s syntax, and takes no time over wicked ones', () => {
    const { builders } = parse(withKey('builders', { restricted: ['^release-.*$', '(a+)+$'] }));
    expect(builders.restricted[0]?.matcher('release-x').lookingAt()).toBe(true);
    expect(builders.restricted[1]?.matcher(`${'a'.repeat(5000)}b`).lookingAt()).toBe(false);
  });
});

describe('the environment', () => {
  it.each([
    ['NODE_TLS_REJECT_UNAUTHORIZED', '0'],
    ['PGSSLMODE', 'no-verify'],
  ])('may not switch the verification of certificates off: %s=%s', (variable, value) => {
    expect(() => parse(least(), { [variable]: value })).toThrow(new RegExp(`${variable}=${value} .*unset it`));
    expect(() => loadDatabaseUrl({ env: { [variable]: value } })).toThrow(ConfigError);
    expect(() => parse(least(), { [variable]: '' })).not.toThrow();
  });

  it('wins over the file, for every variable', () => {
    const env = {
      TASKCLUSTER_ROOT_URL: 'https://other.example.com',
      TASKCLUSTER_CLIENT_ID: 'c',
      TASKCLUSTER_ACCESS_TOKEN: 't',
      TASKCLUSTER_CERTIFICATE: '{"version":1}',
      PULSE_URL: 'amqp://h',
      DATABASE_URL: 'postgres://h/d',
      BUILDBOT_USERNAME: 'u',
      BUILDBOT_PASSWORD: 'p',
    };
    const classicEnv = {
      SCHEDULER_DB_URL: 'mysql://h/d',
      WEB_STATUS_USERNAME: 'w',
      WEB_STATUS_PASSWORD: 'q',
    };
    expect(Object.keys({ ...env, ...classicEnv }).sort()).toEqual(Object.keys(ENVIRONMENT).sort());
    const config = parse(least(), { ...env, ...classicEnv });
    const { taskcluster, pulse, database } = config;
    const dataApi = dataApiOf(config);
    expect({
      TASKCLUSTER_ROOT_URL: taskcluster.rootUrl,
      TASKCLUSTER_CLIENT_ID: taskcluster.credentials.clientId,
      TASKCLUSTER_ACCESS_TOKEN: taskcluster.credentials.accessToken.reveal(),
      TASKCLUSTER_CERTIFICATE: taskcluster.credentials.certificate?.reveal(),
      PULSE_URL: pulse.url.reveal(),
      DATABASE_URL: database.url.reveal(),
      BUILDBOT_USERNAME: dataApi.username,
      BUILDBOT_PASSWORD: dataApi.password?.reveal(),
    }).toEqual(env);
    const { url, webStatus } = schedulerDbOf(parse(classic(), { ...env, ...classicEnv }));
    expect(url.reveal()).toBe(classicEnv.SCHEDULER_DB_URL);
    expect(webStatus).toMatchObject({ username: 'w', password: new Secret('q') });
  });

  it('takes the slashes off the ends of URLs below which there are paths', () => {
    const modern = { kind: 'data-api', dataApi: { url: 'http://buildbot:8010/bb//', forceScheduler: 'bridge' } };
    expect(dataApiOf(parse({ ...least(), legacyCi: modern })).url).toBe('http://buildbot:8010/bb');
    const schedulerDb = {
      ...{
        url: 'mysql://u:p@h/buildbot',
        buildersUrl: 'http://builders/',
        selfServeUrl: 'http://buildapi/self-serve/',
      },
      webStatus: { 'bm1:/x': { url: 'http://m/' } },
    };
    expect(schedulerDbOf(parse({ ...least(), legacyCi: { kind: 'scheduler-db', schedulerDb } }))).toMatchObject({
      ...{ selfServeUrl: 'http://buildapi/self-serve', webStatus: { 'bm1:/x': { url: 'http://m' } } },
      buildersUrl: 'http://builders/',
    });
  });

  it('makes sections that the file lacks, and does not count where it is empty', () => {
    const { taskcluster: _taskcluster, ...rest } = least();
    const env = {
      TASKCLUSTER_ROOT_URL: 'http://tc',
      TASKCLUSTER_CLIENT_ID: 'c',
      TASKCLUSTER_ACCESS_TOKEN: 't',
      PULSE_URL: '',
    };
    expect(parse(rest, env)).toMatchObject({ taskcluster: { rootUrl: 'http://tc' } });
  });

  it.each<[string, object, Record<string, string>]>([
    ['scheduler-db', { dataApi: { url: 'http://b', forceScheduler: 'f', username: 'u' } }, { BUILDBOT_PASSWORD: 'p' }],
    ['data-api', { schedulerDb: { pulseExchange: 'exchange/build' } }, { SCHEDULER_DB_URL: 'mysql://h/d' }],
  ])('makes whole what a file has of the other kind than %s', (kind, other, env) => {
    const used = kind === 'data-api' ? least().legacyCi : classic().legacyCi;
    expect(() => parse({ ...least(), legacyCi: { ...used, ...other } })).toThrow(ConfigError);
    expect(parse({ ...least(), legacyCi: { ...used, ...other } }, env).legacyCi.kind).toBe(kind);
  });

  it('says what is missing where it is for one master, and there is none', () => {
    const legacyCi = { kind: 'scheduler-db', schedulerDb: { url: 'mysql://h/d' } };
    expect(problems({ ...least(), legacyCi }, { WEB_STATUS_USERNAME: 'u', WEB_STATUS_PASSWORD: 'p' })).toEqual([
      expect.stringMatching(/^legacyCi.schedulerDb.webStatus.url: missing: add it, or .*WEB_STATUS_USERNAME/),
    ]);
  });

  it('is checked like the file', () => {
    expect(problems(least(), { PULSE_URL: 'http://h' })).toEqual([
      'pulse.url (from the variable PULSE_URL): expected a URL that begins with amqp:// or amqps://',
    ]);
  });

  it.each(['tc-secret\n', ' tc-secret', 'tc-\u0000secret', '\ufefftc-secret'])(
    'may not bring what only looks like a text or secret, and does not show it: %j',
    (value) => {
      const env = { TASKCLUSTER_CLIENT_ID: value, TASKCLUSTER_ACCESS_TOKEN: value, DATABASE_URL: `sqlite:${value}` };
      const { DATABASE_URL: url, ...others } = env;
      const what =
        'there is a control character in it, or a blank or a line break at its beginning or end: take it away';
      expect(problems(least(), others)).toEqual([
        `taskcluster.credentials.clientId (from the variable TASKCLUSTER_CLIENT_ID): ${what}`,
        `taskcluster.credentials.accessToken (from the variable TASKCLUSTER_ACCESS_TOKEN): ${what}`,
      ]);
      const load = () => loadDatabaseUrl({ env: { DATABASE_URL: `${url} ` } });
      expect(load).toThrow(`database.url (from the variable DATABASE_URL): ${what}`);
      expect(load).not.toThrow(/secret/);
    },
  );
});

describe('problems', () => {
  it('are reported all at once', () => {
    const given = {
      taskcluster: { rootUrl: 'tc.example.com', credentials: { clientId: 'c', acessToken: 'tc-secret' } },
      pulse: null,
      legacyCi: { kind: 'data-api', dataApi: { url: 'http://b', forceScheduler: 'f', username: 'u' } },
      builders: { restricted: ['^ok', '(open'] },
      reflector: { schedule: 'now and then', reclaimThreshold: '20m', batchSize: 0 },
      http: { port: '8080' },
      log: { level: 'loud' },
      zorro: 1,
    };
    expect(problems(given)).toEqual([
      'taskcluster.rootUrl: expected a URL that begins with http:// or https://',
      'taskcluster.credentials.accessToken is missing: add it (string), or set the variable TASKCLUSTER_ACCESS_TOKEN',
      'taskcluster.credentials.acessToken: there is no such key; did you mean accessToken?',
      'pulse is empty: give it a value (expected object, received null), or remove the line',
      'legacyCi.dataApi: username and password go together: give both or neither',
      'builders.restricted[1]: "(open" is not a regular expression (RE2): error parsing regexp: missing closing ): `(open`',
      'reflector.schedule: expected a cron expression of six fields, seconds first, such as "*/60 * * * * *"',
      'reflector.reclaimThreshold: expected something like 10m, from 1s to 19m, not "20m"',
      'reflector.batchSize: expected number to be >=1',
      'http.port: expected number, received string: take its quotes away',
      'log.level: expected one of "trace"|"debug"|"info"|"warn"|"error"|"fatal"',
      `zorro: there is no such key: remove it (there are ${TOP})`,
    ]);
  });

  const TOP =
    'taskcluster, pulse, database, legacyCi, builders, results, reflector, artifacts, bridge, retention, http, log';

  it.each<[string, unknown, string]>([
    ['an empty file', {}, 'taskcluster is missing: add it, with rootUrl, credentials'],
    ['no file to speak of', 'hello', 'the file: expected object, received string'],
    ['a list', [], 'the file: expected object, received array'],
    [
      'no URL',
      { ...least(), taskcluster: { credentials: least().taskcluster.credentials } },
      'taskcluster.rootUrl is missing: add it (a URL that begins with http:// or https://), or set the variable TASKCLUSTER_ROOT_URL',
    ],
    [
      'a number for a text',
      { ...least(), taskcluster: { ...least().taskcluster, credentials: { clientId: 'c', accessToken: 1234 } } },
      'taskcluster.credentials.accessToken: expected string, received number: put it in quotes',
    ],
    [
      'a duration without unit',
      withKey('reflector', { recheck: 60 }),
      'reflector.recheck: expected something like 60s: put it in quotes',
    ],
    [
      'a worker type that the queue refuses',
      { ...least(), taskcluster: { ...least().taskcluster, workerType: 'Bridge_1' } },
      'taskcluster.workerType: expected a workerType: 1 to 38 of a-z 0-9 -, beginning with a letter and not ending with -',
    ],
    ...['{tc-secret', '"tc-secret"', 'null', '1', '["tc-secret"]'].map((certificate): [string, unknown, string] => [
      `a broken certificate, ${certificate}`,
      {
        ...least(),
        taskcluster: { rootUrl: 'http://tc', credentials: { clientId: 'c', accessToken: 't', certificate } },
      },
      'taskcluster.credentials.certificate: expected the certificate as Taskcluster gave it: a text with a JSON object',
    ]),
    [
      'an unknown database',
      withKey('database', { url: 'oracle://u:db-secret@h' }),
      'database.url: expected sqlite:FILE, mysql://... or postgres://...',
    ],
    [
      'a scheduler database that is none',
      withKey('legacyCi', { kind: 'scheduler-db', schedulerDb: { url: 'mysql://u:db-secret@h' } }),
      'legacyCi.schedulerDb.url: expected mysql://USER:PASSWORD@HOST/DATABASE',
    ],
    [
      'a password where it would be shown',
      withKey('legacyCi', { kind: 'data-api', dataApi: { url: 'http://u:bb-secret@b', forceScheduler: 'f' } }),
      'legacyCi.dataApi.url: a URL is shown in logs and artifacts: leave user and password out of it',
    ],
    [
      'no scheduler database',
      withKey('legacyCi', { kind: 'scheduler-db' }),
      'legacyCi.schedulerDb: missing: add it, with url',
    ],
    [
      'a web status without a password',
      withKey('legacyCi', {
        kind: 'scheduler-db',
        schedulerDb: { url: 'mysql://h/d', webStatus: { 'bm1:/x': { url: 'http://m', username: 'u' } } },
      }),
      'legacyCi.schedulerDb.webStatus.bm1…: username and password go together: give both or neither',
    ],
    [
      'no way to Buildbot',
      withKey('legacyCi', { kind: 'data-api' }),
      'legacyCi.dataApi: missing: add it, with url and forceScheduler',
    ],
    [
      'a result that is not to be configured',
      withKey('results', { success: 'failed' }),
      'results.success: there is no such key: remove it (there are warnings, failure, exception, skipped)',
    ],
    [
      'a reason that a worker may not give',
      withKey('results', { skipped: 'superseded' }),
      'results.skipped: expected one of "completed"|"failed"|"worker-shutdown"|"malformed-payload"|"resource-unavailable"|"internal-error"|"intermittent-task"',
    ],
  ])('are told in words: %s', (_what, given, expected) => {
    const lines = problems(given);
    expect(lines).toContain(expected);
    expect(lines.join('\n')).not.toContain('-secret');
  });

  it('do not include a second legacy CI that is not in use', () => {
    const schedulerDb = { url: 'mysql://h/d', pollInterval: '10s' };
    expect(problems(withKey('legacyCi', { ...least().legacyCi, schedulerDb }))).toEqual([]);
  });
});

describe('the file', () => {
  it('is named on the command line or by BBB_CONFIG', () => {
    const file = fileOf(stringify(least()));
    expect(loadConfig({ file, env: { BBB_CONFIG: '/nowhere' } }).pulse.namespace).toBe('user');
    expect(loadConfig({ env: { BBB_CONFIG: file } }).pulse.namespace).toBe('user');
    expect(() => loadConfig({ env: {} })).toThrow(/--config FILE or in the variable BBB_CONFIG/);
    expect(() => loadConfig({ env: { BBB_CONFIG: '' } })).toThrow(/--config FILE or in the variable BBB_CONFIG/);
  });

  it('must be there, and be one', () => {
    const load = (file: string) => () => loadConfig({ file, env: {} });
    expect(load(path.join(folder, 'none.yml'))).toThrow(/none\.yml could not be read: there is no such file$/);
    expect(load(folder)).toThrow(/could not be read: it is a folder$/);
    expect(load(path.join(fileOf(''), 'x.yml'))).toThrow(/could not be read: ENOTDIR$/);
    for (const loadAny of [loadConfig, loadDatabaseUrl]) {
      const named = () => loadAny({ file: '', env: { BBB_CONFIG: fileOf(stringify(least())) } });
      expect(named).toThrow(ConfigError);
      expect(named).toThrow('--config names no file: what follows it is empty');
    }
  });

  it.each([
    ['taskcluster: {accessToken: tc-secret\npulse: 1\n', 'line 2'],
    ['accessToken: !tc-secret\n', 'line 1, column 14: Unresolved tag'],
    ['accessToken: |tc-secret\n', 'line 1'],
    ['accessToken: *tc-secret\n', 'an alias has no anchor'],
    ['a: 1\na: tc-secret\n', 'line 2, column 1: Map keys must be unique'],
  ])('that is not YAML is refused by line, and not shown: %j', (content, expected) => {
    const load = () => loadConfig({ file: fileOf(content), env: {} });
    expect(load).toThrow(ConfigError);
    expect(load).toThrow(expected);
    expect(load).not.toThrow(/tc-secret/);
  });

  it.each([
    [
      'database: {url:mysql://u:tc-secret@h/d}',
      'database.url…: there is no such key: a blank is missing after the colon',
    ],
    ['password=tc-secret: 1', 'password…: there is no such key: write a colon and a blank after password'],
    ['? "tc secret"\n: 1', 'tc…: there is no such key: remove it'],
    [
      'legacyCi: {kind: scheduler-db, schedulerDb: {url: "mysql://h/d", webStatus: {url: "http://m", password:tc-secret}}}',
      'legacyCi.schedulerDb.webStatus.password…: there is no such key: a blank is missing after the colon',
    ],
    [
      'legacyCi: {kind: scheduler-db, schedulerDb: {url: "mysql://h/d", webStatus: {bm1: {password:tc-secret}}}}',
      'legacyCi.schedulerDb.webStatus.bm1.password…: there is no such key: a blank is missing after the colon',
    ],
    [
      'legacyCi: {kind: scheduler-db, schedulerDb: {url: "mysql://h/d", webStatus: {url:http://u:tc-secret@m}}}',
      'legacyCi.schedulerDb.webStatus.url…',
    ],
  ])('that has a secret in a key does not show it: %j', (content, expected) => {
    const load = () => loadConfig({ file: fileOf(content), env: {} });
    expect(load).toThrow(ConfigError);
    expect(load).toThrow(expected);
    expect(load).not.toThrow(/secret/);
  });

  it('may be empty where the environment says enough, as for the database', () => {
    expect(loadDatabaseUrl({ env: { DATABASE_URL: 'mysql://h/d' } }).reveal()).toBe('mysql://h/d');
    expect(() => loadDatabaseUrl({ env: {} })).toThrow(
      /--config FILE or in the variable BBB_CONFIG, or the database in/,
    );
    expect(loadDatabaseUrl({ file: fileOf('pulse: {}'), env: {} }).reveal()).toBe('sqlite:./bridge.db');
    expect(loadDatabaseUrl({ file: fileOf('database: {url: "postgres://h/d"}'), env: {} }).reveal()).toBe(
      'postgres://h/d',
    );
    expect(() => loadDatabaseUrl({ file: fileOf('database: {ulr: "postgres://h/d"}'), env: {} })).toThrow(
      'database.ulr: there is no such key; did you mean url?',
    );
  });
});

describe('the documentation', () => {
  it('has every key in its tables, and no other', () => {
    const documented = [...DOCUMENTATION.matchAll(/^\| `([a-zA-Z.]+)` \|/gm)].map(([, key = '']) => key);
    expect(documented.sort()).toEqual([...allKeys()].sort());
  });

  it('has every variable', () => {
    for (const [variable, keys] of Object.entries(ENVIRONMENT)) {
      expect(DOCUMENTATION).toContain(`| \`${variable}\` | \`${keys.join('.')}\` |`);
    }
  });

  it('shows the least, and everything with its defaults', () => {
    expect(EXAMPLES).toHaveLength(2);
    const [small, full] = EXAMPLES.map((yaml) => loadConfig({ file: fileOf(yaml), env: {} }));
    const legacyCi = full?.legacyCi;
    const dataApi = full && dataApiOf(full);
    const { instance, ...bridge } = full?.bridge ?? {};
    expect(instance).toBe('bridge-1');
    const unset = { username: undefined, password: undefined };
    const settled = { ...full, legacyCi: { ...legacyCi, dataApi: { ...dataApi, ...unset } }, bridge };
    expect(settled).toEqual({ ...small, builders: full?.builders });
    expect(full?.builders.restricted.map(String)).toEqual(['^release-.*$']);
  });

  it('states the defaults that apply', () => {
    const rows = [...DOCUMENTATION.matchAll(/^\| `([a-zA-Z.]+)` \| [^|]* \| `([^`]*)` \|/gm)];
    expect(rows.length).toBeGreaterThan(20);
    for (const [, key = '', shown = ''] of rows) {
      const keys = key.split('.');
      const spelled = /^(\d+|true|\[\])$/.test(shown) ? JSON.parse(shown) : shown;
      const base = keys[1] === 'schedulerDb' ? classic() : least();
      const applied = getAt(parse(base), keys);
      expect(applied).toBeDefined();
      expect([key, getAt(parse(setAt(base, keys, spelled)), keys)]).toEqual([key, applied]);
    }
  });
});

function getAt(given: unknown, keys: readonly string[]): unknown {
  return keys.reduce((node, key) => Reflect.get(Object(node), key), given);
}

function setAt(given: object, [key = '', ...rest]: readonly string[], value: unknown): object {
  const inner: unknown = Reflect.get(given, key);
  return { ...given, [key]: rest.length === 0 ? value : setAt(Object(inner), rest, value) };
}
