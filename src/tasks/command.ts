/** `bbb tasks`: what the bridge has under way, and what it did about one task. Reads the database, and changes nothing. */
import { loadDatabaseUrl } from '../config.ts';
import { checkSchema, connect } from '../db/connection.ts';
import { createMappingStore } from '../db/mapping-store.ts';
import type { OpenState } from '../domain/mapping.ts';
import { EXIT } from '../lifecycle.ts';
import type { MappingStore } from '../ports.ts';
import { showJson, showList, showTask } from './show.ts';

export const DEFAULT_LIMIT = 100;
/** More would be no list for people, and a burden on the database. */
export const MAX_LIMIT = 10_000;

/** What could not even be admitted is listed for so long. */
const NOT_ADMITTED_MS = 24 * 3_600_000;

export interface TasksOptions {
  readonly file: string | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** One task, with its trace; without it all open mappings. */
  readonly taskId: string | undefined;
  readonly state: OpenState | undefined;
  readonly isFailing: boolean;
  readonly limit: number;
  readonly isJson: boolean;
  /** Takes one line at a time. */
  say(line: string): void;
  /** The same, for what is no part of the list. */
  note(line: string): void;
}

/**
 * @returns the exit code
 * @throws ConfigError, or StoreError if the database cannot be read
 */
export async function runTasks(options: TasksOptions): Promise<number> {
  const url = loadDatabaseUrl(options).reveal();
  // Read-only: a file that is not there is not made.
  const db = connect(url, { isReadOnly: true });
  try {
    await checkSchema(db);
    const store = createMappingStore(db);
    return await (options.taskId === undefined ? listOpen(store, options) : showOne(store, options.taskId, options));
  } finally {
    await db.destroy();
  }
}

async function listOpen(store: MappingStore, options: TasksOptions): Promise<number> {
  const { state, isFailing, limit, isJson } = options;
  const listed = await store.list({ state, isFailing, limit: limit + 1 });
  const now = await store.now();
  const shown = cut(listed, 'mappings', options);
  const events = state === undefined ? await store.notAdmitted(now - NOT_ADMITTED_MS, limit + 1) : [];
  const refused = cut(events, 'tasks that could not be admitted', options);
  if (shown.length === 0 && refused.length === 0) {
    options.note('no such mapping is open');
  } else {
    (isJson ? showJson(shown, refused) : showList(shown, now, refused)).forEach(options.say);
  }
  return EXIT.ok;
}

async function showOne(store: MappingStore, taskId: string, options: TasksOptions): Promise<number> {
  const { limit, isJson } = options;
  const [listed, events] = [await store.list({ taskId, limit: limit + 1 }), await store.eventsOf(taskId, limit + 1)];
  if (listed.length === 0 && events.length === 0) {
    options.note(`there is nothing of task ${taskId} in the database: it never came, or retention is over`);
    return EXIT.noInput;
  }
  const shown = cut(listed, 'mappings', options);
  // The last ones are the news.
  const trace = cut([...events].reverse(), 'lines of its trace', options).reverse();
  (isJson ? showJson(shown, trace) : showTask(shown, trace)).forEach(options.say);
  return EXIT.ok;
}

/** As many as were asked for; one more was read, to know whether there are more. */
function cut<T>(all: readonly T[], what: string, { limit, note }: TasksOptions): T[] {
  if (all.length > limit) {
    note(`there are more than these ${limit} ${what}: --limit shows more`);
  }
  return all.slice(0, limit);
}
