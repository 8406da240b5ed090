/** Looks and uploads, each with a room of their own. */
import { afterEach, describe, expect, it } from '@jest/globals';
import pino from 'pino';
import { createLog } from '../../src/log.ts';
import type { PassResult } from '../../src/reflector/reconcile.ts';
import { createWork } from '../../src/reflector/work.ts';
import { aBuild, requestBuilding, requestComplete } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { clientOf } from '../support/queue-client.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { startSmallBridge } from '../support/small-bridge.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

/** As many as a bridge of these tests makes at once, and some more. */
const UPLOADS = 20;

describe('uploads that hang', () => {
  /** A bridge whose builds are over when the test says so, and whose uploads hang from then on. */
  async function withHangingUploads(
    over = requestComplete('SUCCESS', aBuild('SUCCESS')),
    isHung: (taskId: string) => boolean = () => true,
  ) {
    const submitted: string[] = [];
    const reclaims = new Map<string, number>();
    let isOver = false;
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const hanging = new Set<string>();
    const { create, queue } = await startSmallBridge(
      undo,
      {
        submit: async ({ taskId }) => submitted.push(taskId),
        readMany: async (ids) => {
          const value = isOver ? over : requestBuilding();
          return new Map(ids.map((id) => [id, { kind: 'present', value: { ...value, buildRequestId: id } }]));
        },
        outcome: async () => ({ properties: {}, log: { kind: 'none' } }),
      },
      {
        claimTimeoutMs: 4000,
        queueOf(url) {
          const client = clientOf(url);
          return {
            ...client,
            async reclaim(taskId, runId) {
              reclaims.set(taskId, (reclaims.get(taskId) ?? 0) + 1);
              return client.reclaim(taskId, runId);
            },
            async putArtifact(taskId, runId, artifact) {
              // Links to builds that run are not uploads.
              if (isOver && (artifact.kind === 'content' || artifact.kind === 'file') && isHung(taskId)) {
                hanging.add(taskId);
                await released;
              }
              await client.putArtifact(taskId, runId, artifact);
            },
          };
        },
      },
    );
    undo.push(() => release());
    const taskIds = await Promise.all(Array.from({ length: UPLOADS }, () => create()));
    const runs = (taskId: string) => queue.tasks.get(taskId)?.status.runs ?? [];
    await eventually(() => taskIds.every((id) => runs(id).at(-1)?.state === 'running'), {
      timeoutMs: 20_000,
      what: 'all to be claimed',
    });
    isOver = true;
    await eventually(() => hanging.size === 16, { what: 'as many uploads as there is room for' });
    reclaims.clear();
    const artifacts = (taskId: string) =>
      queue.tasks.get(taskId)?.artifacts.map(({ name, details }) => `${name} ${details.storageType}`);
    const waiting = taskIds.filter((id) => !hanging.has(id));
    return { create, submitted, runs, waiting, reclaims, release, artifacts };
  }

  it.each([
    ['are over', requestComplete('SUCCESS', aBuild('SUCCESS')), ['completed']],
    ['are lost and begin again', requestBuilding(aBuild('RETRY')), ['exception', 'running']],
  ] as const)(
    'of builds that %s keep no claim of those that wait behind them from being renewed',
    async (_, over, end) => {
      const { waiting, reclaims, runs, release } = await withHangingUploads(over);
      expect(waiting).toHaveLength(UPLOADS - 16);
      // Claims last for 4 s: by then each would have run out.
      await eventually(() => waiting.every((id) => (reclaims.get(id) ?? 0) >= 3), {
        timeoutMs: 30_000,
        what: 'their claims to be renewed',
      });
      release();
      for (const taskId of waiting) {
        await eventually(() => runs(taskId).at(-1)?.state === end.at(-1) && runs(taskId).length >= end.length, {
          what: 'its end',
        });
        expect(runs(taskId).map(({ state }) => state)).toEqual(end);
      }
    },
    60_000,
  );

  it.each([
    ['is uploaded where it can be', (taskIds: readonly string[]) => (id: string) => !taskIds.includes(id), 's3'],
    ['leaves errors where it cannot', () => () => true, 'error'],
  ])(
    'do not keep what another build came to from being told before its deadline: it %s',
    async (_what, isHung, storageType) => {
      const near: string[] = [];
      const { create, runs, artifacts } = await withHangingUploads(undefined, isHung(near));
      // More than there are places for, and so near their deadlines that each has its last chance.
      const deadline = new Date(Date.now() + 25_000).toJSON();
      near.push(...(await Promise.all(Array.from({ length: UPLOADS }, () => create({ deadline })))));
      await eventually(() => near.every((id) => runs(id).at(-1)?.state !== 'pending'), {
        timeoutMs: 10_000,
        what: 'them to be claimed',
      });
      await eventually(() => near.every((id) => runs(id).at(-1)?.state !== 'running'), {
        timeoutMs: 25_000,
        what: 'their ends',
      });
      expect(near.map((id) => runs(id).map(({ reasonResolved }) => reasonResolved))).toEqual(
        near.map(() => ['completed']),
      );
      for (const id of near) {
        expect(artifacts(id)).toContain(`public/buildbot/status.json ${storageType}`);
      }
    },
    90_000,
  );

  it('do not keep new tasks from being built', async () => {
    const { create, submitted } = await withHangingUploads();
    const taskId = await create();
    await eventually(() => submitted.includes(taskId), { what: 'its build request' });
  }, 60_000);
});

