/** The legacy CI of Buildbot 0.8: its scheduler database, and what stands around it. */
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import { ConfigError, describeError, LegacyCiError } from '../../errors.ts';
import type { Broker, Clock, InputCounter, KeptBuilds, LegacyCi } from '../../ports.ts';
import { createBuilders } from './builders.ts';
import { checkSignIns, createCanceller } from './cancel.ts';
import { createSchedulerDb } from './database.ts';
import { type EventsOptions, startEvents } from './events.ts';
import { createMasters } from './masters.ts';
import { readOutcome } from './outcome.ts';
import { startPoll } from './poll.ts';
import { createRequestReader } from './requests.ts';
import { checkRights } from './rights.ts';
import { readSchema, type Schema } from './schema.ts';
import { createSelfServe } from './self-serve.ts';
import { submissionProblems } from './submission.ts';
import { submit } from './submit.ts';
import type { WebStatusOptions } from './web-status.ts';

export interface SchedulerDbOptions {
  /** A pool on the scheduler database; closed with the adapter. */
  readonly db: Knex;
  /** Mozilla's build events; without them the database is polled. */
  readonly pulseExchange?: string | undefined;
  readonly selfServeUrl?: string | undefined;
  /** One master's pages, or those of several by the masters' names. */
  readonly webStatus?: WebStatusOptions | Readonly<Record<string, WebStatusOptions>> | undefined;
  readonly pollIntervalMs: number;
  readonly buildersUrl?: string | undefined;
  readonly outcomeWaitMs: number;
  /** How long kept messages stay. */
  readonly retentionMs: number;
  readonly broker: Broker;
  readonly kept: KeptBuilds;
  /** See `EventsOptions`. */
  readonly ownRequests: EventsOptions['ownRequests'];
  /** The build requests of all open mappings. */
  readonly openRequests: () => Promise<readonly number[]>;
  /** Nothing will be written: the right to read is enough. */
  readonly isObserving?: boolean;
  readonly clock: Clock;
  readonly log?: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
}

/** Asks nothing of the database, the masters or Self-serve before the first call. */
export function createSchedulerDbCi(options: SchedulerDbOptions): LegacyCi {
  const { clock, log, inputs } = options;
  const database = createSchedulerDb(options.db, { inputs });
  const masters = createMasters(options.webStatus, { log, inputs });
  const selfServe =
    options.selfServeUrl === undefined ? undefined : createSelfServe(options.selfServeUrl, clock, { inputs });
  const schema = remembered(() => readSchema(database));
  const common = { database, schema, masters, log, inputs };
  const kept = options.pulseExchange === undefined ? undefined : options.kept;
  const reader = createRequestReader({ ...common, kept, outcomeWaitMs: options.outcomeWaitMs });
  const builders = createBuilders({ ...common, url: options.buildersUrl, clock });
  const cancel = createCanceller({ ...common, selfServe });

  async function check(): Promise<void> {
    const canStop = selfServe !== undefined || masters.all.length > 0;
    await checkWrites(await schema(), { cancels: !canStop });
    try {
      await checkSignIns(masters);
    } catch (error) {
      throw new ConfigError(describeError(error), { cause: error });
    }
    if (!canStop) {
      log?.warn(
        'nothing can stop a running build: neither legacyCi.schedulerDb.selfServeUrl nor webStatus is set; builds of canceled tasks go on to their end',
      );
    }
  }

  async function checkWrites(read: Schema, needs: { readonly cancels: boolean }): Promise<void> {
    try {
      await checkRights(database, read, needs);
    } catch (error) {
      if (options.isObserving !== true) {
        throw error;
      }
      log?.warn({ err: error }, 'the scheduler database cannot be written: enough for observing, and for nothing else');
    }
  }

  return {
    check,
    builders,
    problems: async (spec) => submissionProblems(spec, await schema()),
    // 0.8 builds several equal requests at once; it does not give any of them up.
    collapseKey: () => null,
    async submit(spec) {
      const [problem] = submissionProblems(spec, await schema());
      if (problem !== undefined) {
        throw new LegacyCiError('legacy-ci-rejected', `${problem.where}: ${problem.what}; ${problem.mend}`);
      }
      return submit(database, await schema(), spec);
    },
    findByExternalId: reader.findByExternalId,
    readMany: reader.readMany,
    cancel,
    outcome: (request) => readOutcome({ ...common, reader }, request),
    watch: async (listener) =>
      options.pulseExchange === undefined
        ? startPoll({
            ...common,
            ...listener,
            clock,
            openRequests: options.openRequests,
            intervalMs: options.pollIntervalMs,
          })
        : startEvents({
            ...listener,
            ...{
              broker: options.broker,
              exchange: options.pulseExchange,
              kept: options.kept,
              ownRequests: options.ownRequests,
            },
            ...{ clock, log, inputs, retentionMs: options.retentionMs },
          }),
    async close() {
      selfServe?.close();
      for (const master of masters.all) {
        master.close();
      }
      await database.close();
    },
  };
}

/** Read once; again after a failure. */
function remembered(read: () => Promise<Schema>): () => Promise<Schema> {
  let schema: Promise<Schema> | undefined;
  return () => {
    schema ??= read().catch((error: unknown) => {
      schema = undefined;
      throw error;
    });
    return schema;
  };
}
