/** Without Pulse, looks at the bridge's own open build requests again and again, and tells which have changed. */
import type { Logger } from 'pino';
import { toError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import type { SchedulerDb } from './database.ts';
import { readRows } from './rows.ts';
import type { Schema } from './schema.ts';

export interface PollOptions {
  readonly database: SchedulerDb;
  readonly schema: () => Promise<Schema>;
  /** Those of all open mappings. @throws StoreError */
  readonly openRequests: () => Promise<readonly number[]>;
  readonly intervalMs: number;
  readonly onHint: (buildRequestId: number) => void;
  readonly onGap: () => void;
  readonly clock: Clock;
  readonly log: Logger | undefined;
}

/** Polls until stopped; each look takes a fixed number of statements for every few hundred requests. */
export function startPoll(options: PollOptions): { stop(): Promise<void> } {
  const { database, clock, log } = options;
  const stopping = new AbortController();
  /** What was seen of each request at the last look. */
  let before: ReadonlyMap<number, string> | undefined;

  async function look(): Promise<void> {
    const ids = await options.openRequests();
    const { requests, builds, bad } = await readRows(database, await options.schema(), ids);
    const seen = new Map(
      ids.map((id) => {
        const request = requests.get(id);
        const state = [request?.isComplete, request?.results, request?.claimedBy, builds.get(id) ?? [], bad.has(id)];
        return [id, JSON.stringify(state)] as const;
      }),
    );
    if (before === undefined) {
      options.onGap();
    }
    for (const [id, state] of seen) {
      if (before !== undefined && before.get(id) !== state) {
        options.onHint(id);
      }
    }
    before = seen;
  }

  const loop = (async () => {
    while (!stopping.signal.aborted) {
      try {
        await look();
      } catch (error) {
        // What changes meanwhile shows at the next look that succeeds; what was seen before still counts.
        log?.warn({ err: toError(error) }, 'the scheduler database could not be polled');
      }
      await clock.sleep(options.intervalMs, stopping.signal);
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}