describe('what is to be uploaded', () => {
  function fixture(concurrency = 1, log = pino({ level: 'silent' })) {
    const clock = createManualClock(1_000_000);
    const begun: string[] = [];
    const shares = new Map<string, (() => number) | undefined>();
    const ends: ((result: PassResult) => void)[] = [];
    const pass = (kind: string) => (taskId: string, share?: () => number) => {
      shares.set(taskId, share);
      begun.push([kind, taskId, share?.()].filter((part) => part !== undefined).join(' '));
      return new Promise<PassResult>((resolve) => ends.push(resolve));
    };
    const work = createWork({
      look: pass('look'),
      whole: pass('whole'),
      ...{ concurrency, clock, log },
    });
    const settle = async () => {
      for (let i = 0; i < 20; i += 1) {
        await Promise.resolve();
      }
    };
    return {
      ...{ work, begun, settle, shareOf: (taskId: string) => shares.get(taskId)?.() },
      async end(result: PassResult = { kind: 'done' }) {
        ends.shift()?.(result);
        await settle();
      },
      async later(ms: number) {
        clock.advance(ms);
        await settle();
      },
      failed: () => ({ kind: 'failed', retryAt: clock.now() + 4000 }) as const,
    };
  }

  it('has room beside looks', async () => {
    const { work, begun, settle } = fixture();
    work.add('a').catch(() => undefined);
    work.add('b').catch(() => undefined);
    work.handOver('c', false);
    work.handOver('d', false);
    await settle();
    expect(begun).toEqual(['look a', 'whole c']);
    expect(work.size()).toBe(4);
  });

  it('has room beside that, and its share of the time that is left, where the deadline is near', async () => {
    const { work, begun, settle, end, shareOf } = fixture(2);
    for (const taskId of ['a', 'b', 'c']) {
      work.handOver(taskId, false);
    }
    for (const taskId of ['d', 'e', 'f', 'g', 'h']) {
      work.handOver(taskId, true);
    }
    await settle();
    expect(begun).toEqual(['whole a', 'whole b', 'whole d 1', 'whole e 1']);
    // Others have come since.
    expect([shareOf('a'), shareOf('d')]).toEqual([undefined, 0.4]);
    expect(work.size()).toBe(8);
    await end();
    await end();
    await end();
    expect(begun.slice(4)).toEqual(['whole c', 'whole f 0.5']);
  });

  it('is not cut short in its waits by a sweep that comes by when it fails again and again', async () => {
    const { work, begun, end, later, failed } = fixture();
    work.handOver('a', false);
    for (let failure = 1; failure <= 3; failure += 1) {
      await end(failed());
      await later(failure < 3 ? 4000 : 0);
    }
    expect(work.parked()).toBe(1);
    work.handOver('a', false);
    await later(3999);
    expect(begun).toHaveLength(3);
    await later(1);
    expect(begun).toHaveLength(4);
    expect(work.parked()).toBe(1);
  });

  it('is looked at once more where something was heard meanwhile', async () => {
    const { work, begun, end } = fixture();
    work.handOver('a', false);
    let isAnswered = false;
    const heard = work.add('a').then(() => {
      isAnswered = true;
    });
    await end();
    expect([begun, isAnswered]).toEqual([['whole a', 'whole a'], false]);
    await end();
    await heard;
    expect(begun).toEqual(['whole a', 'whole a']);
  });

  it('is looked at where something is heard while it waits', async () => {
    const { work, begun, settle } = fixture();
    work.handOver('a', false);
    work.handOver('b', false);
    work.add('b').catch(() => undefined);
    await settle();
    expect(begun).toEqual(['whole a', 'look b']);
  });

  it('is waited for once, however often it is handed over meanwhile', async () => {
    const lines: string[] = [];
    const log = createLog({ level: 'debug', destination: { write: (line: string) => lines.push(line) } });
    const { work, end } = fixture(1, log);
    for (let sweep = 0; sweep < 100; sweep += 1) {
      work.handOver('a', false);
      work.handOver('b', false);
    }
    const stopped = work.stop();
    await end();
    await stopped;
    expect(lines.map((line) => JSON.parse(line).taskId)).toEqual(['b', 'a']);
  });

  it('is left alone at a stop, but for what is under way', async () => {
    const { work, begun, end } = fixture();
    work.handOver('a', false);
    work.handOver('b', false);
    const stopped = work.stop();
    await end();
    await stopped;
    expect(begun).toEqual(['whole a']);
    expect(work.size()).toBe(0);
  });
});
