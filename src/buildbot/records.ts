/** Lists of records in Buildbot's answers and rows: each is read for itself, so that a bad one spoils no other. */
import { z } from 'zod';

/** A record that cannot be read. */
export interface BadRecord {
  /** The id of whom it belongs to; undefined if even that cannot be read. */
  readonly owner: number | undefined;
  /** What is wrong with it first; short. */
  readonly reason: string;
  readonly value: unknown;
}

export interface Records<T> {
  readonly read: readonly T[];
  readonly bad: readonly BadRecord[];
}

const MAX_REASON = 200;

/** @param owner the key under which a record has the id of whom it belongs to */
export function readRecords<T>(values: readonly unknown[], record: z.ZodType<T>, owner: keyof T & string): Records<T> {
  const read: T[] = [];
  const bad: BadRecord[] = [];
  for (const value of values) {
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
  return z.array(z.unknown()).transform((values) => readRecords(values, record, owner));
}

/** Undefined where there is no such field, or no record. */
export function fieldOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}

function reasonOf(error: z.ZodError): string {
  const [issue] = error.issues;
  return `${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`.slice(0, MAX_REASON);
}
