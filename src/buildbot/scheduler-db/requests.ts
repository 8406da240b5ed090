/** Reads build requests: rows of the database, and what only messages or web pages tell of their builds. */
import type { Logger } from 'pino';
import type { RequestView } from '../../domain/build.ts';
import { type FoundNote, type KeptBuild, matchOf } from '../../domain/kept-build.ts';
import { BridgeError, LegacyCiError } from '../../errors.ts';
import type { KeptBuilds, Seen } from '../../ports.ts';
import type { SchedulerDb } from './database.ts';
import type { Masters } from './masters.ts';
import { isSameStart, type OwnedBuild, type Rows, readRows, readSiblings, type Siblings } from './rows.ts';
import type { Schema } from './schema.ts';
import { createStoppedReader, EXCEPTION, type Stopped, type Suspect } from './stopped.ts';
import { findRequest, LONGEST_TASK_S } from './submit.ts';
import { type BuildRow, type RequestRow, STALE_CLAIM_S, toView } from './view.ts';

export interface RequestReaderOptions {
  readonly database: SchedulerDb;
  readonly schema: () => Promise<Schema>;
  readonly masters: Masters;
  /** Undefined where no messages come. */
  readonly kept: KeptBuilds | undefined;
  /** How long after a build's end its messages are waited for. */
  readonly outcomeWaitMs: number;
  readonly log: Logger | undefined;
}

/** The first two as in `LegacyCi`: neither throws. */
export interface RequestReader {
  readMany(ids: readonly number[]): Promise<ReadonlyMap<number, Seen<RequestView>>>;
  findByExternalId(spec: {
    readonly taskId: string;
    readonly externalId: string;
    readonly deadline: number;
  }): Promise<Seen<RequestView>>;
  /** What was kept of a build of a request. @throws StoreError */
  keptOf(request: RequestRow, build: BuildRow): Promise<KeptBuild | undefined>;
}

/** So long a master's page is waited for that says whether a build was stopped, if there is the time; then it was not. Seconds. */
const STOPPED_WAIT_S = 3600;
/** Of requests whose claims were said to be stale; far more than are at a time. */
const MAX_WARNED = 10_000;

/** What is known beside the rows. */
interface Beside {
  readonly schema: Schema['kind'];
  readonly siblings: Siblings;
  readonly messages: readonly FoundNote[];
  readonly stopped: Stopped;
}

