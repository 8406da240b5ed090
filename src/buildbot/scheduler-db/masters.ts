/** The web pages of the masters that share a scheduler database: whoever has a build is asked about it. */
import { createWebStatus, type WebStatus, type WebStatusContext, type WebStatusOptions } from './web-status.ts';

export interface Masters {
  /** The master of this name (`<host>:<absolute basedir>`); where only one is configured, that one. */
  of(master: string | null): WebStatus | undefined;
  readonly all: readonly WebStatus[];
}

/** @param options one master's, or those of several by the masters' names */
export function createMasters(
  options: WebStatusOptions | Readonly<Record<string, WebStatusOptions>> | undefined,
  context: WebStatusContext = {},
): Masters {
  if (options === undefined) {
    return { of: () => undefined, all: [] };
  }
  if (isOne(options)) {
    const only = createWebStatus(options, context);
    return { of: () => only, all: [only] };
  }
  const byName = new Map(Object.entries(options).map(([name, one]) => [name, createWebStatus(one, context)] as const));
  return { of: (master) => (master === null ? undefined : byName.get(master)), all: [...byName.values()] };
}

function isOne(options: WebStatusOptions | Readonly<Record<string, WebStatusOptions>>): options is WebStatusOptions {
  return typeof options.url === 'string';
}
