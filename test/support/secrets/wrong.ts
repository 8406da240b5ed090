/** Configurations of which one secret is wrong: nearly the right one, so that it would be found as well. */
import type { Stage } from './stage.ts';
import { setIn, valueIn } from './tree.ts';

export interface Wrong {
  readonly config: object;
  /** What the bridge says then. */
  readonly says: RegExp;
}

/** The configuration with another secret there: of a URL its password. */
export function changeSecret(config: object, path: readonly string[]): object {
  const old = String(valueIn(config, path));
  return setIn(config, path, URL.canParse(old) ? changePassword(old) : `${old}x`);
}

function changePassword(url: string): string {
  const changed = new URL(url);
  changed.password += 'x';
  return changed.href;
}

export function wrongSecrets({ config, mappings, legacy }: Stage): readonly Wrong[] {
  const wrong = (path: readonly string[], says: RegExp): Wrong => ({ config: changeSecret(config, path), says });
  return [
    ...legacy.wrong.map(({ legacyCi, says }) => ({ config: setIn(config, ['legacyCi'], legacyCi), says })),
    wrong(['pulse', 'url'], /Pulse refuses the user or the password/),
    wrong(['taskcluster', 'credentials', 'accessToken'], /queue-forbidden/),
    ...(mappings.gate === undefined ? [] : [wrong(['database', 'url'], /not there yet; waiting for it/)]),
  ];
}
