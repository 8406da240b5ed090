/** Properties and log of a build: from the messages that were kept, from its master's pages, or from its buildset. */
import { Readable } from 'node:stream';
import type { Logger } from 'pino';
import type { Build, RequestView } from '../../domain/build.ts';
import { lastBuild } from '../../domain/build.ts';
import { LegacyCiError } from '../../errors.ts';
import { parseJson } from '../../json.ts';
import { excerpt } from '../../log.ts';
import type { InputCounter, Outcome } from '../../ports.ts';
import { answeredProperties } from '../properties.ts';
import { inBatches, type SchedulerDb, unavailable } from './database.ts';
import type { Masters } from './masters.ts';
import type { RequestReader } from './requests.ts';
import { readRows, throwIfBad } from './rows.ts';
import type { Schema } from './schema.ts';
import type { BuildRow } from './view.ts';
import { isPageOf, type WebBuild, type WebStatus } from './web-status.ts';

export interface OutcomeOptions {
  readonly database: SchedulerDb;
  readonly schema: () => Promise<Schema>;
  readonly masters: Masters;
  readonly reader: RequestReader;
  readonly log: Logger | undefined;
  readonly inputs: InputCounter | undefined;
}

const NONE: Outcome = { properties: {}, log: { kind: 'none' } };

/** @throws LegacyCiError, StoreError */
export async function readOutcome(options: OutcomeOptions, view: RequestView): Promise<Outcome> {
  const build = lastBuild(view);
  if (build === undefined) {
    return NONE;
  }
  const { requests, builds, bad } = await readRows(options.database, await options.schema(), [view.buildRequestId]);
  throwIfBad(bad, view.buildRequestId);
  const request = requests.get(view.buildRequestId);
  const row = builds.get(view.buildRequestId)?.find(({ id }) => id === build.buildId);
  if (request === undefined || row === undefined) {
    throw unavailable('the build request has gone from the scheduler database');
  }
  const kept = await options.reader.keptOf(request, row);
  if (kept?.logUrl) {
    return { properties: kept.properties, log: { kind: 'url', url: kept.logUrl } };
  }
  let found: Awaited<ReturnType<typeof findPage>>;
  try {
    found = await findPage(options.masters, kept?.master ?? request.claimedBy, view.builder, row);
  } catch (error) {
    if (!kept?.isFinal) {
      throw error;
    }
    // What is known need not wait for a master that may never be back; its log has to.
    return { properties: kept.properties, log: { kind: 'stream', open: () => Promise.reject(error) } };
  }
  if (found !== undefined) {
    const { master, page } = found;
    return {
      properties: answeredProperties(page.properties, view.buildRequestId, options),
      log: {
        kind: 'stream',
        open: async () => Readable.from(completeLog(master, view, build, page), { objectMode: false }),
      },
    };
  }
  return {
    properties: kept?.properties ?? (await requestedProperties(options, view.buildRequestId)),
    log: { kind: 'none' },
  };
}

/**
 * The build's page. A RETRY gives its claim back, and another master may have the request by now: numbers count per
 * master, so every master is asked that may have built it, and the time of the start tells.
 */
async function findPage(
  masters: Masters,
  name: string | null,
  builder: string,
  row: BuildRow,
): Promise<{ readonly master: WebStatus; readonly page: WebBuild } | undefined> {
  const likely = masters.of(name);
  const others = masters.all.filter((master) => master !== likely);
  for (const master of likely === undefined ? others : [likely, ...others]) {
    const page = (await master.builds(builder, [row.number])).get(row.number);
    if (page instanceof LegacyCiError) {
      throw page;
    }
    if (page !== undefined && isPageOf(page, row)) {
      return { master, page };
    }
  }
  return undefined;
}

/** Those that were asked for, where nothing tells of those that the build has set. */
async function requestedProperties(options: OutcomeOptions, buildRequestId: number): Promise<Outcome['properties']> {
  const { database, log, inputs } = options;
  const rows = await database.run('reading properties', (db) =>
    inBatches(
      [buildRequestId],
      async (ids): Promise<{ name: string; value: string }[]> =>
        db('buildset_properties as p')
          .join('buildrequests as r', 'r.buildsetid', 'p.buildsetid')
          .whereIn('r.id', ids)
          .select('p.property_name as name', 'p.property_value as value'),
    ),
  );
  const found = rows.flatMap(({ name, value }) => {
    const pair = parseJson(value);
    if (!Array.isArray(pair) || pair.length !== 2) {
      inputs?.rejected('legacy-ci-answer');
      log?.warn({ buildRequestId, property: excerpt(name) }, 'property left out: it cannot be read');
      return [];
    }
    return [[name, pair[0], pair[1]] as const];
  });
  return answeredProperties(found, buildRequestId, options);
}

async function* completeLog(
  master: WebStatus,
  view: RequestView,
  build: Build,
  page: WebBuild,
): AsyncGenerator<Buffer> {
  yield Buffer.from(
    `Builder: ${view.builder}\nBuild: ${build.number} (build request ${view.buildRequestId})\nWorker: ${page.slave ?? 'none'}\nState: ${page.text.join(' ')}\n`,
  );
  for (const step of page.steps) {
    yield Buffer.from(`\n=== step ${step.step_number ?? '?'}: ${step.name}: ${step.text.join(' ')}\n`);
    for (const [name, url] of step.logs) {
      yield Buffer.from(`--- log: ${name}\n`);
      yield* master.logText(url ?? master.logOf(view.builder, build.number, step.name, name));
      yield Buffer.from('\n');
    }
  }
}
