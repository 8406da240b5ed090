/**
 * The configuration: one YAML file and the environment, checked as a whole. Every problem is reported at once, with the
 * key, what was expected and how to mend it. The names are a contract with operators' tooling.
 */
import { z } from 'zod';
import { describeIssues, keysOf } from './config/problems.ts';
import { readYaml, withEnvironment } from './config/source.ts';
import {
  amqpUrl,
  baseUrl,
  certificate,
  cron,
  databaseUrl,
  duration,
  httpUrl,
  mysqlUrl,
  name,
  pattern,
  secret,
  serverUrl,
  size,
  text,
  workerType,
} from './config/values.ts';
import { EXCEPTION_REASONS } from './domain/task.ts';
import { ConfigError } from './errors.ts';
import type { Secret } from './secret.ts';

const resolution = z.enum(['completed', 'failed', ...EXCEPTION_REASONS]);

const dataApi = z
  .strictObject({
    url: baseUrl,
    forceScheduler: text,
    username: text.optional(),
    password: secret.optional(),
    collapseGuard: z.boolean().default(true),
  })
  .refine(
    ({ username, password }) => (username === undefined) === (password === undefined),
    'username and password go together: give both or neither',
  );

const webStatus = z
  .strictObject({ url: baseUrl, username: text.optional(), password: secret.optional() })
  .refine(
    ({ username, password }) => (username === undefined) === (password === undefined),
    'username and password go together: give both or neither',
  );

/** One master's, or those of several by the masters' names: what has a `url` is one. */
const webStatuses = z.record(z.string(), z.unknown()).transform((given, context) => {
  if (!('url' in given) && ['username', 'password'].some((key) => typeof given[key] === 'string')) {
    // They may come from the environment.
    context.addIssue({
      ...{ code: 'custom', path: ['url'] },
      message:
        'missing: add it, or give each of several masters its own url, username and password, and WEB_STATUS_USERNAME and WEB_STATUS_PASSWORD no value',
    });
    return z.NEVER;
  }
  const parsed = 'url' in given ? webStatus.safeParse(given) : z.record(z.string(), webStatus).safeParse(given);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const path = [...issue.path];
      // Its message shows the keys.
      const isOfKeys = issue.code === 'unrecognized_keys';
      context.addIssue(
        isOfKeys
          ? { code: issue.code, path, keys: issue.keys, input: given }
          : { code: 'custom', path, message: issue.message },
      );
    }
    return z.NEVER;
  }
  return parsed.data;
});

const schedulerDb = z.strictObject({
  url: mysqlUrl,
  pulseExchange: text.optional(),
  selfServeUrl: baseUrl.optional(),
  webStatus: webStatuses.optional(),
  pollInterval: duration('10s', '100ms', '1h').prefault('10s'),
  buildersUrl: httpUrl.optional(),
  outcomeWait: duration('10m', '1s', '24h').prefault('10m'),
});

const legacyCi = z
  .strictObject({
    kind: z.enum(['data-api', 'scheduler-db']),
    absentGrace: duration('2m', '1s', '1h').prefault('2m'),
    dataApi: dataApi.optional(),
    schedulerDb: schedulerDb.optional(),
  })
  .transform(({ kind, dataApi, schedulerDb, absentGrace }, context) => {
    // A file may hold both sections; `kind` says which one counts.
    if (kind === 'data-api' && dataApi !== undefined) {
      return { kind, absentGrace, dataApi };
    }
    if (kind === 'scheduler-db' && schedulerDb !== undefined) {
      return { kind, absentGrace, schedulerDb };
    }
    context.addIssue(
      kind === 'data-api'
        ? { code: 'custom', path: ['dataApi'], message: 'missing: add it, with url and forceScheduler' }
        : { code: 'custom', path: ['schedulerDb'], message: 'missing: add it, with url' },
    );
    return z.NEVER;
  });

