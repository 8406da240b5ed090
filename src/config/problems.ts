/** What is wrong with a configuration, in words: where, what was expected and how to mend it. */
import { z } from 'zod';
import { ENVIRONMENT } from './source.ts';

type Path = readonly PropertyKey[];

/**
 * One line for each problem.
 * @param value what was checked
 * @param prefix where in the configuration it stands
 * @param env what may have set it
 */
export function describeIssues(
  { issues }: z.core.$ZodError,
  { schema, value, prefix, env }: { schema: z.ZodType; value: unknown; prefix: Path; env: NodeJS.ProcessEnv },
): readonly string[] {
  return issues.flatMap((issue) => {
    const key = dotted([...prefix, ...issue.path]);
    const variable = Object.entries(ENVIRONMENT).find(([, path]) => dotted(path) === key)?.[0];
    const isSet = variable !== undefined && (env[variable] ?? '') !== '';
    const at = `${key || 'the file'}${isSet ? ` (from the variable ${variable})` : ''}`;
    if (issue.code === 'custom') {
      return [`${at}: ${issue.message}`];
    }
    if (issue.code === 'unrecognized_keys') {
      const known = Object.keys(shapeOf(schemaAt(schema, issue.path)) ?? {});
      return issue.keys.map((key) => describeUnknownKey(dotted([...prefix, ...issue.path, key]), key, known));
    }
    const given = valueAt(value, issue.path);
    if (given === undefined) {
      return [
        `${at} is missing: add it${describeMissing(issue, schemaAt(schema, issue.path))}${variable === undefined ? '' : `, or set the variable ${variable}`}`,
      ];
    }
    if (given === null) {
      return [`${at} is empty: give it a value (${expectation(issue)}), or remove the line`];
    }
    return [`${at}: ${expectation(issue)}${quotesMend(issue, given)}`];
  });
}

function describeUnknownKey(at: string, key: string, known: readonly string[]): string {
  const [, name = '', next = ''] = /^([\w-]+)([:=])/.exec(key) ?? [];
  if (next !== '') {
    const mend =
      next === ':' ? 'a blank is missing after the colon' : `write a colon and a blank after ${shownKey(name)}`;
    return `${at}: there is no such key: ${mend}`;
  }
  const meant = nearest(key, known);
  return meant === undefined
    ? `${at}: there is no such key: remove it${known.length === 0 ? '' : ` (there are ${known.join(', ')})`}`
    : `${at}: there is no such key; did you mean ${meant}?`;
}

/** zod's words without its preamble. */
function expectation(issue: z.core.$ZodIssue): string {
  return issue.message.replace(/^Invalid (?:input|option): /, '').replace(/^Too (?:big|small): /, '');
}

function describeMissing(issue: z.core.$ZodIssue, schema: unknown): string {
  const shape = shapeOf(schema);
  if (shape !== undefined) {
    const required = Object.keys(shape).filter((key) => {
      const part = shape[key];
      return part instanceof z.ZodType && !part.safeParse(undefined).success;
    });
    return `, with ${required.join(', ')}`;
  }
  return ` (${expectation(issue)
    .replace(/^expected /, '')
    .replace(/, received undefined$/, '')})`;
}

/** YAML reads `password: 1234` as a number, and `port: "8080"` as a text. */
function quotesMend(issue: z.core.$ZodIssue, given: unknown): string {
  if (issue.code !== 'invalid_type') {
    return '';
  }
  if (issue.expected === 'string') {
    return /number|boolean/.test(typeof given) ? ': put it in quotes' : '';
  }
  const isQuoted = typeof given === 'string' && /^(?:\d+|true|false)$/.test(given);
  return isQuoted && /number|int|boolean/.test(issue.expected) ? ': take its quotes away' : '';
}

/** `builders.ignored[0]` */
function dotted(path: Path): string {
  return path
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : `${i === 0 ? '' : '.'}${shownKey(String(key))}`))
    .join('');
}

/** Where the blank after a colon is missing the key is the whole line, with the secret that it gives. */
function shownKey(key: string): string {
  const [shown = ''] = /^[\w-]{1,40}/.exec(key) ?? [];
  return shown === key ? key : `${shown}…`;
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (node, key) => (typeof node === 'object' && node !== null ? Reflect.get(node, key) : undefined),
    value,
  );
}

function schemaAt(schema: z.ZodType, path: Path): unknown {
  return path.reduce<unknown>((node, key) => shapeOf(node)?.[String(key)], schema);
}

function shapeOf(node: unknown): Record<string, unknown> | undefined {
  let inner = node;
  for (;;) {
    if (inner instanceof z.ZodOptional || inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault) {
      inner = inner.unwrap();
    } else if (inner instanceof z.ZodPipe) {
      inner = inner.in;
    } else {
      return inner instanceof z.ZodObject ? inner.shape : undefined;
    }
  }
}

/** All keys that a schema has, dotted. */
export function keysOf(schema: unknown, path = ''): readonly string[] {
  const shape = shapeOf(schema);
  return shape === undefined
    ? [path]
    : Object.entries(shape).flatMap(([key, value]) => keysOf(value, path === '' ? key : `${path}.${key}`));
}

function nearest(key: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, distance: distance(key.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance);
  const [best] = ranked;
  return best && best.distance <= Math.max(2, Math.floor(key.length / 3)) ? best.candidate : undefined;
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
