/** What a build request is made of in the scheduler database. Pure. */
import type { Priority } from '../../domain/task.ts';
import { NOT_ASCII, plain } from '../../plain.ts';
import type { BuildSpec, Problem } from '../../ports.ts';
import type { Schema } from './schema.ts';

/** The source of every property that the bridge sets. */
export const SOURCE = 'bbb';
/** The property that tells the submissions of one task apart. */
export const EXTERNAL_ID = 'bbb_external_id';

/** Other systems recognise the bridge's jobs by this text, which the first bridge wrote. */
export function reasonOf(taskId: string): string {
  return `Created by BBB for task ${taskId}`;
}

/** The first bridge gave `high` 1 and everything else 0; a master of the old schema builds the highest first. */
export function priorityOf(priority: Priority): number {
  const ranks: Partial<Record<Priority, number>> = { highest: 3, 'very-high': 2, high: 1 };
  return ranks[priority] ?? 0;
}

/** `[name, encoded value]` of every property: a payload cannot choose its own taskId. */
export function propertiesOf(spec: BuildSpec): readonly (readonly [string, string])[] {
  const all = { ...spec.properties, taskId: spec.taskId, [EXTERNAL_ID]: spec.externalId };
  return Object.entries(all).map(([name, value]) => [name, encoded(value)]);
}

/** As masters expect it: JSON of value and source. ASCII, as Python wrote it, because columns hold three-byte UTF-8 at most. */
export function encoded(value: unknown): string {
  return plain(JSON.stringify([value, SOURCE]), NOT_ASCII);
}

/** The sourcestamp's columns; branch and revision may be null, for the default branch and its tip. */
export function sourcestampOf({ branch, revision, repository, project }: BuildSpec) {
  return { branch, revision, repository: repository ?? '', project: project ?? '' };
}

/** What of a request the database could not hold: a property cut short would keep a master from loading the request at all. */
export function submissionProblems(spec: BuildSpec, schema: Schema): readonly Problem[] {
  const problems: Problem[] = [];
  const { product } = spec.properties;
  if (typeof product !== 'string' || product === '') {
    problems.push({
      where: 'payload.properties.product',
      what: 'it is missing, and the masters need it to upload the log',
      mend: 'add a property "product" with a text that is not empty, such as "firefox"',
    });
  }
  const check = (where: string, column: string, text: string, what = text) => {
    const limit = schema.limits.get(column);
    const length = limit?.unit === 'bytes' ? Buffer.byteLength(text) : [...text].length;
    if (limit !== undefined && length > limit.length) {
      const mend = `Buildbot's column ${column} holds ${limit.length} ${limit.unit}: make it shorter, or hand it over in a file`;
      problems.push({ where, what: `it is too long: ${length} ${limit.unit}`, mend });
    }
    if (/\p{Surrogate}|[\u{10000}-\u{10ffff}]|\0/u.test(what)) {
      const mend = `Buildbot's column ${column} cannot hold characters beyond U+FFFF: leave them out`;
      problems.push({ where, what: 'it has a character that the scheduler database cannot hold', mend });
    }
  };
  check('payload.buildername', 'buildrequests.buildername', spec.builder);
  for (const [key, value] of Object.entries(sourcestampOf(spec))) {
    check(`payload.sourcestamp.${key}`, `sourcestamps.${key}`, value ?? '');
  }
  for (const [name, value] of propertiesOf(spec)) {
    check(`payload.properties.${name}`, 'buildset_properties.property_name', name);
    check(`payload.properties.${name}`, 'buildset_properties.property_value', value);
  }
  return problems;
}
