/** Secrets that cannot be mistaken for anything else, and the search for them. */
import { randomBytes } from 'node:crypto';

/** What URLs, forms, SQL, JSON, YAML and shells escape. */
const AWKWARD = '@:/?#%&+=; "\'\\<é$';

export interface Planted {
  readonly name: string;
  readonly value: string;
  /** A part of it that nothing else has, and nothing escapes. */
  readonly mark: string;
}

/** A secret of random letters, and with everything that is escaped somewhere. */
export function plant(name: string): Planted {
  const mark = randomBytes(9).toString('hex');
  return { name, value: `${name}-${mark}${AWKWARD}`, mark };
}

export interface Leak {
  readonly where: string;
  readonly secret: string;
  readonly as: string;
  readonly around: string;
}

/** Where the secrets show, as they are or in disguise; the disguises would be found in the longer texts around them, too. */
export function leaksIn(texts: Readonly<Record<string, string>>, secrets: readonly Planted[]): readonly Leak[] {
  return Object.entries(texts).flatMap(([where, text]) =>
    secrets.flatMap((secret) =>
      Object.entries(disguises(secret)).flatMap(([as, form]) => {
        const at = text.indexOf(form);
        return at < 0 ? [] : [{ where, secret: secret.name, as, around: text.slice(Math.max(0, at - 200), at + 100) }];
      }),
    ),
  );
}

function disguises({ value, mark }: Planted): Readonly<Record<string, string>> {
  return {
    'its mark': mark,
    'what URLs make of it': encodeURIComponent(value),
    'what JSON makes of it': JSON.stringify(value).slice(1, -1),
    hexadecimal: Buffer.from(mark).toString('hex'),
    ...Object.fromEntries([0, 1, 2].map((shift) => [`base64, ${shift} behind`, base64Within(mark, shift)])),
    'base64 of all': base64Within(value, 0),
    'base64url of all': base64Within(value, 0).replaceAll('+', '-').replaceAll('/', '_'),
  };
}

/** What base64 makes of a text, `shift` bytes behind a multiple of three, whatever stands before and behind it. */
function base64Within(text: string, shift: number): string {
  const bytes = Buffer.concat([Buffer.alloc(shift), Buffer.from(text)]);
  // The characters at either end also depend on the neighbours.
  return bytes.toString('base64').slice(shift === 0 ? 0 : shift + 1, Math.floor((bytes.length * 8) / 6));
}
