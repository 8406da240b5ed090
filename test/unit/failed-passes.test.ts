/** Passes that fail again and again, as while something is away for hours: what they must not use up, or let run out. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { LegacyCiError, QueueError } from '../../src/errors.ts';
import type { Seen } from '../../src/ports.ts';
import { aBuild, aRequest, MINUTE, POLICY, requestBuilding, requestComplete } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { type Passes, startPasses } from '../support/passes.ts';
import { clientOf } from '../support/queue-client.ts';

let passes: Passes;
afterEach(() => passes.stop());

const away = () => new LegacyCiError('legacy-ci-unavailable', 'away', { isTransient: true });
const runsOf = (taskId: string) => passes.queue.emulator.tasks.get(taskId)?.status.runs;

const LEASE = { owner: 'another', limit: 1 };

/** Of every build request. */
function seen(request: Seen<ReturnType<typeof aRequest>>) {
  return async (ids: readonly number[]) =>
    new Map(ids.map((id) => [id, request.kind === 'present' ? { ...request } : request]));
}

/** Passes, a minute after the other; the queue does what is due meanwhile. */
async function passFor(minutes: number, taskId: string): Promise<void> {
  for (let minute = 0; minute < minutes; minute += 1) {
    passes.queue.clock.advance(MINUTE);
    passes.queue.emulator.tick();
    await passes.reconciler.reconcile(taskId);
  }
}

/** Passes, each when the one before it said. */
async function passWhenDue(taskId: string, untilMs: number): Promise<void> {
  const { clock, emulator } = passes.queue;
  for (const end = clock.now() + untilMs; clock.now() < end; ) {
    await passes.reconciler.reconcile(taskId);
    const { nextCheckAt = 0 } = (await passes.store.openMapping(taskId)) ?? {};
    clock.set(Math.max(clock.now() + 1000, nextCheckAt));
    emulator.tick();
  }
}

describe('while Buildbot is away', () => {
  it('the claim of a run whose request is to be made anew is renewed', async () => {
    let isAway = false;
    const whileThere = <T>(answer: () => T) => {
      if (isAway) {
        throw away();
      }
      return answer();
    };
    passes = await startPasses(
      {},
      {
        builders: async (wanted) => whileThere(() => new Set([wanted])),
        findByExternalId: async () => (isAway ? { kind: 'unreadable', error: away() } : { kind: 'absent' }),
        async submit() {
          passes.submitted += 1;
          // It goes away with the second one.
          isAway = passes.submitted > 1;
          return whileThere(() => 17);
        },
        readMany: (ids) =>
          seen(isAway ? { kind: 'unreadable', error: away() } : { kind: 'present', value: passes.request })(ids),
      },
    );
    const taskId = await passes.create();
    passes.request = requestBuilding();
    await passes.reconciler.reconcile(taskId);
    await passes.reconciler.reconcile(taskId);
    // Its build was lost, and its request collapsed.
    passes.request = aRequest({ state: 'complete', results: 'SKIPPED', builds: [aBuild('RETRY')] });
    await passes.reconciler.reconcile(taskId);
    expect(await passes.store.openMapping(taskId)).toMatchObject({ state: 'intended', submissions: 2 });
    await passFor(40, taskId);
    expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
  });

  it('the claim of a refused run is renewed', async () => {
    let isAway = false;
    passes = await startPasses(
      {},
      {
        async builders() {
          if (isAway) {
            throw away();
          }
          return new Set(['others']);
        },
      },
      {
        async putArtifact() {
          isAway = true;
          throw new QueueError('queue-unavailable', 'no bucket', { isTransient: true });
        },
      },
    );
    const taskId = await passes.create();
    expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
    expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
    await passFor(40, taskId);
    expect(await passes.store.openMapping(taskId)).toMatchObject({ state: 'refusing' });
    expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
  });

  it('uses up none of the tries of an upload', async () => {
    let isAway = false;
    let outcomes = 0;
    const uploaded: string[] = [];
    passes = await startPasses(
      {},
      {
        readMany: (ids) =>
          seen(isAway ? { kind: 'unreadable', error: away() } : { kind: 'present', value: passes.request })(ids),
        async outcome() {
          outcomes += 1;
          if (outcomes === 1) {
            throw away();
          }
          return { properties: {}, log: { kind: 'none' } };
        },
      },
      { putArtifact: async (_taskId, _runId, { kind, name }) => void uploaded.push(`${kind} ${name}`) },
    );
    const taskId = await passes.create();
    passes.request = requestBuilding();
    await passes.reconciler.reconcile(taskId);
    await passes.reconciler.reconcile(taskId);
    uploaded.length = 0;
    isAway = true;
    await passFor(3 * POLICY.maxUploadAttempts, taskId);
    isAway = false;
    passes.request = requestComplete('SUCCESS', aBuild('SUCCESS'));
    expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
    await passFor(1, taskId);
    expect(uploaded.filter((each) => each.startsWith('error'))).toEqual([]);
    expect(runsOf(taskId)).toMatchObject([{ state: 'completed' }]);
  });
});

