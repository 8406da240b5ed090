/** The properties of a build, which are kept within the same bounds whichever way they come. */
import type { Logger } from 'pino';
import { textOf, writable } from '../json.ts';
import { excerpt } from '../log.ts';
import { escapedSize } from '../plain.ts';
import type { InputCounter, Outcome } from '../ports.ts';

/** Bytes of JSON, as it is stored: of all, and of each. Larger ones are of no use to anybody. */
const MAX_ALL = 1_000_000;
const MAX_EACH = 100_000;
/** An honest build has a few dozen. */
export const MAX_PROPERTIES = 10_000;

export interface BoundedProperties {
  readonly properties: Outcome['properties'];
  /** The names of those that are too large, or too many. */
  readonly leftOut: readonly string[];
}

/** @param found name, value and source of each, as JSON has them; of several of one name the last one counts */
export function boundedProperties(
  found: Iterable<readonly [name: string, value: unknown, source: unknown]>,
): BoundedProperties {
  const kept: [string, readonly [unknown, string]][] = [];
  const leftOut: string[] = [];
  let size = 0;
  for (const [name, [value, source]] of new Map([...found].map(([name, ...rest]) => [name, rest] as const))) {
    const property = [writable(value), textOf(source ?? '')] as const;
    const own = escapedSize(JSON.stringify({ [name]: property }));
    if (own <= MAX_EACH && size + own <= MAX_ALL && kept.length < MAX_PROPERTIES) {
      size += own;
      kept.push([name, property]);
    } else {
      leftOut.push(name);
    }
  }
  return { properties: Object.fromEntries(kept), leftOut };
}

/** As many names of what is left out as a line of the log has room for. */
export function shownNames(leftOut: readonly string[]): readonly string[] {
  return leftOut.slice(0, 10).map((name) => excerpt(name, 100));
}

/** Those that an answer tells of a build, where it tells nothing else. What is left out is counted, and logged. */
export function answeredProperties(
  found: Iterable<readonly [name: string, value: unknown, source: unknown]>,
  buildRequestId: number,
  { log, inputs }: { readonly log: Logger | undefined; readonly inputs: InputCounter | undefined },
): Outcome['properties'] {
  const { properties, leftOut } = boundedProperties(found);
  if (leftOut.length > 0) {
    inputs?.rejected('legacy-ci-answer');
    log?.warn({ buildRequestId, what: shownNames(leftOut) }, 'properties of a build left out: they are too large');
  }
  return properties;
}
