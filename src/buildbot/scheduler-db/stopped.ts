/**
 * Which builds somebody stopped. A stock 0.8 has no result for that: it ends them EXCEPTION, and only the build's page
 * tells them from builds that broke.
 */
import type { Logger } from 'pino';
import { LegacyCiError } from '../../errors.ts';
import type { Masters } from './masters.ts';
import type { BuildRow, RequestRow } from './view.ts';
import { isPageOf, type WebStatus, wasInterrupted } from './web-status.ts';

/** A build that ended EXCEPTION. */
export interface Suspect {
  readonly build: BuildRow;
  readonly request: RequestRow;
}

/** Ids of builds. */
export interface Stopped {
  readonly builds: ReadonlySet<number>;
  /** Builds of which it could not be learnt: nothing may be concluded of them yet. */
  readonly unknown: ReadonlySet<number>;
}

/** Buildbot's code of that result. */
export const EXCEPTION = 4;
/** What cannot be read is large, mostly, and will be so the next time. */
const LATER_MS = 300_000;
/** Answers never change; so many are remembered. */
const MAX_ANSWERS = 20_000;

/** Asks each master once about all its builds of a builder, and never twice about a build. */
export function createStoppedReader(
  masters: Masters,
  log: Logger | undefined,
): (suspects: readonly Suspect[]) => Promise<Stopped> {
  const answers = new Map<number, boolean>();
  /** When it is asked again whether a build whose page could not be read was stopped. */
  const later = new Map<number, number>();

  async function ask(master: WebStatus, builder: string, builds: readonly Suspect[]): Promise<void> {
    try {
      const pages = await master.builds(
        builder,
        builds.map(({ build }) => build.number),
      );
      const unread: { readonly number: number; readonly err: LegacyCiError }[] = [];
      for (const { build } of builds) {
        const page = pages.get(build.number);
        if (page instanceof LegacyCiError) {
          unread.push({ number: build.number, err: page });
          later.set(build.id, performance.now() + LATER_MS);
        } else {
          answers.set(build.id, page !== undefined && isPageOf(page, build) && wasInterrupted(page));
        }
      }
      const [first] = unread;
      if (first !== undefined) {
        log?.warn({ builder, count: unread.length, ...first }, 'not learnt whether builds were stopped');
      }
    } catch (error) {
      log?.warn({ builder, count: builds.length, err: error }, 'not learnt whether builds were stopped');
    }
  }

  return async (suspects) => {
    const groups = new Map<WebStatus, Map<string, Suspect[]>>();
    const asked = new Set<number>();
    for (const suspect of suspects) {
      const master = masters.of(suspect.request.claimedBy);
      if (master === undefined || answers.has(suspect.build.id)) {
        continue;
      }
      asked.add(suspect.build.id);
      if (performance.now() >= (later.get(suspect.build.id) ?? 0)) {
        const builders = groups.get(master) ?? new Map<string, Suspect[]>();
        builders.set(suspect.request.builder, [...(builders.get(suspect.request.builder) ?? []), suspect]);
        groups.set(master, builders);
      }
    }
    await Promise.all(
      [...groups].flatMap(([master, builders]) => [...builders].map(([name, builds]) => ask(master, name, builds))),
    );
    const ids = suspects.map(({ build }) => build.id);
    const stopped: Stopped = {
      builds: new Set(ids.filter((id) => answers.get(id) === true)),
      unknown: new Set([...asked].filter((id) => !answers.has(id))),
    };
    forgetOldest(answers);
    forgetOldest(later);
    return stopped;
  };
}

function forgetOldest(known: Map<number, unknown>): void {
  for (const id of known.keys()) {
    if (known.size <= MAX_ANSWERS) {
      return;
    }
    known.delete(id);
  }
}
