/** Where a configuration comes from: the file, and the environment that wins over it. */
import { readFileSync } from 'node:fs';
import { LineCounter, parseDocument } from 'yaml';
import { ConfigError, codeOf } from '../errors.ts';

/** Where each environment variable goes. */
export const ENVIRONMENT: Readonly<Record<string, readonly string[]>> = {
  TASKCLUSTER_ROOT_URL: ['taskcluster', 'rootUrl'],
  TASKCLUSTER_CLIENT_ID: ['taskcluster', 'credentials', 'clientId'],
  TASKCLUSTER_ACCESS_TOKEN: ['taskcluster', 'credentials', 'accessToken'],
  TASKCLUSTER_CERTIFICATE: ['taskcluster', 'credentials', 'certificate'],
  PULSE_URL: ['pulse', 'url'],
  DATABASE_URL: ['database', 'url'],
  BUILDBOT_USERNAME: ['legacyCi', 'dataApi', 'username'],
  BUILDBOT_PASSWORD: ['legacyCi', 'dataApi', 'password'],
  SCHEDULER_DB_URL: ['legacyCi', 'schedulerDb', 'url'],
  WEB_STATUS_USERNAME: ['legacyCi', 'schedulerDb', 'webStatus', 'username'],
  WEB_STATUS_PASSWORD: ['legacyCi', 'schedulerDb', 'webStatus', 'password'],
};

/** What comes after the first ones mostly follows from them. */
const MAX_PROBLEMS = 20;
/** The parser calls itself for each level; where the stack ends in a regular expression, the process would, too. */
const TOO_DEEP = /(?:[[{]\s*|-\s+){100}/;

const WHY_NOT_READ: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'the bridge has no right to',
  EISDIR: 'it is a folder',
};

/** @throws ConfigError that shows nothing of the file, which may hold secrets */
export function readYaml(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = codeOf(error);
    throw new ConfigError(`${path} could not be read: ${WHY_NOT_READ[code] ?? code}`, { cause: error });
  }
  const lineCounter = new LineCounter();
  if (TOO_DEEP.test(text)) {
    throw new ConfigError(`${path} is not YAML that a person has written: it goes too deep`);
  }
  const document = parseDocument(text, { lineCounter, prettyErrors: false });
  const problems = [...document.errors, ...document.warnings].slice(0, MAX_PROBLEMS).map((error) => {
    const { line, col } = lineCounter.linePos(error.pos[0]);
    // What follows a colon is the text at fault.
    return `  - line ${line}, column ${col}: ${error.message.split(': ')[0]}`;
  });
  if (problems.length > 0) {
    throw new ConfigError(`${path} is not YAML:\n${problems.join('\n')}`);
  }
  try {
    return document.toJS() ?? {};
  } catch {
    throw new ConfigError(`${path} is not YAML: an alias has no anchor, or there are too many of them`);
  }
}

/** Variables with which Node.js and PostgreSQL's driver would take any certificate. */
const UNVERIFIED: Readonly<Record<string, string>> = { NODE_TLS_REJECT_UNAUTHORIZED: '0', PGSSLMODE: 'no-verify' };

/**
 * What was given, with the variables of the environment put in their places; empty ones do not count.
 * @throws ConfigError where the environment switches the verification of certificates off
 */
export function withEnvironment(given: unknown, env: NodeJS.ProcessEnv): unknown {
  for (const [variable, value] of Object.entries(UNVERIFIED)) {
    if (env[variable] === value) {
      throw new ConfigError(
        `${variable}=${value} switches the verification of certificates off: unset it, and name an authority of your own in NODE_EXTRA_CA_CERTS`,
      );
    }
  }
  let merged = given;
  for (const [variable, keys] of Object.entries(ENVIRONMENT)) {
    const value = env[variable];
    if (value !== undefined && value !== '' && !isOfTheOther(merged, keys)) {
      merged = withValue(merged, keys, value);
    }
  }
  return merged;
}

/** The legacy CI that is not in use may have its variables set; where it has no section, none is made for their sake. */
function isOfTheOther(given: unknown, [section, part]: readonly string[]): boolean {
  const { legacyCi }: { legacyCi?: unknown } = Object(given);
  const { kind }: { kind?: unknown } = Object(legacyCi);
  const isOther = section === 'legacyCi' && part === (kind === 'scheduler-db' ? 'dataApi' : 'schedulerDb');
  return isOther && Reflect.get(Object(legacyCi), part) === undefined;
}

function withValue(given: unknown, [key, ...rest]: readonly string[], value: string): unknown {
  if (key === undefined) {
    return value;
  }
  if (given !== undefined && given !== null && (typeof given !== 'object' || Array.isArray(given))) {
    return given;
  }
  const object: Record<string, unknown> = { ...given };
  return { ...object, [key]: withValue(object[key], rest, value) };
}