const schema = z.strictObject({
  taskcluster: z.strictObject({
    rootUrl: serverUrl,
    credentials: z.strictObject({ clientId: text, accessToken: secret, certificate: certificate.optional() }),
    provisionerId: name('a provisionerId').default('buildbot'),
    workerType: workerType.default('bridge'),
    workerGroup: name('a workerGroup').default('buildbot-bridge'),
    workerId: name('a workerId').default('buildbot-bridge'),
  }),
  pulse: z.strictObject({
    url: amqpUrl,
    namespace: z.string().regex(/^[\w.-]{1,100}$/, 'expected a Pulse user name'),
  }),
  database: z.strictObject({ url: databaseUrl.prefault('sqlite:./bridge.db') }).prefault({}),
  legacyCi,
  builders: z
    .strictObject({ ignored: z.array(pattern).default([]), restricted: z.array(pattern).default([]) })
    .prefault({}),
  results: z
    .strictObject({
      warnings: resolution.default('failed'),
      failure: resolution.default('failed'),
      exception: resolution.default('internal-error'),
      skipped: resolution.default('internal-error'),
    })
    .prefault({}),
  reflector: z
    .strictObject({
      schedule: cron.default('*/60 * * * * *'),
      reclaimThreshold: duration('10m', '1s', '19m').prefault('10m'),
      recheck: duration('60s', '1s', '1h').prefault('60s'),
      batchSize: z.int().min(1).max(5000).default(500),
      concurrency: z.int().min(1).max(200).default(16),
    })
    .prefault({}),
  artifacts: z.strictObject({ maxLogSize: size('1GB', '1kB', '5GB').prefault('1GB') }).prefault({}),
  bridge: z
    .strictObject({
      mode: z.enum(['normal', 'drain', 'observe']).default('normal'),
      instance: name('an instance name').optional(),
      shutdownTimeout: duration('30s', '1s', '1h').prefault('30s'),
      lease: duration('90s', '2s', '10m').prefault('90s'),
    })
    .prefault({}),
  retention: duration('30d', '1h', '3650d').prefault('30d'),
  http: z.strictObject({ host: text.default('127.0.0.1'), port: z.int().min(0).max(65535).default(8080) }).prefault({}),
  log: z
    .strictObject({ level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']).default('info') })
    .prefault({}),
});

/** The whole configuration: durations in milliseconds, sizes in bytes, secrets wrapped, patterns compiled. */
export type Config = Readonly<z.infer<typeof schema>>;

/**
 * Reads and checks the configuration.
 * @param file the YAML file; without one, `BBB_CONFIG` names it
 * @throws ConfigError with every problem
 */
export function loadConfig({ file, env }: { file?: string | undefined; env: NodeJS.ProcessEnv }): Config {
  const path = pathOf(file, env);
  if (path === undefined) {
    throw new ConfigError('no configuration: name the file with --config FILE or in the variable BBB_CONFIG');
  }
  return parseConfig(readYaml(path), env, path);
}

/**
 * Reads only what the database commands need.
 * @throws ConfigError
 */
export function loadDatabaseUrl({ file, env }: { file?: string | undefined; env: NodeJS.ProcessEnv }): Secret {
  const path = pathOf(file, env);
  if (path === undefined && (env.DATABASE_URL ?? '') === '') {
    throw new ConfigError(
      'no configuration: name the file with --config FILE or in the variable BBB_CONFIG, or the database in DATABASE_URL',
    );
  }
  const given = path === undefined ? {} : readYaml(path);
  const merged = withEnvironment(given, env);
  const database = typeof merged === 'object' && merged !== null && 'database' in merged ? merged.database : undefined;
  return check(schema.shape.database, database, { env, path: path ?? 'the environment', prefix: ['database'] }).url;
}

/** A variable that is empty is as good as none. */
function pathOf(file: string | undefined, env: NodeJS.ProcessEnv): string | undefined {
  if (file === '') {
    throw new ConfigError('--config names no file: what follows it is empty');
  }
  return file ?? (env.BBB_CONFIG === '' ? undefined : env.BBB_CONFIG);
}

/** @throws ConfigError with every problem of an already parsed file */
export function parseConfig(given: unknown, env: NodeJS.ProcessEnv, path: string): Config {
  return deepFreeze(check(schema, withEnvironment(given, env), { env, path }));
}

/** All keys of the configuration, dotted; for the test that every one is documented. */
export function allKeys(): readonly string[] {
  return keysOf(schema);
}

interface Given {
  readonly env: NodeJS.ProcessEnv;
  readonly path: string;
  readonly prefix?: readonly string[];
}

function check<T>(part: z.ZodType<T>, value: unknown, { env, path, prefix = [] }: Given): T {
  const parsed = part.safeParse(value);
  if (parsed.success) {
    return parsed.data;
  }
  const lines = describeIssues(parsed.error, { schema: part, value, prefix, env });
  throw new ConfigError(`${path} is not a valid configuration:\n${lines.map((line) => `  - ${line}`).join('\n')}`);
}

/** Plain objects and arrays; secrets and patterns guard themselves. */
function deepFreeze<T>(value: T): T {
  if (Array.isArray(value) || isPlainObject(value)) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}

function isPlainObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
