/** What the start does where Buildbot's first answer is not what it ought to be. */
import { describe, expect, it } from '@jest/globals';
import pino from 'pino';
import { ConfigError, LegacyCiError } from '../../src/errors.ts';
import { legacyCiPart } from '../../src/startup.ts';
import { aLegacyCi } from '../support/stubs.ts';

/** Starts with this first answer. @returns the levels of what the log says */
async function start(error: Error): Promise<readonly number[]> {
  const levels: number[] = [];
  const log = pino({}, { write: (line: string) => void levels.push(JSON.parse(line).level) });
  const ci = aLegacyCi({ check: () => Promise.reject(error), close: async () => undefined });
  const part = legacyCiPart(ci, log);
  try {
    await part.start();
    return levels;
  } finally {
    await part.stop();
  }
}

describe('the start, where Buildbot', () => {
  it('is not set up for the bridge, fails', async () => {
    await expect(start(new ConfigError('it has no such ForceScheduler'))).rejects.toThrow(ConfigError);
  });

  it('refuses everybody, or what stands before it does, goes on, as claims have to be kept alive', async () => {
    const error = new LegacyCiError('legacy-ci-forbidden', '403');
    expect(await start(error)).toEqual([pino.levels.values.error]);
  });

  it('is away, goes on', async () => {
    const error = new LegacyCiError('legacy-ci-unavailable', '503', { isTransient: true });
    const levels = await start(error);
    expect(levels.length).toBeGreaterThan(0);
    expect(new Set(levels)).toEqual(new Set([pino.levels.values.warn]));
  });
});
