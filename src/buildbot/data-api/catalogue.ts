/** What changes rarely in a master: its ForceScheduler, builders and workers. Read when needed, believed for a while. */
import type { Logger } from 'pino';
import { LegacyCiError } from '../../errors.ts';
import type { Clock, InputCounter } from '../../ports.ts';
import { fieldOf, type Records } from '../records.ts';
import { unreadable } from '../unreadable.ts';
import { buildersAnswer, type ForceSchedulerAnswer, forceSchedulersAnswer, workersAnswer } from './answers.ts';
import type { RestClient } from './rest-client.ts';

/** A builder that was added just now is known this soon. */
const FRESH_MS = 10_000;
/** While the master cannot be asked, its last answer is believed for this long. */
const STALE_MS = 3_600_000;

export interface Catalogue {
  /** @throws LegacyCiError; `legacy-ci-forbidden` if there is no such ForceScheduler: an operator has to mend that */
  forceScheduler(): Promise<ForceSchedulerAnswer>;
  /** The same, just read: nothing is refused for what an operator may have mended. @throws LegacyCiError */
  forceSchedulerNow(): Promise<ForceSchedulerAnswer>;
  /** The ForceScheduler's builders; read again when `wanted` is not among them. @throws LegacyCiError */
  builders(wanted: string): Promise<ReadonlySet<string>>;
  /** Every ForceScheduler that can be read, just read. @throws LegacyCiError, also where this bridge's own cannot */
  forceSchedulers(): Promise<readonly ForceSchedulerAnswer[]>;
  /** Names by id; reads again when one of the ids is not known. */
  builderNames(ids: readonly number[]): Promise<ReadonlyMap<number, string>>;
  workerNames(ids: readonly number[]): Promise<ReadonlyMap<number, string>>;
}

interface Cached<T> {
  readonly value: T;
  readonly at: number;
}

export interface CatalogueContext {
  readonly log?: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
}

/** @param name the ForceScheduler's */
export function createCatalogue(
  rest: RestClient,
  clock: Clock,
  name: string,
  { log, inputs }: CatalogueContext = {},
): Catalogue {
  let schedulers: Cached<readonly ForceSchedulerAnswer[]> | undefined;
  let reading: Promise<readonly ForceSchedulerAnswer[]> | undefined;
  let isSaid = false;
  /** When they could not be read the last time. */
  let failedAt = Number.NEGATIVE_INFINITY;

  async function readSchedulers(): Promise<readonly ForceSchedulerAnswer[]> {
    const { read: value, bad } = (await rest.get('forceschedulers', forceSchedulersAnswer)).forceschedulers;
    const isRead = value.some((scheduler) => scheduler.name === name);
    // It may also be among those that were not looked at.
    const badOwn = bad.find((one) => (one.value === undefined ? !isRead : fieldOf(one.value, 'name') === name));
    if (badOwn) {
      throw unreadable(inputs, `the ForceScheduler "${name}" cannot be read: ${badOwn.reason}`);
    }
    schedulers = { value, at: clock.uptime() };
    return value;
  }

  function forceSchedulers(): Promise<readonly ForceSchedulerAnswer[]> {
    reading ??= readSchedulers().finally(() => {
      reading = undefined;
    });
    return reading;
  }

  async function recentSchedulers(): Promise<readonly ForceSchedulerAnswer[]> {
    const cached = schedulers;
    const now = clock.uptime();
    if (cached && now - Math.max(cached.at, failedAt) < FRESH_MS) {
      return cached.value;
    }
    try {
      return await forceSchedulers();
    } catch (error) {
      if (!cached || now - cached.at >= STALE_MS) {
        throw error;
      }
      // Once for all who waited for this reading, and nobody asks again right away.
      if (failedAt < now) {
        failedAt = clock.uptime();
        log?.warn({ err: error }, 'ForceSchedulers not read again; the last answer counts');
      }
      return cached.value;
    }
  }

  const builderNames = nameCache(async () => {
    const answer = await rest.get('builders', buildersAnswer);
    return readable(answer.builders).map((builder): [number, string] => [builder.builderid, builder.name]);
  });
  const workerNames = nameCache(async () => {
    const answer = await rest.get('workers', workersAnswer);
    return readable(answer.workers).map((worker): [number, string] => [worker.workerid, worker.name]);
  });

  /** What cannot be read has no name: its id stands for it. */
  function readable<T>({ read, bad }: Records<T>): readonly T[] {
    const [first] = bad;
    if (first) {
      inputs?.rejected('legacy-ci-answer');
    }
    if (first && !isSaid) {
      isSaid = true;
      log?.warn({ id: first.owner, reason: first.reason }, 'a builder or worker cannot be read: it has no name here');
    }
    return read;
  }

  function own(all: readonly ForceSchedulerAnswer[]): ForceSchedulerAnswer {
    const found = all.find((scheduler) => scheduler.name === name);
    if (found === undefined) {
      throw new LegacyCiError('legacy-ci-forbidden', `the master has no ForceScheduler "${name}"`);
    }
    return found;
  }

  return {
    forceSchedulers,
    forceScheduler: async () => own(await recentSchedulers()),
    forceSchedulerNow: async () => own(await forceSchedulers()),
    async builders(wanted) {
      const known = new Set(own(await recentSchedulers()).builder_names);
      return known.has(wanted) ? known : new Set(own(await forceSchedulers()).builder_names);
    },
    builderNames,
    workerNames,
  };
}

/** Ids keep their names: they are read again only when one is missing. */
function nameCache(
  read: () => Promise<readonly [number, string][]>,
): (ids: readonly number[]) => Promise<ReadonlyMap<number, string>> {
  let names: ReadonlyMap<number, string> = new Map();
  return async (ids) => {
    if (ids.some((id) => !names.has(id))) {
      names = new Map(await read());
    }
    return names;
  };
}
