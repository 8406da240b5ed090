/** Values out of foreign JSON. Reading them is no trouble, whatever they are; writing them again may be. */

/** Deeper than anything honest; masters, written in Python, get through some nine hundred levels. */
const MAX_DEPTH = 100;
const TOO_DEEP = 'nested too deep to be kept';

/** What a text says as JSON; undefined where it is none. */
export function parseJson(text: string): unknown {
  try {
    return parsePythonJson(text);
  } catch {
    return undefined;
  }
}

/**
 * What a text says as JSON, as Python writes it: with `NaN`, `Infinity` and `-Infinity`, which are null here.
 * (`json.dumps`, of which Buildbot leaves `allow_nan` as it is: a step can set a property to such a number.)
 * @throws SyntaxError
 */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const strict = withoutSpecials(text);
    if (strict === text) {
      throw error;
    }
    return JSON.parse(strict);
  }
}

const SPECIALS = /-?\b(?:NaN|Infinity)\b/g;

/** What stands between strings is changed, and no string. */
function withoutSpecials(text: string): string {
  const parts: string[] = [];
  let at = 0;
  while (at < text.length) {
    const opens = text.indexOf('"', at);
    const end = opens < 0 ? text.length : opens;
    parts.push(text.slice(at, end).replace(SPECIALS, 'null'));
    at = opens < 0 ? end : endOfString(text, opens);
    parts.push(text.slice(end, at));
  }
  return parts.join('');
}

/** @param opens where the string's first quotation mark is @returns where what comes after the string begins */
function endOfString(text: string, opens: number): number {
  for (let at = opens + 1; at < text.length; at += 1) {
    if (text[at] === '\\') {
      at += 1;
    } else if (text[at] === '"') {
      return at + 1;
    }
  }
  return text.length;
}

/** Whether a value out of JSON is nested so deep that it may be read, but not written again, here or in Buildbot. */
export function isTooDeep(value: unknown): boolean {
  let level = [value].filter(isNest);
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth >= MAX_DEPTH) {
      return true;
    }
    level = level.flatMap((one) => Object.values(one).filter(isNest));
  }
  return false;
}

function isNest(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** A value out of JSON as it may be written again: itself, or a text that says why it is not there. */
export function writable(value: unknown): unknown {
  return isTooDeep(value) ? TOO_DEEP : value;
}

/** A value out of JSON as a text. `String` would call a `toString` that the JSON brought along. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(writable(value)) ?? '');
}
