/** Formats of the real queue's schemas, as strict and as lax as they were seen to be on a 106. */
import { z } from 'zod';

const DATE_TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?$/i;

/** A time: also with a blank for the `T`, a small `z`, or without a zone. */
export const dateTime = z
  .string()
  .refine((text) => DATE_TIME.test(text) && !Number.isNaN(Date.parse(text)), 'must match format "date-time"');

/** A scope: printable ASCII and blanks. */
export const scope = z.string().regex(/^[\x20-\x7e]*$/);

/** RFC 3986, with any scheme: no blanks, nothing but ASCII, whole escapes. */
const URI = /^[a-z][a-z0-9+.-]*:(\/\/[^/?#[\]]*(\[[0-9a-f:.]+\][^/?#[\]]*)?(?=[/?#]|$))?[^[\]#]*(#[^[\]#]*)?$/i;
const URI_CHARACTERS = /^([\w\-.~:/?#[\]@!$&'()*+,;=]|%[0-9a-f]{2})+$/i;

export const uri = z.string().refine((text) => URI.test(text) && URI_CHARACTERS.test(text), 'must match format "uri"');

/** No two items alike. */
export function unique(items: readonly string[]): boolean {
  return new Set(items).size === items.length;
}
