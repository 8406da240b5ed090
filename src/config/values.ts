/** The kinds of values that a configuration has, as schemas that say what was expected. */
import { validate as isCron, parse as parseCron } from 'node-cron';
import { RE2JS } from 're2js';
import { z } from 'zod';
import { describeError } from '../errors.ts';
import { Secret } from '../secret.ts';

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZES = { B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9 } as const;

function scaled(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,3})?) ?([A-Za-z]{1,2})$/.exec(text);
  const unit = units[match?.[2] ?? ''];
  return match === null || unit === undefined ? undefined : Math.round(Number(match[1]) * unit);
}

/** @param min @param max in the same writing as the value */
function scale(units: Readonly<Record<string, number>>, example: string, min: string, max: string) {
  const [least = 0, most = 0] = [scaled(min, units), scaled(max, units)];
  return z.string({ error: `expected something like ${example}` }).transform((text, context) => {
    const value = scaled(text, units);
    if (value === undefined || value < least || value > most) {
      const message = `expected something like ${example}, from ${min} to ${max}, not ${JSON.stringify(text)}`;
      context.addIssue({ code: 'custom', message });
      return z.NEVER;
    }
    return value;
  });
}

/** A duration such as `10m`, as milliseconds. */
export const duration = (example: string, min: string, max: string) => scale(UNITS, example, min, max);

/** A size such as `100MB`, as bytes. */
export const size = (example: string, min: string, max: string) => scale(SIZES, example, min, max);

/** One of Taskcluster's identifiers. */
export const name = (what: string) =>
  z.string().regex(/^[a-zA-Z0-9_-]{1,38}$/, `expected ${what}: 1 to 38 of a-z A-Z 0-9 _ -`);

/** The queue is stricter about the second part of a task queue's id. */
export const workerType = z
  .string()
  .regex(
    /^[a-z](?:[-a-z0-9]{0,36}[a-z0-9])?$/,
    'expected a workerType: 1 to 38 of a-z 0-9 -, beginning with a letter and not ending with -',
  );

/** One that may be shown: without user and password. */
export const httpUrl = z
  .url({ protocol: /^https?$/, error: 'expected a URL that begins with http:// or https://' })
  .refine(
    (url) => !URL.canParse(url) || (new URL(url).username === '' && new URL(url).password === ''),
    'a URL is shown in logs and artifacts: leave user and password out of it',
  );

/** Of a server, for paths below it: they would become part of a query or a fragment, such as the `#/` of Buildbot's pages. */
export const serverUrl = httpUrl.superRefine((url, context) => {
  const [mark] = /[?#]/.exec(url) ?? [];
  if (mark !== undefined) {
    context.addIssue({
      code: 'custom',
      message: `paths are put behind it: give it without ${mark} and what follows`,
    });
  }
});

/** The same, without slashes at its end, which would make another path. */
export const baseUrl = serverUrl.transform((url) => url.replace(/\/+$/, ''));

const UNTIDY = 'there is a control character in it, or a blank or a line break at its beginning or end: take it away';

/** Files that hold a secret often end with a line break, with which it would be refused at every call, for ever. */
const tidy = z
  .string()
  .refine((value) => value.trim() === value && !/\p{Cc}/u.test(value), { error: UNTIDY, abort: true });

export const text = tidy.min(1, 'expected a text that is not empty');

/** A text that is shown nowhere. */
export const secret = text.transform((value) => new Secret(value));

/** A broker's URL, with its password. */
export const amqpUrl = z
  .url({ protocol: /^amqps?$/, error: 'expected a URL that begins with amqp:// or amqps://' })
  .transform((value) => new Secret(value));

/** Where a database is, perhaps with its password. */
export const databaseUrl = tidy
  .regex(/^(?:sqlite:.+|mysql:\/\/.+|postgres(?:ql)?:\/\/.+)$/, 'expected sqlite:FILE, mysql://... or postgres://...')
  .transform((value) => new Secret(value));

/** A MySQL or MariaDB database of somebody else's, perhaps with its password. */
export const mysqlUrl = tidy
  .regex(/^mysql:\/\/[^/]+\/.+$/, 'expected mysql://USER:PASSWORD@HOST/DATABASE')
  .transform((value) => new Secret(value));

/** The certificate of temporary credentials: JSON in a text, as Taskcluster hands it out. */
export const certificate = z.string().transform((value, context) => {
  if (!isJsonObject(value)) {
    context.addIssue({
      code: 'custom',
      message: 'expected the certificate as Taskcluster gave it: a text with a JSON object',
    });
    return z.NEVER;
  }
  return new Secret(value);
});

function isJsonObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

/** A regular expression: linear time whatever the pattern. */
export const pattern = z.string().transform((text, context) => {
  try {
    return RE2JS.compile(text);
  } catch (error) {
    context.addIssue({
      code: 'custom',
      message: `"${text}" is not a regular expression (RE2): ${describeError(error)}`,
    });
    return z.NEVER;
  }
});

const CRON = 'expected a cron expression of six fields, seconds first, such as "*/60 * * * * *"';
/** In the last minutes before a deadline a run has to be looked at, and the shortest claims are over in some more. */
const MAX_GAP_SECONDS = 60;

/** No field has such numbers, and what reads them would write out a range from one to the other before it says so. */
const ABSURD = /\d{3}|^.{300}/s;

/** When the reflector runs. */
export const cron = z.string({ error: CRON }).superRefine((expression, context) => {
  // Five fields, and names such as @daily, are cron expressions too, of which hardly one was meant so.
  if (expression.trim().split(/ +/).length !== 6 || ABSURD.test(expression) || !isCron(expression)) {
    context.addIssue({ code: 'custom', message: CRON });
    return;
  }
  const gap = longestGap(expression);
  if (gap === undefined || gap > MAX_GAP_SECONDS) {
    const between = gap === undefined ? 'a day or more' : `${gap} seconds`;
    context.addIssue({
      code: 'custom',
      message: `there can be ${between} between two turns, and claims and deadlines have to be looked at every ${MAX_GAP_SECONDS} seconds: use "*/60 * * * * *"`,
    });
  }
});

const DAY_SECONDS = 86_400;

/** The seconds between two turns of a day, at most; undefined where there are days without a turn. */
function longestGap(expression: string): number | undefined {
  const { second, minute, hour, dayOfMonth, month, dayOfWeek } = parseCron(expression);
  if (new Set(dayOfMonth).size < 31 || new Set(month).size < 12 || new Set(dayOfWeek).size < 7) {
    return undefined;
  }
  const turns = hour
    .flatMap((h) => minute.flatMap((m) => second.map((s) => (h * 60 + m) * 60 + s)))
    .sort((one, other) => one - other);
  // The first one again, on the next day.
  const next = [...turns.slice(1), (turns[0] ?? 0) + DAY_SECONDS];
  return turns.reduce((most, turn, at) => Math.max(most, (next[at] ?? turn) - turn), 0);
}
