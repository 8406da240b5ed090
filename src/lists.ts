/**
 * Lists and records in what others send. zod makes an issue of each element that is wrong, and of millions of them more
 * than a process can hold: these stop at the first one, and take no more elements than an honest answer has.
 */
import { z } from 'zod';

/** Far more than Buildbot or the queue has of anything. */
const MAX_ELEMENTS = 100_000;

/** A list whose elements nobody looks at. */
export const anyList = z.custom<readonly unknown[]>(Array.isArray, { error: 'expected a list', abort: true });

/** A record whose values nobody looks at. */
export const anyRecord = z.custom<Readonly<Record<string, unknown>>>(
  (given) => typeof given === 'object' && given !== null && !Array.isArray(given),
  { error: 'expected a record', abort: true },
);

/**
 * A list of such elements. What is said to be wrong with it is what is wrong with its first bad one.
 * @param max how many it may have
 */
export function listOf<T>(element: z.ZodType<T>, max: number = MAX_ELEMENTS): z.ZodType<readonly T[]> {
  return anyList.transform((given, context) => {
    const read: T[] = [];
    if (isTooLong(given, max, context)) {
      return z.NEVER;
    }
    for (const [at, one] of given.entries()) {
      const parsed = element.safeParse(one);
      if (!parsed.success) {
        addIssues(parsed.error, at, context);
        return z.NEVER;
      }
      read.push(parsed.data);
    }
    return read;
  });
}

/** The same of a record's values, whatever their names. */
export function recordOf<T>(value: z.ZodType<T>, max: number = MAX_ELEMENTS): z.ZodType<Readonly<Record<string, T>>> {
  return anyRecord.transform((given, context) => {
    const names = Object.keys(given);
    const read: [string, T][] = [];
    if (isTooLong(names, max, context)) {
      return z.NEVER;
    }
    for (const name of names) {
      const parsed = value.safeParse(given[name]);
      if (!parsed.success) {
        addIssues(parsed.error, name, context);
        return z.NEVER;
      }
      read.push([name, parsed.data]);
    }
    return Object.fromEntries(read);
  });
}

function isTooLong({ length }: readonly unknown[], max: number, context: z.RefinementCtx): boolean {
  if (length > max) {
    context.addIssue({ code: 'custom', message: `${length} are too many` });
  }
  return length > max;
}

/** Of one element, and so few: what is in it stops at its first bad one likewise. */
function addIssues(error: z.ZodError, at: PropertyKey, context: z.RefinementCtx): void {
  for (const { path, message } of error.issues) {
    context.addIssue({ code: 'custom', path: [at, ...path], message });
  }
}
