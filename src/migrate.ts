/** `bbb migrate`: brings the database up to date, and takes over what the first bridge had under way. */
import type { Knex } from 'knex';
import { adopt, OUTCOMES, type Outcome } from './adopt/adopt.ts';
import { createSettableClock, systemClock } from './clock.ts';
import { type Config, loadConfig, loadDatabaseUrl } from './config.ts';
import { connect, migrate } from './db/connection.ts';
import { readFirstBridge } from './db/first-bridge.ts';
import { createMappingStore } from './db/mapping-store.ts';
import { ConfigError } from './errors.ts';
import { EXIT } from './lifecycle.ts';
import { queueOf } from './main.ts';
import { plain } from './plain.ts';
import { Secret } from './secret.ts';
import { rulesOf } from './settings.ts';

/** In place of the URL on the command line, which shows in the list of processes. */
export const ADOPT_VARIABLE = 'ADOPT_DATABASE_URL';

export interface MigrateOptions {
  readonly file: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** The first bridge's database; true: the one that the environment names. */
  readonly adopt: string | true | undefined;
  /** Takes one line at a time: whatever is in a task, or in a table of others', it is one. */
  say(line: string): void;
}

/** @returns the exit code */
export async function runMigrate({ file, env, adopt: from, ...options }: MigrateOptions): Promise<number> {
  const say = (line: string) => options.say(plain(line));
  if (from === undefined) {
    return withDatabase(loadDatabaseUrl({ file, env }), (db) => bringUpToDate(db, say));
  }
  const url = adoptUrl(from, env);
  const config = wholeConfig(file, env);
  if (config.legacyCi.kind !== 'scheduler-db') {
    // Its build requests' ids are those of a 0.8: here they would be somebody else's, and could be cancelled.
    throw new ConfigError('--adopt: the first bridge was for Buildbot 0.8, so legacyCi.kind has to be scheduler-db');
  }
  if (isSameDatabase(url.reveal(), config.database.url.reveal())) {
    throw new ConfigError("--adopt names the bridge's own database (database.url): the bridge needs another one");
  }
  const rows = await withDatabase(url, readFirstBridge, {
    name: from === true ? ADOPT_VARIABLE : '--adopt',
    isReadOnly: true,
  });
  return withDatabase(config.database.url, async (db) => {
    await bringUpToDate(db, say);
    const counts = new Map<Outcome, number>();
    const store = createMappingStore(db);
    const clock = createSettableClock(systemClock);
    clock.set(await store.now(), clock.uptime());
    await adopt(rows, {
      queue: queueOf(config, clock),
      store,
      isIgnored: rulesOf(config).isIgnored,
      now: clock.now,
      report(outcome, text) {
        counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
        say(`${outcome}: ${text}`);
      },
    });
    say(`${rows.length} rows: ${OUTCOMES.map((outcome) => `${counts.get(outcome) ?? 0} ${outcome}`).join(', ')}`);
    const isComplete = !counts.has('failed');
    if (!isComplete) {
      say('not everything could be read or written: run this again');
    }
    return isComplete ? EXIT.ok : EXIT.tempFail;
  });
}

async function bringUpToDate(db: Knex, say: (line: string) => void): Promise<number> {
  const applied = await migrate(db);
  for (const name of applied) {
    say(`applied ${name}`);
  }
  say(applied.length === 0 ? 'the database is up to date already' : 'the database is up to date');
  return EXIT.ok;
}

async function withDatabase<T>(
  url: Secret,
  work: (db: Knex) => Promise<T>,
  options?: Parameters<typeof connect>[1],
): Promise<T> {
  const db = connect(url.reveal(), options);
  try {
    return await work(db);
  } finally {
    await db.destroy();
  }
}

function adoptUrl(from: string | true, env: NodeJS.ProcessEnv): Secret {
  const url = from === true ? env[ADOPT_VARIABLE] : from;
  if (url === undefined || url === '') {
    throw new ConfigError(
      `--adopt: name the first bridge's database, as --adopt URL or, not to show it in the list of processes, in the variable ${ADOPT_VARIABLE}`,
    );
  }
  return new Secret(url);
}

function wholeConfig(file: string | undefined, env: NodeJS.ProcessEnv): Config {
  if (file === undefined && (env.BBB_CONFIG ?? '') === '') {
    throw new ConfigError(
      '--adopt asks the Taskcluster queue about every task, so it needs the whole configuration: name the file with --config FILE or in the variable BBB_CONFIG',
    );
  }
  return loadConfig({ file, env });
}

/** As far as the URLs tell, whoever signs in. */
function isSameDatabase(a: string, b: string): boolean {
  const place = (url: string): string => {
    if (!URL.canParse(url) || url.startsWith('sqlite:')) {
      return url;
    }
    const { protocol, hostname, port, pathname } = new URL(url);
    return [protocol.replace('postgresql', 'postgres'), hostname, port, pathname].join('|');
  };
  return place(a) === place(b);
}
