/** Lists of records in Buildbot's answers and rows: each is read for itself, so that a bad one spoils no other. */
import { z } from 'zod';
import { anyList } from '../lists.ts';

/** A record that cannot be read. */
export interface BadRecord {
  /** The id of whom it belongs to; undefined if even that cannot be read. */
  readonly owner: number | undefined;
  /** What is wrong with it first; short. */
  readonly reason: string;
  /** Undefined where it stands for all those that were not looked at any more. */
  readonly value: unknown;
}

export interface Records<T> {
  readonly read: readonly T[];
  readonly bad: readonly BadRecord[];
}

const MAX_REASON = 200;
/** Of so many that are bad each is told, more than are asked for at once; it takes long to find one so. */
const MAX_BAD = 1000;
/** Far more than are asked for, and more than Buildbot has where all are asked for. */
const MAX_RECORDS = 100_000;

/**
 * Where there are too many that are bad, or too many at all, the rest is not looked at, and stands as one more bad one that
 * may belong to anybody.
 * @param owner the key under which a record has the id of whom it belongs to
 */
export function readRecords<T>(values: readonly unknown[], record: z.ZodType<T>, owner: keyof T & string): Records<T> {
  const read: T[] = [];
  const bad: BadRecord[] = [];
  for (const value of values) {
    if (bad.length >= MAX_BAD || read.length >= MAX_RECORDS) {
      bad.push({ owner: undefined, reason: 'too many, or too many that cannot be read', value: undefined });
      break;
    }
    const parsed = record.safeParse(value);
    if (parsed.success) {
      read.push(parsed.data);
    } else {
      bad.push({ owner: z.int().safeParse(fieldOf(value, owner)).data, reason: reasonOf(parsed.error), value });
    }
  }
  return { read, bad };
}

/** A list in an answer. */
export function records<T>(record: z.ZodType<T>, owner: keyof T & string): z.ZodType<Records<T>> {
  return anyList.transform((values) => readRecords(values, record, owner));
}

/** Undefined where there is no such field, or no record. */
export function fieldOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}

function reasonOf(error: z.ZodError): string {
  const [issue] = error.issues;
  return `${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`.slice(0, MAX_REASON);
}
