/** Artifacts that cannot be uploaded, or not yet. */
import { describe, expect, it } from '@jest/globals';
import pino from 'pino';
import { LegacyCiError, QueueError } from '../../src/errors.ts';
import type { Artifact } from '../../src/ports.ts';
import { BACKING_LOG, LIVE_LOG, uploadOutcome } from '../../src/reflector/upload.ts';
import { aBuild, NOW, requestComplete, TASK_ID } from '../support/builders.ts';
import { aLegacyCi, anEffort, aQueue } from '../support/stubs.ts';

const forGood = new LegacyCiError('legacy-ci-rejected', 'there is no such log');
const forNow = new QueueError('queue-unavailable', 'no answer', { isTransient: true });

/** Uploads an outcome whose log cannot be read; `refuse` says which artifacts the queue cannot take now. */
async function upload(
  refuse: (artifact: Artifact) => boolean,
  isLastTry: boolean,
  refusal: QueueError = forNow,
  unreadable: LegacyCiError = forGood,
): Promise<readonly string[]> {
  const taken: string[] = [];
  const queue = aQueue({
    async putArtifact(_taskId, _runId, artifact) {
      if (refuse(artifact)) {
        throw refusal;
      }
      taken.push(`${artifact.name} ${artifact.kind}`);
    },
  });
  const log = {
    kind: 'stream' as const,
    open: () => Promise.reject(unreadable),
  };
  const ci = aLegacyCi({ outcome: async () => ({ properties: {}, log }) });
  const context = { queue, ci, log: pino({ level: 'silent' }), tempDir: '/nowhere', maxLogSize: 1 };
  const target = { taskId: TASK_ID, runId: 0, builder: 'b', expires: NOW, resolution: { state: 'completed' } as const };
  await uploadOutcome(context, target, requestComplete('SUCCESS', aBuild('SUCCESS')), anEffort(isLastTry));
  return taken;
}

describe('a log that is given up', () => {
  it('leaves an error artifact, and the name that people open leads to it', async () => {
    expect(await upload(() => false, false)).toEqual(
      expect.arrayContaining([`${BACKING_LOG} error`, `${LIVE_LOG} link`]),
    );
  });

  it.each(['error', 'link'])('is tried again when its %s artifact cannot be put now', async (kind) => {
    await expect(upload((artifact) => artifact.kind === kind, false)).rejects.toBe(forNow);
  });

  it.each(['error', 'link'])(
    'is tried again while its %s artifact is forbidden, but not at the last try',
    async (kind) => {
      const forbidden = new QueueError('queue-forbidden', 'InsufficientScopes');
      const isRefused = (artifact: Artifact) => artifact.kind === kind;
      await expect(upload(isRefused, false, forbidden)).rejects.toBe(forbidden);
      expect(await upload(isRefused, true, forbidden)).toHaveLength(3);
    },
  );

  it('still has its name for people where an earlier try left another kind of artifact', async () => {
    const conflict = new QueueError('queue-conflict', 'Artifact already exists with different properties');
    const taken = await upload((artifact) => artifact.name === BACKING_LOG, false, conflict);
    expect(taken).toContain(`${LIVE_LOG} link`);
  });

  it('keeps nothing else from being uploaded at the last try', async () => {
    const taken = await upload((artifact) => artifact.kind === 'link', true);
    expect(taken).toHaveLength(3);
  });
});

it('a log that is forbidden is tried again, but not at the last try', async () => {
  const forbidden = new LegacyCiError('legacy-ci-forbidden', 'logs are not for you');
  await expect(upload(() => false, false, forNow, forbidden)).rejects.toBe(forbidden);
  expect(await upload(() => false, true, forNow, forbidden)).toContain(`${BACKING_LOG} error`);
});
