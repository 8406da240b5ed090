/** TLS as a database's URL asks for it: whoever asks for it gets a server that is the one of the URL, or none. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { ConfigError, codeOf } from '../errors.ts';
import { parseJson } from '../json.ts';
import { excerpt } from '../log.ts';

/** Of mysql2's own options, those that take nothing away. */
const mysqlOptions = z.strictObject({
  ca: z.string().optional(),
  cert: z.string().optional(),
  key: z.string().optional(),
  passphrase: z.string().optional(),
  minVersion: z.enum(['TLSv1.2', 'TLSv1.3']).optional(),
  rejectUnauthorized: z.literal(true).optional(),
  verifyIdentity: z.literal(true).optional(),
});
export type MysqlTls = z.infer<typeof mysqlOptions>;

const MYSQL_WANTED =
  'expected ssl=true, or ssl= and a JSON object with some of ca, cert, key, passphrase and minVersion (certificates as texts)';

/**
 * mysql2 by itself would take a certificate of any host's.
 * @returns mysql2's `ssl`; undefined where the URL does not ask for TLS @throws ConfigError, without the URL
 */
export function mysqlTls(url: string, name: string): MysqlTls | undefined {
  const { searchParams } = new URL(url);
  const unknown = misspelt(searchParams, ['ssl']);
  if (unknown !== undefined) {
    throw new ConfigError(`${name}: MySQL's driver has no option ${unknown}: ${MYSQL_WANTED}`);
  }
  const [given, ...more] = searchParams.getAll('ssl');
  if (given === undefined || (given === 'false' && more.length === 0)) {
    return undefined;
  }
  const parsed = given === 'true' ? ({ success: true, data: {} } as const) : mysqlOptions.safeParse(parseJson(given));
  if (!parsed.success || more.length > 0) {
    throw new ConfigError(`${name}: ${MYSQL_WANTED}; a server that is not verified is none to trust`);
  }
  return { ...parsed.data, rejectUnauthorized: true, verifyIdentity: true };
}

const SSL = ['true', '1', 'false', '0'];
const SSL_MODES = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full'];

/** pg reads them whenever it connects. */
const FILES = ['sslrootcert', 'sslcert', 'sslkey'];

/** Those of pg's that have to do with TLS. */
const POSTGRES_OPTIONS = [...['ssl', 'sslmode', 'uselibpqcompat', 'sslnegotiation'], ...FILES];
const POSTGRES_WANTED = 'expected ssl=true or sslmode=verify-full (and sslrootcert=FILE), without uselibpqcompat';

/** The drivers pass over what they do not know: whoever asks for TLS in another's words would have none. */
function misspelt(parameters: URLSearchParams, known: readonly string[]): string | undefined {
  const key = [...parameters.keys()].find((one) => /ssl|tls/i.test(one) && !known.includes(one));
  return key === undefined ? undefined : excerpt(key, 40);
}

/** pg verifies certificate and host in every mode but those that are refused here. @throws ConfigError, without the URL */
export function checkPostgresTls(url: string, name: string): void {
  const { searchParams } = new URL(url);
  const unknown = misspelt(searchParams, POSTGRES_OPTIONS);
  if (unknown !== undefined) {
    throw new ConfigError(`${name}: PostgreSQL's driver has no option ${unknown}: ${POSTGRES_WANTED}`);
  }
  const isWrong = (key: string, values: readonly string[]) =>
    searchParams.getAll(key).some((one) => !values.includes(one));
  if (isWrong('ssl', SSL) || isWrong('sslmode', SSL_MODES) || isWrong('uselibpqcompat', ['false'])) {
    throw new ConfigError(`${name}: ${POSTGRES_WANTED}; a server that is not verified is none to trust`);
  }
  for (const key of FILES) {
    for (const file of searchParams.getAll(key).filter((one) => one !== '')) {
      checkReadable(file, key, name);
    }
  }
}

function checkReadable(file: string, key: string, name: string): void {
  try {
    readFileSync(file);
  } catch (error) {
    throw new ConfigError(
      `${name}: the file of ${key}, ${file}, cannot be read (${codeOf(error)}): correct its name, or let the bridge read it`,
      { cause: error },
    );
  }
}
