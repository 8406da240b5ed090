import { expect, it } from '@jest/globals';
import { nameOfDatabase } from '../../src/db/connection.ts';
import { watchWrites } from '../../src/db/write-watch.ts';
import { StoreError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { unlessAway } from '../support/away-store.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';

const INSTANCE = { instance: 'i', version: '1', services: [], started: 0, heartbeat: 0 };

async function watched() {
  const lines: Record<string, unknown>[] = [];
  const log = createLog({ level: 'info', destination: { write: (line) => void lines.push(JSON.parse(line)) } });
  const failure: { error?: StoreError } = {};
  const memory = await openMemoryStore();
  const failing = unlessAway(memory, () => {
    if (failure.error !== undefined) {
      throw failure.error;
    }
    return false;
  });
  const clock = createManualClock(0);
  return { lines, failure, clock, ...watchWrites(failing, 'sqlite:bridge.db', { log, clock }) };
}

it.each([
  ['store-full', 'error'],
  ['store-unavailable', 'warn'],
] as const)('%s: says once that writes fail, and once that they succeed again', async (code, level) => {
  const { store, isFailing, failure, lines } = await watched();
  await store.heartbeat(INSTANCE);
  expect([isFailing(), lines]).toEqual([false, []]);
  failure.error = new StoreError(code, 'no', { isTransient: true });
  for (const write of [store.heartbeat(INSTANCE), store.makeAllDue(0), store.heartbeat(INSTANCE)]) {
    await expect(write).rejects.toThrow('no');
  }
  expect(isFailing()).toBe(true);
  expect(lines).toMatchObject([{ level, database: 'sqlite:bridge.db', err: { code } }]);
  delete failure.error;
  // There is nothing that they would write.
  await store.makeAllDue(0);
  await store.leaseDue({ owner: 'o', leaseUntil: 1, now: 0, limit: 1 });
  expect(isFailing()).toBe(true);
  await store.heartbeat(INSTANCE);
  expect([isFailing(), lines.length]).toEqual([false, 2]);
  await store.close();
});

it('does not take a heartbeat, which needs no room, for what does', async () => {
  const { store, isFailing, failure, lines, clock } = await watched();
  const addEvents = () =>
    store.addEvents([{ taskId: 't', runId: 0, at: 0, instance: 'i', what: 'claimRun', detail: 'd' }]);
  for (const error of [failure, failure]) {
    error.error = new StoreError('store-full', 'no', { isTransient: true });
    await expect(addEvents()).rejects.toThrow('no');
    delete error.error;
    clock.advance(60_000);
    await store.heartbeat(INSTANCE);
    expect([isFailing(), lines.length]).toEqual([true, 1]);
  }
  await addEvents();
  expect([isFailing(), lines.length]).toEqual([false, 2]);
  // What is not tried again is not wanted any more.
  failure.error = new StoreError('store-full', 'no', { isTransient: true });
  await expect(addEvents()).rejects.toThrow('no');
  delete failure.error;
  clock.advance(121_000);
  await store.heartbeat(INSTANCE);
  expect(isFailing()).toBe(false);
  await store.close();
});

it('takes no read for a write, nor a row that cannot be read for a database that cannot be written', async () => {
  const { store, isFailing, failure, lines } = await watched();
  failure.error = new StoreError('store-unavailable', 'no', { isTransient: true });
  await expect(store.overview()).rejects.toThrow('no');
  failure.error = new StoreError('store-row', 'no');
  await expect(store.lease('t', { owner: 'o', leaseUntil: 1, now: 0 })).rejects.toThrow('no');
  expect([isFailing(), lines]).toEqual([false, []]);
  delete failure.error;
  await store.close();
});

it.each([
  ['sqlite:/var/lib/bridge.db', 'sqlite:/var/lib/bridge.db'],
  ['mysql://user:secret@db.example.com:3307/bridge?ssl=true', 'mysql://db.example.com:3307/bridge'],
  ['postgres://user:secret@[::1]/bridge', 'postgres://[::1]/bridge'],
])('names a database without who may use it: %s', (url, name) => {
  expect(nameOfDatabase(url)).toBe(name);
});