describe('an upload that hangs', () => {
  it('ends when its task is cancelled, and the build that Buildbot has begun again is stopped', async () => {
    let isHanging = false;
    const cancelled: number[] = [];
    passes = await startPasses(
      {},
      {
        async cancel({ buildRequestId }) {
          cancelled.push(buildRequestId);
          return { kind: 'asked' };
        },
      },
      {
        async putArtifact(_taskId, _runId, { kind }) {
          if (kind === 'content') {
            isHanging = true;
            await new Promise(() => undefined);
          }
        },
      },
    );
    const taskId = await passes.create();
    passes.request = requestBuilding();
    await passes.reconciler.reconcile(taskId);
    await passes.reconciler.reconcile(taskId);
    passes.request = requestBuilding(aBuild('RETRY'));
    const pass = passes.reconciler.reconcile(taskId);
    await eventually(() => isHanging, { what: 'the upload' });
    await passes.queue.ok('cancelTask', taskId);
    passes.queue.clock.advance(MINUTE / 2);
    expect(await pass).toEqual({ kind: 'done' });
    expect(cancelled).toEqual([passes.request.buildRequestId]);
    expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'canceled' }]);
  });
});

describe('a log that stays forbidden', () => {
  it.each([5, 8, 11, 13, 14, 17, 19, 23, 40])(
    'keeps no build from being reported before its deadline, %d minutes after its end',
    async (minutes) => {
      const forbidden = new LegacyCiError('legacy-ci-forbidden', 'logs are not for you');
      const uploaded: string[] = [];
      passes = await startPasses(
        {},
        {
          outcome: async () => ({
            properties: {},
            log: { kind: 'stream', open: () => Promise.reject(forbidden) },
          }),
        },
        { putArtifact: async (_taskId, _runId, { kind, name }) => void uploaded.push(`${kind} ${name}`) },
      );
      const { clock } = passes.queue;
      const taskId = await passes.create({ deadline: new Date(clock.now() + minutes * MINUTE).toJSON() });
      passes.request = requestBuilding();
      await passes.reconciler.reconcile(taskId);
      await passes.reconciler.reconcile(taskId);
      passes.request = requestComplete('SUCCESS', aBuild('SUCCESS'));
      await passes.reconciler.reconcile(taskId);
      let passesMade = 0;
      // Rounds, a minute after the other, which take what is due.
      for (let round = 0; round < 60 && runsOf(taskId)?.at(-1)?.state === 'running'; round += 1) {
        const due = (await passes.store.openMapping(taskId))?.nextCheckAt ?? 0;
        if (due <= clock.now()) {
          passesMade += 1;
          await passes.reconciler.reconcile(taskId);
        }
        clock.advance(MINUTE);
        passes.queue.emulator.tick();
      }
      expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'completed' }]);
      expect(uploaded).toContain('error public/logs/live_backing.log');
      expect(uploaded).toContain('content public/properties.json');
      expect(passesMade).toBeLessThanOrEqual(6);
    },
  );
});

describe('tries of an upload', () => {
  it('of one run are none of the next run’s', async () => {
    let isBroken = true;
    let canClaim = true;
    const uploaded: string[] = [];
    const real = () => clientOf(passes.queue.emulator.rootUrl, { clock: passes.queue.clock, retries: 0 });
    passes = await startPasses(
      {},
      {
        async outcome() {
          if (isBroken) {
            throw away();
          }
          return { properties: {}, log: { kind: 'none' } };
        },
      },
      {
        putArtifact: async (_taskId, runId, { kind, name }) => void uploaded.push(`${runId}: ${kind} ${name}`),
        async claim(taskId, runId) {
          if (!canClaim) {
            throw new QueueError('queue-unavailable', 'away', { isTransient: true });
          }
          return real().claim(taskId, runId);
        },
      },
    );
    const taskId = await passes.create();
    passes.request = requestBuilding();
    await passes.reconciler.reconcile(taskId);
    await passes.reconciler.reconcile(taskId);
    passes.request = requestBuilding(aBuild('RETRY'));
    canClaim = false;
    for (let tries = 0; tries <= POLICY.maxUploadAttempts; tries += 1) {
      expect(uploaded.filter((each) => each.includes('error'))).toEqual([]);
      expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
    }
    canClaim = true;
    expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'worker-shutdown' }, {}]);
    expect(uploaded).toContain('0: error public/properties.json');
    uploaded.length = 0;
    passes.request = requestComplete('SUCCESS', aBuild('RETRY'), aBuild('SUCCESS'));
    expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
    isBroken = false;
    await passFor(1, taskId);
    expect(uploaded.filter((each) => each.includes('error'))).toEqual([]);
    expect(runsOf(taskId)).toMatchObject([{}, { state: 'completed' }]);
  });
});

