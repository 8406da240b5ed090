/** Tasks whose messages always fail, among others: on the in-process broker, the emulated queue and the real store. */
import { afterEach, describe, expect, it } from '@jest/globals';
import slugid from 'slugid';
import { LegacyCiError } from '../../src/errors.ts';
import { unlessAway } from '../support/away-store.ts';
import { aRequest } from '../support/builders.ts';
import { eventually } from '../support/eventually.ts';
import { taskAt } from '../support/queue-emulator.ts';
import { choking, startSmallBridge } from '../support/small-bridge.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

describe('tasks that always fail', () => {
  it('hold up nobody, do not spin, say why, and come to their end', async () => {
    const poisoned = new Set<string>();
    const tries = new Map<string, number>();
    let last = 0;
    const { store, lines, client, create, pulse } = await startSmallBridge(undo, {
      async submit({ taskId }) {
        tries.set(taskId, (tries.get(taskId) ?? 0) + 1);
        if (poisoned.has(taskId)) {
          throw new LegacyCiError('legacy-ci-unavailable', 'the master chokes on it', { isTransient: true });
        }
        last += 1;
        return last;
      },
      builders: async () => new Set(['runtests']),
      readMany: async (ids) =>
        new Map(ids.map((id) => [id, { kind: 'present', value: aRequest({ buildRequestId: id }) }])),
    });
    pulse.publish({
      exchange: 'exchange/taskcluster-queue/v1/task-pending',
      routingKey: 'primary.a.0.b.c.buildbot.bridge.d.e._',
      payload: { status: { taskId: 'no slugid \n'.repeat(1000) } },
    });
    // As many as a listener hears at once.
    for (let count = 0; count < 50; count += 1) {
      const taskId = slugid.nice();
      poisoned.add(taskId);
      await client.createTask(taskId, taskAt(Date.now()));
    }
    const others = await Promise.all(Array.from({ length: 20 }, () => create()));
    const state = async (taskId: string) => (await store.openMapping(taskId))?.state;
    await eventually(async () => (await Promise.all(others.map(state))).every((one) => one === 'submitted'), {
      timeoutMs: 9000,
      what: 'the others to be submitted',
    });
    const [first = ''] = poisoned;
    await eventually(async () => ((await store.openMapping(first))?.attempts ?? 0) > 1, { what: 'a second try' });
    expect((await store.openMapping(first))?.lastError).toBe('the master chokes on it');
    expect(lines.some(({ taskId, err }) => taskId === first && JSON.stringify(err ?? '').includes('chokes'))).toBe(
      true,
    );
    expect(lines.filter(({ msg }) => msg === 'malformed message dropped')).toHaveLength(1);
    expect(Math.max(...[...poisoned].map((taskId) => tries.get(taskId) ?? 0))).toBeLessThan(8);

    await client.cancelTask(first);
    await eventually(async () => (await store.openMapping(first)) === undefined, { what: 'the end of its mapping' });
  }, 30_000);
});

describe('one service alone', () => {
  it('a listener serves the messages behind those of poisoned tasks', async () => {
    const poisoned = new Set<string>();
    const { store, create, client } = await startSmallBridge(
      undo,
      choking((taskId) => poisoned.has(taskId)),
      { services: ['tc-listener'] },
    );
    // More than a listener hears at once.
    for (let count = 0; count < 60; count += 1) {
      const taskId = slugid.nice();
      poisoned.add(taskId);
      await client.createTask(taskId, taskAt(Date.now()));
    }
    const attempts = async () => Promise.all([...poisoned].map(async (id) => (await store.openMapping(id))?.attempts));
    await eventually(async () => (await attempts()).every((count = 0) => count > 0), { timeoutMs: 9000 });
    const others = await Promise.all(Array.from({ length: 10 }, () => create()));
    await eventually(
      async () =>
        (await Promise.all(others.map((id) => store.openMapping(id)))).every((one) => one?.state === 'submitted'),
      { timeoutMs: 9000, what: 'the others to be submitted' },
    );
  }, 30_000);

  it('the reflector sees that a poisoned task is over at its deadline', async () => {
    const { queue, store, create } = await startSmallBridge(
      undo,
      choking(() => true),
      { services: ['reflector'] },
    );
    const taskId = await create({ deadline: new Date(Date.now() + 4000).toJSON() });
    await eventually(async () => ((await store.openMapping(taskId))?.attempts ?? 0) > 0, { what: 'a failure' });
    const [mapping] = await eventually(
      async () => {
        const all = await store.mappingsOf(taskId);
        return all.every(({ state }) => state === 'closed') && all;
      },
      { timeoutMs: 15_000, what: 'the end of its mapping' },
    );
    expect(mapping).toMatchObject({ resolution: 'deadline-exceeded', lastError: 'the master chokes on it' });
    expect(queue.tasks.get(taskId)?.status.runs).toMatchObject([{ reasonResolved: 'deadline-exceeded' }]);
  }, 30_000);
});

describe('while the database is away', () => {
  it('no message is taken for done, nothing spins, and all goes on by itself', async () => {
    let isAway = false;
    let calls = 0;
    const { store, lines, create } = await startSmallBridge(
      undo,
      { submit: async () => calls },
      {
        wrap: (real) =>
          unlessAway(real, () => {
            calls += 1;
            return isAway;
          }),
      },
    );
    isAway = true;
    calls = 0;
    const taskIds = await Promise.all(Array.from({ length: 5 }, () => create()));
    await eventually(() => lines.filter(({ msg }) => String(msg).startsWith('no look could be had')).length >= 10);
    // Ten looks at tasks, and what the reflector's rounds asked for meanwhile.
    expect(calls).toBeLessThan(60);
    expect(lines.some(({ msg }) => msg === 'hint given up; the reflector will find the task')).toBe(false);
    isAway = false;
    await eventually(
      async () => (await Promise.all(taskIds.map((id) => store.openMapping(id)))).every((one) => one !== undefined),
      { timeoutMs: 9000 },
    );
  }, 30_000);
});
