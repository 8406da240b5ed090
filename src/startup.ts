/** Parts that wait at the start for what they depend on; what a supervisor is told of whether the process goes on. */
import type { Knex } from 'knex';
import type { Logger } from 'pino';
import type { Bridge, Service } from './bridge.ts';
import { systemClock } from './clock.ts';
import { checkSchema } from './db/connection.ts';
import { BridgeError, ConfigError, isTransient } from './errors.ts';
import type { Check } from './http/server.ts';
import type { Part } from './lifecycle.ts';
import type { LegacyCi, MappingStore } from './ports.ts';
import { removeLeftLogs } from './reflector/log-spool.ts';

/** The mapping database: its schema has to be this version's. */
export function databasePart(db: Knex, store: MappingStore, log: Logger): Part {
  return waitingPart('database', log, {
    check: () => checkSchema(db),
    close: () => store.close(),
    isHopeless: (error) => !isTransient(error),
  });
}

/** So long the rest waits for the legacy CI's first answer, which may say that it is not set up for the bridge. */
const FIRST_ANSWER_MS = 3000;

/**
 * The legacy CI. Where it answers in time that it is not set up for the bridge, the start fails; later that is an error in
 * the log, since the rest has begun. Rights that are missing are waited for: whoever stands before Buildbot may refuse
 * everybody for a while, and that is no reason to leave claims alone.
 */
export function legacyCiPart(ci: LegacyCi, log: Logger): Part {
  const waiting = waitingPart('legacy-ci', log, {
    check: () => ci.check(),
    close: () => ci.close(),
    isHopeless: (error) => error instanceof ConfigError || !(error instanceof BridgeError),
  });
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
/** As after a call that is forbidden: a person has to mend it. */
const FORBIDDEN_WAIT_MS = 300_000;

/** A dependency that is away at the start is waited for; one that is wrongly set up ends the start. */
function waitingPart(
  name: string,
  log: Logger,
  {
    check,
    close,
    isHopeless,
  }: { check: () => Promise<void>; close: () => Promise<void>; isHopeless: (error: unknown) => boolean },
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
          if (isHopeless(error)) {
            throw error;
          }
          const level = isTransient(error) ? 'warn' : 'error';
          const retryInMs = isTransient(error) ? wait : FORBIDDEN_WAIT_MS;
          log[level]({ part: name, retryInMs, err: error }, 'not there yet; waiting for it');
          await systemClock.sleep(retryInMs, stopping.signal);
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
