/** Masters of versions that lack what newer ones have. */
import { afterEach, describe, expect, it } from '@jest/globals';
import got from 'got';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import { systemClock } from '../../src/clock.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import type { Attempt, BuildbotVersion } from '../../src/sandbox/buildbot/state.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { eventually } from '../support/eventually.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function start(version: BuildbotVersion, durationMs: Attempt['durationMs'] = 1) {
  const calls: string[] = [];
  const faults = createFaults();
  faults.http.push({
    ...{ method: 'GET', path: /builds\?/, takesEffect: true, outcome: { kind: 'slow', ms: 0 } },
    onHit: (call) => calls.push(call.replace('GET ', '')),
  });
  const buildbot = createBuildbotEmulator({
    ...{ clock: systemClock, version, faults },
    builders: [{ name: 'b', workers: ['w'], attempts: [{ results: 0, durationMs }] }],
    forceSchedulers: [{ name: 'bridge', builderNames: ['b'], parameters: [{ name: 'taskId' }] }],
  });
  await buildbot.start();
  undo.push(() => buildbot.stop());
  const ci = createDataApi({
    ...{ url: buildbot.url, forceScheduler: 'bridge', collapseGuard: false, clock: systemClock },
  });
  undo.push(() => ci.close());
  return { ci, url: buildbot.url, master: buildbot.master, state: buildbot.master.state, calls };
}

const spec = (n: number): BuildSpec => ({
  ...{ taskId: `T${n}`, runId: 0, externalId: `T${n}/0/1`, priority: 'low', builder: 'b', properties: {} },
  ...{ branch: null, revision: null, repository: null, project: null, scheduled: 0 },
});

/** @returns how many builds an answer holds */
async function size(url: string, path: string): Promise<number> {
  const answer = await got.get(`${url}${path}`, { throwHttpErrors: false }).json<{ builds?: unknown[] }>();
  return answer.builds?.length ?? 0;
}

describe.each<BuildbotVersion>(['2.5', '3.3', '3.7', '4.3'])('builds of a master %s', (version) => {
  it('are read without those of other requests', async () => {
    const { ci, url, state, calls } = await start(version);
    const ids: number[] = [];
    for (let n = 0; n < 20; n += 1) {
      ids.push(await ci.submit(spec(n)));
    }
    await eventually(() => state.requests.every(({ complete }) => complete));
    const wanted = ids.slice(0, 3);
    for (let round = 0; round < 2; round += 1) {
      const seen = await ci.readMany(wanted);
      for (const id of wanted) {
        expect(seen.get(id)).toMatchObject({ value: { results: 'SUCCESS', builds: [{ isComplete: true }] } });
      }
    }
    for (const path of [...calls]) {
      expect(await size(url, path)).toBeLessThanOrEqual(wanted.length);
    }
  });

  it('are read while there are none, and then', async () => {
    const { ci, url, state, calls } = await start(version);
    await ci.readMany([1, 2]);
    const ids = [await ci.submit(spec(1)), await ci.submit(spec(2)), await ci.submit(spec(3))];
    await eventually(() => state.requests.every(({ complete }) => complete));
    const seen = await ci.readMany(ids.slice(0, 2));
    expect([...seen.values()]).toMatchObject([{ value: { results: 'SUCCESS' } }, { value: { results: 'SUCCESS' } }]);
    for (const path of [...calls]) {
      expect(await size(url, path)).toBeLessThanOrEqual(2);
    }
  });
});

describe.each<BuildbotVersion>(['2.5', '3.3', '3.7', '4.3'])('a build that is cancelled on a master %s', (version) => {
  it.each([
    ['Master Shutdown', 'master-shutdown'],
    ['a person said: Master Shutdown', 'person'],
    ['Master Shutdown, says a person', 'person'],
  ])('for "%s" was cancelled by a %s', async (reason, cancelledBy) => {
    const { ci, master } = await start(version, 'wait');
    const id = await ci.submit(spec(1));
    if (cancelledBy === 'person') {
      master.cancelRequest(id, reason);
    } else {
      master.shutdown();
    }
    expect((await ci.readMany([id])).get(id)).toMatchObject({ value: { results: 'CANCELLED', cancelledBy } });
  });

  it('and whose request waited again, was lost, and its request cancelled by a person', async () => {
    const { ci, master, state } = await start(version, 'wait');
    const id = await ci.submit(spec(1));
    master.shutdown();
    for (const build of state.builds) {
      Object.assign(build, { results: 5, state_string: 'retry (Master Shutdown)' });
    }
    const value = { builds: [{ results: 'RETRY' }], results: 'CANCELLED', cancelledBy: 'person' };
    expect((await ci.readMany([id])).get(id)).toMatchObject({ value });
  });
});

it('a master that takes many requests at once is asked for them at once', async () => {
  const { ci, state, calls } = await start('3.7');
  const ids = [await ci.submit(spec(1)), await ci.submit(spec(2))];
  await eventually(() => state.requests.every(({ complete }) => complete));
  await ci.readMany(ids);
  const before = calls.length;
  await ci.readMany(ids);
  expect(calls.slice(before)).toHaveLength(1);
});
