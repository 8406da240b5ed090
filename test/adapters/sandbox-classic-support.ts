/** Classic Buildbots on databases of a test's own, and what a client writes into them. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Knex } from 'knex';
import type { z } from 'zod';
import { systemClock } from '../../src/clock.ts';
import { connect } from '../../src/db/connection.ts';
import type { Clock } from '../../src/ports.ts';
import { type ClassicBuildbot, createClassicBuildbot } from '../../src/sandbox/classic/emulator.ts';
import type { BuildMessage, ClassicBuildbotOptions } from '../../src/sandbox/classic/options.ts';
import { createFaults, type Faults } from '../../src/sandbox/faults.ts';
import { eventually } from '../support/eventually.ts';
import { mariadb } from '../support/services/index.ts';

export const MASTER = 'bm1.example.com:/builds/buildbot/master';
/** No poll but those a test asks for. */
export const NEVER_MS = 3_600_000;

/** What a client asks for. */
export interface Injection {
  readonly builder: string;
  readonly task: string;
  readonly branch?: string;
  readonly revision?: string;
  readonly priority?: number;
  readonly reason?: string;
  readonly submittedAt?: number;
  /** As they are written into the database. */
  readonly properties?: Readonly<Record<string, string | undefined>>;
}

export interface Classic extends Omit<ClassicBuildbot, 'stop'> {
  readonly db: Knex;
  readonly databaseUrl: string;
  readonly faults: Faults;
  readonly messages: BuildMessage[];
  /** Answers the request's id. */
  inject(wish: Injection): Promise<number>;
  request(brid: number): Promise<Record<string, unknown>>;
  buildset(brid: number): Promise<Record<string, unknown>>;
  /** Resolves when the request is complete, and what goes with it is written. */
  completed(brid: number): Promise<void>;
  /** Resolves when the request has so many builds. */
  built(brid: number, count?: number): Promise<void>;
  stop(): Promise<void>;
}

/** A master that has started; `stop` ends it, and drops its database unless it was given one. */
export async function startClassic(
  more: Partial<ClassicBuildbotOptions> & Pick<ClassicBuildbotOptions, 'schema' | 'flavour' | 'builders'>,
): Promise<Classic> {
  const database = more.databaseUrl === undefined ? await mariadb().createDatabase() : undefined;
  const databaseUrl = more.databaseUrl ?? database?.url ?? '';
  const faults = createFaults();
  const messages: BuildMessage[] = [];
  const buildbot = createClassicBuildbot({
    clock: systemClock,
    faults,
    masterName: MASTER,
    pollIntervalMs: 100,
    publish: (message) => void messages.push(message),
    ...more,
    databaseUrl,
  });
  await buildbot.start();
  const db = connect(databaseUrl);

  async function request(brid: number): Promise<Record<string, unknown>> {
    return { ...(await buildbot.requests()).find(({ id }) => id === brid) };
  }

  return Object.create(
    buildbot,
    Object.getOwnPropertyDescriptors({
      db,
      databaseUrl,
      faults,
      messages,
      inject: (wish: Injection) => inject(db, more.schema, wish),
      request,
      buildset: async (brid: number) =>
        db('buildsets')
          .where('id', String((await request(brid)).buildsetid))
          .first(),
      async completed(brid: number) {
        await eventually(async () => (await request(brid)).complete === 1, { what: `request ${brid} to be complete` });
        await buildbot.settled();
      },
      async built(brid: number, count = 1) {
        const isThere = async () => (await buildbot.builds()).filter((build) => build.brid === brid).length >= count;
        await eventually(isThere, { what: `build ${count} of request ${brid}` });
      },
      async stop() {
        await buildbot.stop();
        await db.destroy();
        await database?.drop();
      },
    }),
  ) as Classic;
}

/** Writes one request as clients do: what the master looks at comes last. */
export async function inject(db: Knex, schema: 'A' | 'B', wish: Injection): Promise<number> {
  const { builder, task, branch = 'integration/mozilla-inbound', revision = 'abc', priority = 0 } = wish;
  const { reason = `Created by BBB for task ${task}`, submittedAt = Math.floor(Date.now() / 1000) } = wish;
  const results = schema === 'A' ? {} : { results: -1 };
  const insert = async (trx: Knex): Promise<number> => {
    const stamp = { branch, revision, repository: '', project: '' };
    const source =
      schema === 'A'
        ? { sourcestampid: await insertRow(trx, 'sourcestamps', stamp) }
        : { sourcestampsetid: await insertRow(trx, 'sourcestampsets', {}) };
    if (schema === 'B') {
      await insertRow(trx, 'sourcestamps', { ...stamp, codebase: '', ...source });
    }
    const names = { external_idstring: `taskId:${task}`, reason };
    const bsid = await insertRow(trx, 'buildsets', { ...names, ...source, submitted_at: submittedAt, ...results });
    const properties = { taskId: JSON.stringify([task, 'bbb']), product: '["firefox", "bbb"]', ...wish.properties };
    const given = Object.entries(properties).filter(([, value]) => value !== undefined);
    for (const [property_name, property_value] of given) {
      await trx('buildset_properties').insert({ buildsetid: bsid, property_name, property_value });
    }
    const row = { buildsetid: bsid, buildername: builder, priority, submitted_at: submittedAt, ...results };
    return insertRow(trx, 'buildrequests', row);
  };
  return schema === 'A' ? insert(db) : db.transaction(insert);
}

async function insertRow(db: Knex, table: string, row: object): Promise<number> {
  const [id] = await db(table).insert(row);
  return id ?? 0;
}

/** The machine's clock, that can be put forward. */
export function createMovableClock(): Clock & { forward(ms: number): void } {
  let ahead = 0;
  return {
    now: () => systemClock.now() + ahead,
    uptime: systemClock.uptime,
    sleep: systemClock.sleep,
    forward(ms) {
      ahead += ms;
    },
  };
}

export function readFixture<T>(name: string, schema: z.ZodType<T>): T {
  return schema.parse(JSON.parse(readFileSync(path.resolve(import.meta.dirname, '../fixtures', name), 'utf8')));
}
