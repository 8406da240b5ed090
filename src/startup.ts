/** Parts that wait at the start for what they depend on; what a supervisor is told of whether the process goes on. */
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Bridge, Service } from './bridge.ts';
import { systemClock } from './clock.ts';
import { checkSchema } from './db/connection.ts';
import { isTransient } from './errors.ts';
import type { Check } from './http/server.ts';
import type { Part } from './lifecycle.ts';
import type { LegacyCi, MappingStore } from './ports.ts';
import { removeLeftLogs } from './reflector/log-spool.ts';

/** The mapping database: its schema has to be this version's. */
export function databasePart(db: Knex, store: MappingStore, log: Logger): Part {
  return waitingPart('database', log, { check: () => checkSchema(db), close: () => store.close() });
}

/** So long the rest waits for the legacy CI's first answer, which may say that it is not set up for the bridge. */
const FIRST_ANSWER_MS = 3000;

/**
 * The legacy CI. Where it answers in time that it is not set up for the bridge, the start fails; later that is an error in
 * the log, since the rest has begun.
 */
export function legacyCiPart(ci: LegacyCi, log: Logger): Part {
  const waiting = waitingPart('legacy-ci', log, { check: () => ci.check(), close: () => ci.close() });
  return {
    ...waiting,
    async start() {
      let isLate = false;
      const checked = waiting.start().catch((error: unknown) => {
        if (!isLate) {
          throw error;
        }
        log.error({ err: error }, 'the legacy CI is not set up for the bridge');
      });
      // While it is away claims have to be kept alive all the same: the rest starts without it.
      await Promise.race([checked, systemClock.sleep(FIRST_ANSWER_MS)]);
      isLate = true;
    },
  };
}

const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 15_000;

/** A dependency that is away at the start is waited for; one that is wrongly set up ends the start. */
function waitingPart(
  name: string,
  log: Logger,
  { check, close }: { check: () => Promise<void>; close: () => Promise<void> },
): Part {
  const stopping = new AbortController();
  return {
    name,
    async start() {
      for (let wait = FIRST_WAIT_MS; !stopping.signal.aborted; wait = Math.min(MAX_WAIT_MS, wait * 2)) {
        try {
          await check();
          return;
        } catch (error) {
          if (!isTransient(error)) {
            throw error;
          }
          log.warn({ part: name, retryInMs: wait, err: error }, 'not there yet; waiting for it');
          await systemClock.sleep(wait, stopping.signal);
        }
      }
    },
    async stop() {
      stopping.abort();
      await close();
    },
  };
}

/** Where logs are spooled: what processes that were killed have left there is removed first. */
export function spoolPart(tempDir: string, log: Logger): Part {
  return {
    name: 'spool',
    start: () => removeLeftLogs(tempDir, log, systemClock.now()),
    stop: async () => undefined,
  };
}

/** A reflector that has not ended a round for so long is stuck. */
const STUCK_MS = 15 * 60_000;

/** What `/livez` says: a process without a reflector has nothing that can get stuck without a word. */
export function liveChecks(bridge: Bridge, services: readonly Service[]): readonly Check[] {
  if (!services.includes('reflector')) {
    return [];
  }
  const ageMs = bridge.reflector.idleMs();
  return [
    { name: 'reflector', isOk: ageMs < STUCK_MS, detail: `no round has ended for ${Math.round(ageMs / 1000)} s` },
  ];
}
