/** Which builders there are: from a list at a URL, from the masters' pages, or from what was ever requested. */
import got from 'got';
import type { Logger } from 'pino';
import { z } from 'zod';
import { LegacyCiError, toError } from '../../errors.ts';
import { limited } from '../../foreign-answer.ts';
import { anyRecord } from '../../lists.ts';
import type { Clock, InputCounter } from '../../ports.ts';
import { countIfUnreadable, unreadable } from '../unreadable.ts';
import { type SchedulerDb, unavailable } from './database.ts';
import type { Masters } from './masters.ts';
import type { WebStatus } from './web-status.ts';

export interface BuildersOptions {
  /** Of a list in the form of allthethings.json: the names are the keys of `builders`. */
  readonly url: string | undefined;
  readonly masters: Masters;
  readonly database: SchedulerDb;
  readonly clock: Clock;
  readonly log: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
}

/** A list older than this is read again, in the background. */
const FRESH_MS = 300_000;
/** Whoever asks for a builder that is not known has the list read again, but not more often than this. */
const FORCED_MS = 5000;
const TIMEOUT_MS = 60_000;
/** Mozilla's had 40 MB. */
const MAX_BYTES = 200_000_000;

const list = z.object({ builders: anyRecord });

/**
 * @returns the names; those last read while the source is away
 * @throws (what is returned) LegacyCiError as long as they were never read
 */
export function createBuilders(options: BuildersOptions): (wanted: string) => Promise<ReadonlySet<string>> {
  const { clock, log } = options;
  let known: { readonly names: ReadonlySet<string>; readonly at: number } | undefined;
  let triedAt = Number.NEGATIVE_INFINITY;
  let reading: Promise<ReadonlySet<string>> | undefined;

  function refresh(wanted: string): Promise<ReadonlySet<string>> {
    reading ??= read(wanted).finally(() => {
      reading = undefined;
    });
    return reading;
  }

  async function read(wanted: string): Promise<ReadonlySet<string>> {
    triedAt = clock.uptime();
    const names = await readNames(options, wanted);
    known = { names, at: clock.uptime() };
    return names;
  }

  return async (wanted) => {
    if (known === undefined) {
      return refresh(wanted);
    }
    const mayTry = clock.uptime() - triedAt >= FORCED_MS;
    if (!known.names.has(wanted)) {
      if (!mayTry) {
        // It may have been added since the list was read, a moment ago.
        throw unavailable(`the builder "${wanted}" is not in the list; it is read again in a moment`);
      }
      try {
        return await refresh(wanted);
      } catch (error) {
        // Not "unknown", as long as it is not known which there are.
        throw unavailable('the list of builders could not be read again', error);
      }
    }
    if (clock.uptime() - known.at >= FRESH_MS && mayTry) {
      void refresh(wanted).catch((err: unknown) =>
        log?.warn({ err }, 'list of builders not refreshed; the last one counts'),
      );
    }
    return known.names;
  };
}

async function readNames(
  { url, masters, database, inputs, log }: BuildersOptions,
  wanted: string,
): Promise<ReadonlySet<string>> {
  if (url !== undefined) {
    return readList(url, inputs);
  }
  if (masters.all.length > 0) {
    return namesOfMasters(masters.all, wanted, log);
  }
  // Every spelling: to the database `Release` and `release` are the same, and which of them it answers is chance.
  const names = await database.run(
    'reading the builders',
    (db): Promise<string[]> =>
      db('buildrequests').groupByRaw('CAST(?? AS BINARY), ??', ['buildername', 'buildername']).pluck('buildername'),
  );
  return new Set(names);
}

/**
 * A master that is away must not keep the others' builders from being known.
 * @throws LegacyCiError where one that does not answer may have the builder that is wanted
 */
export async function namesOfMasters(
  masters: readonly Pick<WebStatus, 'builders'>[],
  wanted: string,
  log?: Logger,
): Promise<ReadonlySet<string>> {
  const lists = await Promise.allSettled(masters.map((master) => master.builders()));
  const names = new Set(lists.flatMap((list) => (list.status === 'fulfilled' ? [...list.value] : [])));
  const failures: readonly unknown[] = lists.flatMap((list) => (list.status === 'rejected' ? [list.reason] : []));
  const isMissed = failures.length > 0 && !names.has(wanted);
  for (const err of isMissed ? failures.slice(1) : failures) {
    log?.warn({ err }, 'a master does not say which builders it has');
  }
  if (isMissed) {
    throw unavailable('a master does not say which builders it has', failures[0]);
  }
  return names;
}

async function readList(url: string, inputs: InputCounter | undefined): Promise<ReadonlySet<string>> {
  try {
    const timeout = { connect: 5000, request: TIMEOUT_MS };
    const request = got.get(url, { timeout, retry: { limit: 1 }, followRedirect: false });
    const parsed = list.safeParse(JSON.parse((await limited(request, MAX_BYTES)).body));
    if (!parsed.success) {
      throw unreadable(inputs, 'the list of builders has no "builders"');
    }
    return new Set(Object.keys(parsed.data.builders));
  } catch (error) {
    countIfUnreadable(inputs, error);
    throw error instanceof LegacyCiError
      ? error
      : unavailable(`the list of builders could not be read: ${toError(error).message}`);
  }
}
