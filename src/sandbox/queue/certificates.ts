/** Temporary credentials: a certificate in Hawk's `ext`, made without auth by whoever has the access token of a client. */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { satisfiesExpression } from 'taskcluster-lib-scopes';
import { z } from 'zod';
import { scope } from './formats.ts';

const SLACK_MS = 5 * 60_000;
const LONGEST_MS = 31 * 24 * 3_600_000;

const certificateSchema = z.object({
  version: z.literal(1),
  seed: z.string().length(44),
  start: z.number(),
  expiry: z.number(),
  scopes: z.array(scope),
  signature: z.string(),
  /** Whose access token signed it, where the credentials have a name of their own. */
  issuer: z.string().optional(),
});
/** What limits temporary credentials; times are UTC milliseconds. */
export type Certificate = z.infer<typeof certificateSchema>;

const extSchema = z.object({ certificate: z.unknown().optional(), authorizedScopes: z.array(scope).optional() });

/** What a request says of its own rights. */
export interface Ext {
  readonly certificate?: Certificate;
  readonly authorizedScopes?: readonly string[];
}

/** Throws, in words for the caller, if it is not one. */
export function parseExt(text: string | undefined): Ext {
  if (!text) {
    return {};
  }
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(text, 'base64').toString('utf8'));
  } catch {
    throw new Error('Failed to parse ext');
  }
  const ext = extSchema.safeParse(json);
  if (!ext.success) {
    throw new Error('ext.authorizedScopes must be an array of valid scopes');
  }
  const { certificate, authorizedScopes } = ext.data;
  return {
    ...(certificate === undefined ? {} : { certificate: parseCertificate(certificate) }),
    ...(authorizedScopes === undefined ? {} : { authorizedScopes }),
  };
}

function parseCertificate(value: unknown): Certificate {
  const parsed = certificateSchema.safeParse(value);
  if (parsed.success) {
    return parsed.data;
  }
  const [issue] = parsed.error.issues;
  throw new Error(`ext.certificate${issue?.path.map((part) => `.${String(part)}`).join('')} ${issue?.message}`);
}

function signatureOf(certificate: Certificate, clientId: string, accessToken: string): string {
  const { version, seed, start, expiry, scopes, issuer } = certificate;
  const named = issuer === undefined ? [] : [`clientId:${clientId}`, `issuer:${issuer}`];
  const lines = [`version:${version}`, ...named, `seed:${seed}`, `start:${start}`, `expiry:${expiry}`, 'scopes:'];
  return createHmac('sha256', accessToken)
    .update([...lines, ...scopes].join('\n'))
    .digest('base64');
}

function isSame(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}

/**
 * Checks a certificate. Throws, in words for the caller, if it does not hold.
 * @param clientId by which the credentials go
 * @param issuer whose token signed it, with its expanded scopes
 * @param now UTC milliseconds; there are five minutes of slack
 * @returns the access token of the temporary credentials
 */
export function checkCertificate(
  certificate: Certificate,
  clientId: string,
  issuer: { readonly clientId: string; readonly accessToken: string; readonly scopes: readonly string[] },
  now: number,
): string {
  const { start, expiry, scopes, signature } = certificate;
  const isAllowed = (needed: readonly string[]) => satisfiesExpression([...issuer.scopes], { AllOf: [...needed] });
  const createScope = `auth:create-client:${clientId}`;
  const rules: readonly (readonly [boolean, string])[] = [
    [certificate.issuer === clientId, 'ext.certificate.issuer must differ from the supplied clientId'],
    [start > now + SLACK_MS, 'ext.certificate.start > now'],
    [expiry < now - SLACK_MS, 'ext.certificate.expiry < now'],
    [expiry - start > LONGEST_MS, 'ext.certificate cannot last longer than 31 days!'],
    [
      issuer.clientId !== clientId && !isAllowed([createScope]),
      `ext.certificate issuer \`${issuer.clientId}\` doesn't have \`${createScope}\` for supplied clientId.`,
    ],
    [
      !isAllowed(scopes),
      `ext.certificate issuer \`${issuer.clientId}\` doesn't satisfy all certificate scopes ${scopes.join(', ')}.`,
    ],
    [
      !isSame(signature, signatureOf(certificate, clientId, issuer.accessToken)),
      'ext.certificate.signature is not valid',
    ],
  ];
  const broken = rules.find(([isBroken]) => isBroken);
  if (broken) {
    throw new Error(broken[1]);
  }
  return createHmac('sha256', issuer.accessToken).update(certificate.seed).digest('base64url');
}
