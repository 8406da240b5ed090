/**
 * The configuration: one YAML file and the environment, checked as a whole. Every problem is reported at once, with the
 * key, what was expected and how to mend it. The names are a contract with operators' tooling.
 */
import { readFileSync } from 'node:fs';
import { RE2JS } from 're2js';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { EXCEPTION_REASONS } from './domain/task.ts';
import { ConfigError, describeError } from './errors.ts';
import { Secret } from './secret.ts';

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZES = { B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9 } as const;

function scaled(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?) ?([A-Za-z]{1,2})$/.exec(text);
  const unit = units[match?.[2] ?? ''];
  return match === null || unit === undefined ? undefined : Math.round(Number(match[1]) * unit);
}

function scale(units: Readonly<Record<string, number>>, example: string, min: number, max: number) {
  return z.string({ error: `expected something like ${example}` }).transform((text, context) => {
    const value = scaled(text, units);
    if (value === undefined || value < min || value > max) {
      context.addIssue({
        code: 'custom',
        message: `expected something like ${example}${value === undefined ? '' : ', within sensible bounds'}, not "${text}"`,
      });
      return z.NEVER;
    }
    return value;
  });
}

/** A duration such as `10m`, as milliseconds. */
const duration = (example: string, min: number, max: number) => scale(UNITS, example, min, max);
/** A size such as `100MB`, as bytes. */
const size = (example: string, min: number, max: number) => scale(SIZES, example, min, max);
const { s, m, h, d } = UNITS;

const name = (what: string) =>
  z.string().regex(/^[a-zA-Z0-9_-]{1,38}$/, `expected ${what}: 1 to 38 of a-z A-Z 0-9 _ -`);
const httpUrl = z.url({ protocol: /^https?$/, error: 'expected a URL that begins with http:// or https://' });
const secret = z
  .string()
  .min(1)
  .transform((value) => new Secret(value));

const pattern = z.string().transform((text, context) => {
  try {
    // Linear time whatever the pattern, and anchored at the start only, as the first bridge had it.
    return RE2JS.compile(text);
  } catch (error) {
    context.addIssue({
      code: 'custom',
      message: `"${text}" is not a regular expression (RE2): ${describeError(error)}`,
    });
    return z.NEVER;
  }
});

const resolution = z.enum(['completed', 'failed', ...EXCEPTION_REASONS]);

const schema = z.strictObject({
  taskcluster: z.strictObject({
    rootUrl: httpUrl,
    credentials: z.strictObject({ clientId: z.string().min(1), accessToken: secret, certificate: secret.optional() }),
    provisionerId: name('a provisionerId').default('buildbot'),
    workerType: name('a workerType').default('bridge'),
    workerGroup: name('a workerGroup').default('buildbot-bridge'),
    workerId: name('a workerId').default('buildbot-bridge'),
  }),
  pulse: z.strictObject({
    url: z
      .url({ protocol: /^amqps?$/, error: 'expected a URL that begins with amqp:// or amqps://' })
      .transform((value) => new Secret(value)),
    namespace: z.string().regex(/^[\w.-]{1,100}$/, 'expected a Pulse user name'),
  }),
  database: z
    .strictObject({
      url: z
        .string()
        .regex(/^(sqlite:.+|mysql:\/\/.+|postgres(ql)?:\/\/.+)$/, 'expected sqlite:FILE, mysql://... or postgres://...')
        .transform((value) => new Secret(value))
        .prefault('sqlite:./bridge.db'),
    })
    .prefault({}),
  legacyCi: z.strictObject({
    kind: z.enum(['data-api', 'scheduler-db']),
    absentGrace: duration('2m', s, h).prefault('2m'),
    dataApi: z
      .strictObject({
        url: httpUrl,
        forceScheduler: z.string().min(1),
        username: z.string().min(1).optional(),
        password: secret.optional(),
        collapseGuard: z.boolean().default(true),
      })
      .optional(),
    schedulerDb: z.unknown().optional(),
  }),
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
      schedule: z
        .string()
        .regex(/^\S+( \S+){4,5}$/, 'expected a cron expression such as "*/60 * * * * *" (seconds first)')
        .default('*/60 * * * * *'),
      reclaimThreshold: duration('10m', s, 19 * m).prefault('10m'),
      recheck: duration('60s', s, h).prefault('60s'),
      batchSize: z.int().min(1).max(5000).default(500),
      concurrency: z.int().min(1).max(200).default(16),
    })
    .prefault({}),
  artifacts: z.strictObject({ maxLogSize: size('1GB', 1000, 100e9).prefault('1GB') }).prefault({}),
  bridge: z
    .strictObject({
      mode: z.enum(['normal', 'drain', 'observe']).default('normal'),
      instance: name('an instance name').optional(),
      shutdownTimeout: duration('30s', s, h).prefault('30s'),
      lease: duration('90s', 2 * s, 10 * m).prefault('90s'),
    })
    .prefault({}),
  retention: duration('30d', h, 3650 * d).prefault('30d'),
  http: z
    .strictObject({ host: z.string().min(1).default('127.0.0.1'), port: z.int().min(0).max(65535).default(8080) })
    .prefault({}),
  log: z
    .strictObject({ level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']).default('info') })
    .prefault({}),
});

type Parsed = z.infer<typeof schema>;

/** The whole configuration: durations in milliseconds, sizes in bytes, secrets wrapped, patterns compiled. */
export type Config = Readonly<Omit<Parsed, 'legacyCi'>> & {
  readonly legacyCi: Omit<Parsed['legacyCi'], 'dataApi' | 'schedulerDb' | 'kind'> & {
    readonly kind: 'data-api';
    readonly dataApi: NonNullable<Parsed['legacyCi']['dataApi']>;
  };
};