export function createRequestReader(options: RequestReaderOptions): RequestReader {
  const { database, masters, kept, log } = options;
  const stoppedOf = createStoppedReader(masters, log);
  const warned = new Set<number>();

  async function readMany(ids: readonly number[]): Promise<ReadonlyMap<number, Seen<RequestView>>> {
    if (ids.length === 0) {
      return new Map();
    }
    try {
      const schema = await options.schema();
      const rows = await readRows(database, schema, ids);
      const siblings = await readSiblings(database, schema, lastBuilds(rows));
      const [messages, stopped] = await Promise.all([readKept(rows, siblings), stoppedOf(suspects(rows))]);
      return new Map(ids.map((id) => [id, seenOf(id, rows, { schema: schema.kind, siblings, messages, stopped })]));
    } catch (error) {
      const unreadable = { kind: 'unreadable', error: asBridgeError(error) } as const;
      return new Map(ids.map((id) => [id, unreadable]));
    }
  }

  /** Of every request, and of those that share a build: messages are kept for some of these only. */
  async function readKept(rows: Rows, siblings: Siblings): Promise<readonly FoundNote[]> {
    const merged = [...siblings.of.values()].flatMap((builds) => builds.map(({ brid }) => brid));
    return kept ? kept.of([...new Set([...rows.requests.keys(), ...merged])]) : [];
  }

  function seenOf(id: number, rows: Rows, { schema, siblings, messages, stopped }: Beside): Seen<RequestView> {
    const request = rows.requests.get(id);
    const builds = rows.builds.get(id) ?? [];
    const last = builds.at(-1);
    // A build that cannot be seen to serve others would be cancelled for all of them.
    const error = rows.bad.get(id) ?? siblings.bad.get(last?.id ?? -1);
    if (error !== undefined) {
      return { kind: 'unreadable', error };
    }
    if (request === undefined) {
      return { kind: 'absent' };
    }
    const isRecent = rows.now - (request.completeAt ?? rows.now) < STOPPED_WAIT_S;
    warnIfStale(request, builds, rows.now);
    const merged = siblings.of.get(last?.id ?? -1) ?? [];
    const value = toView({
      request,
      schema,
      builds,
      sharedWith: merged.filter(({ finishTime }) => finishTime === null).map(({ brid }) => brid),
      extra: (build) => {
        const others = merged.filter((one) => sameBuild(one, build));
        const message = keptFor([build, ...others], messages);
        // Whoever has the request now need not be who had it before.
        const owner = message?.master ?? (build === last ? request.claimedBy : null);
        const page = masters.of(owner)?.pageOf(request.builder, build.number);
        return {
          isFinal: message?.isFinal ?? false,
          wasStopped: stopped.builds.has(build.id),
          mayBeStopped: stopped.unknown.has(build.id) && isRecent,
          ...(message?.worker ? { worker: message.worker } : {}),
          ...(page === undefined ? {} : { url: page }),
        };
      },
      now: rows.now,
      outcomeWait: kept ? options.outcomeWaitMs / 1000 : 0,
    });
    return { kind: 'present', value };
  }

  /** Of the new schema nobody ever takes over a dead master's claims: a person has to. */
  function warnIfStale(request: RequestRow, builds: readonly BuildRow[], now: number): void {
    const { id, builder, isComplete, claimedAt, claimedBy } = request;
    const isStale = !isComplete && claimedAt !== null && now - claimedAt > STALE_CLAIM_S && builds.length > 0;
    if (isStale && !warned.has(id) && warned.size < MAX_WARNED) {
      warned.add(id);
      const fields = { buildRequestId: id, builder, master: claimedBy, claimedForS: now - claimedAt };
      log?.warn(fields, 'a claim was not refreshed for over an hour: its master is dead, or its clock is wrong');
    }
  }

  async function findByExternalId(spec: {
    readonly taskId: string;
    readonly externalId: string;
    readonly deadline: number;
  }): Promise<Seen<RequestView>> {
    try {
      const since = Math.floor(spec.deadline / 1000) - LONGEST_TASK_S;
      const id = await database.run('looking for a build request', (db) =>
        findRequest(db, spec.taskId, spec.externalId, since),
      );
      const seen = id === undefined ? undefined : (await readMany([id])).get(id);
      return seen ?? { kind: 'absent' };
    } catch (error) {
      return { kind: 'unreadable', error: asBridgeError(error) };
    }
  }

  async function keptOf(request: RequestRow, build: BuildRow): Promise<KeptBuild | undefined> {
    const { builder, claimedBy } = request;
    const siblings = await readSiblings(database, await options.schema(), [{ ...build, builder, claimedBy }]);
    const merged = siblings.of.get(build.id) ?? [];
    let messages = kept ? await kept.of([request.id, ...merged.map(({ brid }) => brid)]) : [];
    for (;;) {
      const found = keptFor([build, ...merged], messages);
      const whole = found && (await kept?.whole(found.id));
      if (found === undefined || whole !== undefined) {
        return whole;
      }
      // One that cannot be read is as good as none.
      messages = messages.filter(({ id }) => id !== found.id);
    }
  }

  return { readMany, findByExternalId, keptOf };
}

/**
 * Messages are kept for those requests of a build that are the bridge's, as far as it knows by then, and that they name: the
 * last one of a build may be kept for others of them than the one before.
 * @param rows of one build
 */
function keptFor(rows: readonly BuildRow[], messages: readonly FoundNote[]): FoundNote | undefined {
  const found = rows.flatMap((row) => matchOf(row, messages) ?? []);
  return found.find(({ isFinal }) => isFinal) ?? found[0];
}

function sameBuild(a: BuildRow, b: BuildRow): boolean {
  return a.number === b.number && isSameStart(a, b);
}

function asBridgeError(error: unknown): BridgeError {
  return error instanceof BridgeError
    ? error
    : new LegacyCiError('legacy-ci-protocol', 'rows of the scheduler database are not what Buildbot writes', {
        cause: error,
        isTransient: true,
      });
}

/** The newest build of each request, with its builder. */
function lastBuilds({ requests, builds }: Rows): readonly OwnedBuild[] {
  return [...requests.values()].flatMap(({ id, builder, claimedBy }) => {
    const last = builds.get(id)?.at(-1);
    return last === undefined ? [] : [{ ...last, builder, claimedBy }];
  });
}

/** Builds that ended EXCEPTION: on a stock master somebody may have stopped them. */
function suspects({ requests, builds }: Rows): readonly Suspect[] {
  return [...requests.values()].flatMap((request) => {
    const last = builds.get(request.id)?.at(-1);
    const isSuspect = request.isComplete && request.results === EXCEPTION && last !== undefined;
    return isSuspect ? [{ build: last, request }] : [];
  });
}
