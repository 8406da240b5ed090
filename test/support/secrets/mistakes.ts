/** Configurations that cannot be, with a secret right where the mistake is. */
import { setIn, valueIn } from './tree.ts';

export interface Mistake {
  readonly what: string;
  readonly config: object;
  /** What has to be complained about. */
  readonly keys: readonly string[];
}

/** Every key that can hold a secret. */
const SECRETS = [
  'taskcluster.credentials.accessToken',
  'taskcluster.credentials.certificate',
  'pulse.url',
  'database.url',
  'legacyCi.dataApi.password',
  'legacyCi.schedulerDb.url',
  'legacyCi.schedulerDb.webStatus.password',
];
/** Where a secret must not stand. */
const PLAIN_URLS = [
  'taskcluster.rootUrl',
  'legacyCi.dataApi.url',
  'legacyCi.schedulerDb.webStatus.url',
  'legacyCi.schedulerDb.selfServeUrl',
  'legacyCi.schedulerDb.buildersUrl',
];

const pathOf = (key: string) => key.split('.');

/** @param right a configuration; of one with a SQLite database the URL holds no secret */
export function mistakesIn(right: object): readonly Mistake[] {
  const has = (key: string) => typeof valueIn(right, pathOf(key)) === 'string';
  const secrets = SECRETS.filter(has);
  const urls = secrets.filter((key) => key.endsWith('.url'));
  const secretOf = (key: string) => passwordOf(String(valueIn(right, pathOf(key))));
  const change = (keys: readonly string[], to: (key: string, old: string) => unknown) =>
    keys.reduce((config, key) => setIn(config, pathOf(key), to(key, String(valueIn(config, pathOf(key))))), right);
  const withPassword = urls.filter((key) => secretOf(key) !== '');
  return [
    { what: 'lists', keys: secrets, config: change(secrets, (_, old) => [old]) },
    {
      what: 'other URLs',
      keys: urls,
      config: change(urls, (key) => `http://u:${encodeURIComponent(secretOf(key))}@h/`),
    },
    ...withPassword.map((key) => ({
      what: `${key}, not escaped`,
      keys: [key],
      config: change([key], (_, old) => old.replace(/:[^:]*@/, () => `:${secretOf(key)}@`)),
    })),
    {
      what: 'passwords where they would be shown',
      keys: PLAIN_URLS.filter(has),
      config: change(PLAIN_URLS.filter(has), (_, old) =>
        old.replace('://', `://u:${encodeURIComponent(secretOf('pulse.url'))}@`),
      ),
    },
    ...['taskcluster.credentials.certificate'].filter(has).map((key) => ({
      what: 'half a certificate',
      keys: [key],
      config: change([key], (_, old) => old.slice(0, -2)),
    })),
    ...['legacyCi.dataApi', 'legacyCi.schedulerDb.webStatus']
      .filter((key) => has(`${key}.password`))
      .map((key) => ({
        what: 'a password of nobody',
        keys: [key],
        config: setIn(right, pathOf(`${key}.username`), undefined),
      })),
  ];
}

/** A URL's password, as it was before it was escaped; anything else is one itself. */
function passwordOf(value: string): string {
  return URL.canParse(value) ? decodeURIComponent(new URL(value).password) : value;
}