/** Where each environment variable goes; it wins over the file. */
export const ENVIRONMENT: Readonly<Record<string, readonly string[]>> = {
  TASKCLUSTER_ROOT_URL: ['taskcluster', 'rootUrl'],
  TASKCLUSTER_CLIENT_ID: ['taskcluster', 'credentials', 'clientId'],
  TASKCLUSTER_ACCESS_TOKEN: ['taskcluster', 'credentials', 'accessToken'],
  PULSE_URL: ['pulse', 'url'],
  DATABASE_URL: ['database', 'url'],
  BUILDBOT_USERNAME: ['legacyCi', 'dataApi', 'username'],
  BUILDBOT_PASSWORD: ['legacyCi', 'dataApi', 'password'],
};

/**
 * Reads and checks the configuration.
 * @param file the YAML file; without one, `BBB_CONFIG` names it
 * @throws ConfigError with every problem
 */
export function loadConfig({ file, env }: { file?: string | undefined; env: NodeJS.ProcessEnv }): Config {
  const path = file ?? env.BBB_CONFIG;
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
  const path = file ?? env.BBB_CONFIG;
  const given = path === undefined ? {} : readYaml(path);
  const merged = withEnvironment(given, env);
  const database = typeof merged === 'object' && merged !== null && 'database' in merged ? merged.database : {};
  return check(schema.shape.database, database, path ?? 'the environment', ['database']).url;
}

/** @throws ConfigError with every problem of an already parsed file */
export function parseConfig(given: unknown, env: NodeJS.ProcessEnv, path: string): Config {
  const parsed = check(schema, withEnvironment(given, env), path);
  const { kind, dataApi } = parsed.legacyCi;
  if (kind === 'scheduler-db') {
    throw new ConfigError(
      `${path}: legacyCi.kind: this version talks to Buildbot 0.9 and later (data-api); scheduler-db is not there yet`,
    );
  }
  if (dataApi === undefined) {
    throw new ConfigError(`${path}: legacyCi.dataApi is missing: add it, with url and forceScheduler`);
  }
  if ((dataApi.username === undefined) !== (dataApi.password === undefined)) {
    throw new ConfigError(`${path}: legacyCi.dataApi: username and password go together: give both or neither`);
  }
  const { absentGrace } = parsed.legacyCi;
  return deepFreeze({ ...parsed, legacyCi: { kind, absentGrace, dataApi } });
}

function readYaml(path: string): unknown {
  try {
    return parseYaml(readFileSync(path, 'utf8')) ?? {};
  } catch (error) {
    throw new ConfigError(`${path} could not be read: ${describeError(error)}`, { cause: error });
  }
}

function withEnvironment(given: unknown, env: NodeJS.ProcessEnv): unknown {
  let merged = given;
  for (const [variable, keys] of Object.entries(ENVIRONMENT)) {
    const value = env[variable];
    if (value !== undefined && value !== '') {
      merged = withValue(merged, keys, value);
    }
  }
  return merged;
}

function withValue(given: unknown, [key, ...rest]: readonly string[], value: string): unknown {
  if (key === undefined) {
    return value;
  }
  if (given !== undefined && given !== null && (typeof given !== 'object' || Array.isArray(given))) {
    return given;
  }
  const object = { ...given } as Record<string, unknown>;
  return { ...object, [key]: withValue(object[key], rest, value) };
}

function check<T>(part: z.ZodType<T>, value: unknown, path: string, prefix: readonly string[] = []): T {
  const parsed = part.safeParse(value);
  if (parsed.success) {
    return parsed.data;
  }
  const lines = parsed.error.issues.flatMap((issue) => describeIssue(issue, prefix));
  throw new ConfigError(`${path} is not a valid configuration:\n${lines.map((line) => `  - ${line}`).join('\n')}`);
}

function describeIssue(issue: z.core.$ZodIssue, prefix: readonly string[]): readonly string[] {
  const keys = [...prefix, ...issue.path.map(String)];
  const at = keys.join('.') || 'the file';
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const meant = nearestKey(key, keysAt(keys.slice(prefix.length === 0 ? 0 : prefix.length)));
      return `${[...keys, key].join('.')}: there is no such key${meant ? `; did you mean ${meant}?` : ': remove it'}`;
    });
  }
  if (issue.code === 'invalid_type' && issue.input === undefined && issue.message.includes('received undefined')) {
    const variable = Object.entries(ENVIRONMENT).find(([, path]) => path.join('.') === at)?.[0];
    return [`${at} is missing: add it (${issue.expected})${variable ? `, or set the variable ${variable}` : ''}`];
  }
  return [`${at}: ${issue.message}`];
}

/** The keys that the schema has at a path. */
function keysAt(path: readonly string[]): readonly string[] {
  let node: unknown = schema;
  for (const key of path) {
    node = shapeOf(node)?.[key];
  }
  return Object.keys(shapeOf(node) ?? {});
}

function shapeOf(node: unknown): Record<string, unknown> | undefined {
  let inner = node;
  while (inner instanceof z.ZodOptional || inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault) {
    inner = inner.unwrap();
  }
  return inner instanceof z.ZodObject ? inner.shape : undefined;
}

/** All keys of the configuration, dotted; for the test that every one is documented. */
export function allKeys(): readonly string[] {
  const walk = (node: unknown, path: string): string[] => {
    const shape = shapeOf(node);
    return shape === undefined
      ? [path]
      : Object.entries(shape).flatMap(([key, value]) => walk(value, path === '' ? key : `${path}.${key}`));
  };
  return walk(schema, '');
}

function nearestKey(key: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, distance: distance(key.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  return best && best.distance <= Math.max(1, Math.floor(key.length / 3)) ? best.candidate : undefined;
}

/** Levenshtein's. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substituted));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
