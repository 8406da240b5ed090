/** Claims while the mapping database is away, on an emulated queue. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import pino from 'pino';
import type { MappingStore, TaskQueue } from '../../src/ports.ts';
import { keepClaims } from '../../src/reflector/keep-claims.ts';
import { unlessAway } from '../support/away-store.ts';
import { MINUTE, requestBuilding } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { clientOf, WORKER } from '../support/queue-client.ts';
import { newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';
import { startSmallBridge } from '../support/small-bridge.ts';

const THRESHOLD = 10 * MINUTE;

let fixture: QueueFixture;
let queue: TaskQueue;
const undo: (() => unknown)[] = [];
beforeEach(async () => {
  fixture = await startQueue();
  queue = clientOf(fixture.emulator.rootUrl, { clock: fixture.clock, retries: 0 });
});
afterEach(async () => {
  await fixture.stop();
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function claimed(worker: typeof WORKER = WORKER, deadlineMs = 600 * MINUTE): Promise<string> {
  const taskId = newTaskId();
  const { clock } = fixture;
  const deadline = new Date(clock.now() + deadlineMs).toJSON();
  await fixture.ok('createTask', taskId, taskAt(clock.now(), { deadline, retries: 0 }));
  await fixture.ok('claimTask', taskId, 0, worker);
  return taskId;
}

async function minutesLeft(taskId: string): Promise<number | undefined> {
  const seen = await queue.status(taskId);
  const run = seen.kind === 'present' ? seen.value.runs.at(-1) : undefined;
  return run?.takenUntil === undefined ? undefined : Math.round((run.takenUntil - fixture.clock.now()) / MINUTE);
}

async function keep(changes: Partial<TaskQueue> = {}): Promise<string[]> {
  const renewed: string[] = [];
  const reclaim: TaskQueue['reclaim'] = async (taskId, runId) => {
    renewed.push(taskId);
    return queue.reclaim(taskId, runId);
  };
  await keepClaims(
    {
      ...{ queue: { ...queue, reclaim, ...changes }, clock: fixture.clock, log: pino({ level: 'silent' }) },
      ...{ reclaimThresholdMs: THRESHOLD, concurrency: 2 },
    },
    new AbortController().signal,
  );
  return renewed;
}

it('are renewed when they are near their end, and not before', async () => {
  const taskId = await claimed();
  fixture.clock.advance(9 * MINUTE);
  expect(await keep()).toEqual([]);
  fixture.clock.advance(2 * MINUTE);
  expect(await keep()).toEqual([taskId]);
  expect(await minutesLeft(taskId)).toBe(20);
});

it('are renewed on every page of the queue’s list', async () => {
  const taskIds = await Promise.all(Array.from({ length: 3 }, () => claimed()));
  fixture.clock.advance(11 * MINUTE);
  const renewed = await keep({
    async *listClaimed() {
      for (const taskId of taskIds) {
        yield [taskId];
      }
    },
  });
  expect(renewed.sort()).toEqual(taskIds.sort());
});

it('last as long as the database is away, though the queue lists each of them again and again', async () => {
  const taskIds = await Promise.all(Array.from({ length: 5 }, () => claimed()));
  for (let minutes = 0; minutes < 120; minutes += 1) {
    fixture.clock.advance(MINUTE);
    const renewed = await keep();
    expect(new Set(renewed).size).toBe(renewed.length);
  }
  for (const taskId of taskIds) {
    expect(await minutesLeft(taskId)).toBeGreaterThan(9);
  }
});

it('of other workers, of tasks past their deadline and of runs that are over are left alone', async () => {
  await claimed({ workerGroup: 'others', workerId: 'other' });
  await claimed(WORKER, 12 * MINUTE);
  const over = await claimed();
  await fixture.ok('reportCompleted', over, 0);
  fixture.clock.advance(15 * MINUTE);
  expect(await keep()).toEqual([]);
});

it('are renewed though one of them cannot be', async () => {
  const taskIds = await Promise.all([claimed(), claimed(), claimed()]);
  fixture.clock.advance(15 * MINUTE);
  const [first] = taskIds;
  await keep({
    reclaim: (taskId, runId) => (taskId === first ? Promise.reject(new Error('no')) : queue.reclaim(taskId, runId)),
  });
  expect(await Promise.all(taskIds.map(minutesLeft))).toEqual([5, 20, 20]);
});

it('are renewed by a bridge whose database has gone', async () => {
  let isAway = false;
  const wrap = (store: MappingStore) => unlessAway(store, () => isAway);
  const ci = {
    submit: async () => 17,
    readMany: async (ids: readonly number[]) =>
      new Map(ids.map((id) => [id, { kind: 'present' as const, value: requestBuilding() }])),
  };
  const { client, create, lines } = await startSmallBridge(undo, ci, { wrap, claimTimeoutMs: 3000 });
  const taskId = await create();
  const run = async () => {
    const { status } = (await client.status(taskId)) as {
      status: { runs: { state: string; takenUntil?: string }[] };
    };
    return status.runs.at(-1);
  };
  await eventually(async () => (await run())?.state === 'running', { what: 'the claim' });
  isAway = true;
  const first = Date.parse((await run())?.takenUntil ?? '');
  await eventually(async () => Date.parse((await run())?.takenUntil ?? '') > first + 3500, {
    ...{ timeoutMs: 30_000, what: 'the claim to be renewed without the database' },
  });
  expect((await run())?.state).toBe('running');
  expect(lines.map(({ msg }) => msg)).toContain('the mapping database is away; claims were renewed without it');
});