describe('a refused task', () => {
  it('is explained by what it was refused for, and nothing is asked again, least of all by sweeps', async () => {
    let asked = 0;
    const uploaded: string[] = [];
    let isThere = false;
    passes = await startPasses(
      {},
      {
        async builders() {
          asked += 1;
          return new Set(['others']);
        },
      },
      {
        async putArtifact(_taskId, _runId, { name }) {
          if (!isThere) {
            throw new QueueError('queue-unavailable', 'no bucket', { isTransient: true });
          }
          uploaded.push(name);
        },
      },
    );
    const taskId = await passes.create();
    expect(await passes.reconciler.look(taskId)).toEqual({ kind: 'done' });
    expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
    for (let round = 0; round < 3; round += 1) {
      expect(await passes.reconciler.reconcile(taskId)).toMatchObject({ kind: 'failed' });
      passes.queue.clock.advance(MINUTE);
      expect(await passes.reconciler.look(taskId)).toEqual({ kind: 'done' });
    }
    isThere = true;
    expect(await passes.reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
    expect(runsOf(taskId)).toMatchObject([{ reasonResolved: 'malformed-payload' }]);
    expect(uploaded).toContain('public/logs/live_backing.log');
    expect(asked).toBe(1);
  });
});

describe('an upload', () => {
  it('is given up after its own tries', async () => {
    const uploaded: string[] = [];
    passes = await startPasses(
      {},
      { outcome: () => Promise.reject(away()) },
      { putArtifact: async (_taskId, _runId, { kind, name }) => void uploaded.push(`${kind} ${name}`) },
    );
    const taskId = await passes.create();
    passes.request = requestBuilding();
    await passes.reconciler.reconcile(taskId);
    passes.request = requestComplete('SUCCESS', aBuild('SUCCESS'));
    await passFor(POLICY.maxUploadAttempts, taskId);
    expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
    await passFor(2, taskId);
    expect(runsOf(taskId)).toMatchObject([{ state: 'completed' }]);
    expect(uploaded).toContain('error public/logs/live_backing.log');
  });
});

describe.each([90_000, 5 * MINUTE, 20 * MINUTE])('a claim of %d ms', (claimTimeoutMs) => {
  it('outlives the waits for a right that is missing', async () => {
    const forbidden = () => Promise.reject(new QueueError('queue-forbidden', 'no scope to cancel'));
    passes = await startPasses({ claimTimeoutMs }, {}, { cancelTask: forbidden, putArtifact: async () => undefined });
    const taskId = await passes.create();
    passes.request = requestBuilding();
    await passes.reconciler.reconcile(taskId);
    await passes.reconciler.reconcile(taskId);
    passes.request = requestComplete('CANCELLED', aBuild('CANCELLED'));
    await passWhenDue(taskId, 4 * claimTimeoutMs);
    expect(runsOf(taskId)).toMatchObject([{ state: 'running' }]);
  });
});

describe('a request that is found', () => {
  it('is its task’s, although it cannot be read whether the task can be built', async () => {
    let isMade = false;
    passes = await startPasses(
      {},
      {
        async builders(wanted) {
          if (isMade) {
            throw away();
          }
          return new Set([wanted]);
        },
        findByExternalId: async () => ({ kind: 'present', value: passes.request }),
        async submit() {
          isMade = true;
          throw away();
        },
      },
    );
    const taskId = await passes.create();
    await passes.reconciler.reconcile(taskId);
    expect(await passes.store.openMapping(taskId)).toMatchObject({ state: 'intended', attempts: 1 });
    expect(await passes.reconciler.reconcile(taskId)).toEqual({ kind: 'done' });
    expect(await passes.store.openMapping(taskId)).toMatchObject({ state: 'submitted', attempts: 0 });
  });
});

describe('the wait for a submission without an answer', () => {
  it('is not cut short where its request cannot be looked for', async () => {
    let isAway = true;
    passes = await startPasses(
      {},
      {
        findByExternalId: async () => (isAway ? { kind: 'unreadable', error: away() } : { kind: 'absent' }),
        async submit() {
          passes.submitted += 1;
          throw away();
        },
      },
    );
    const taskId = await passes.create();
    await passes.reconciler.reconcile(taskId);
    // As with the longest lease.
    const nextCheckAt = passes.queue.clock.now() + 3 * POLICY.recheckMs;
    const [lengthened] = await passes.store.leaseDue({ ...LEASE, now: nextCheckAt, leaseUntil: nextCheckAt });
    expect(lengthened).toMatchObject({ taskId, state: 'intended' });
    if (lengthened) {
      await passes.store.release(lengthened, { nextCheckAt }, passes.queue.clock.now());
    }
    await passes.reconciler.reconcile(taskId);
    expect(await passes.store.openMapping(taskId)).toMatchObject({ state: 'intended', nextCheckAt });
    isAway = false;
    await passes.reconciler.reconcile(taskId);
    expect(passes.submitted).toBe(1);
  });
});
