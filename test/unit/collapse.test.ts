/** Which requests an emulated Buildbot collapses, and whether the key that keeps them apart tells. */
import { afterEach, expect, it } from '@jest/globals';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import { systemClock } from '../../src/clock.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import { createFaults } from '../../src/sandbox/faults.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

const SOURCE = { branch: 'main', repository: 'https://hg.example.org/x', project: 'p' };

function spec(taskId: string, revision: string, more: Partial<BuildSpec> = {}): BuildSpec {
  return {
    ...{ taskId, runId: 0, externalId: `${taskId}/0/1`, priority: 'low', builder: 'b', properties: {}, scheduled: 0 },
    ...{ ...SOURCE, revision, ...more },
  };
}

it.each<[string, BuildSpec, readonly string[], { collapses: boolean; keptApart: boolean }]>([
  ['the same revision', spec('t2', 'r1'), [], { collapses: true, keptApart: true }],
  ['another revision', spec('t2', 'r2'), [], { collapses: false, keptApart: true }],
  ['the same, with a change', spec('t2', 'r1'), ['r1'], { collapses: true, keptApart: true }],
  ['another, and a change of each', spec('t2', 'r2'), ['r1', 'r2'], { collapses: true, keptApart: true }],
  ['another, and a change of one', spec('t2', 'r2'), ['r2'], { collapses: false, keptApart: true }],
  ['another branch', spec('t2', 'r1', { branch: 'other' }), [], { collapses: false, keptApart: false }],
  ['another builder', spec('t2', 'r1', { builder: 'c' }), [], { collapses: false, keptApart: false }],
])('a newer request of %s', async (_what, newer, changes, { collapses, keptApart }) => {
  const buildbot = createBuildbotEmulator({
    ...{ clock: systemClock, version: '3.7', faults: createFaults() },
    builders: ['b', 'c'].map((name) => ({ name, workers: [], attempts: [] })),
    forceSchedulers: [{ name: 'bridge', builderNames: ['b', 'c'], parameters: [{ name: 'taskId' }] }],
  });
  await buildbot.start();
  undo.push(() => buildbot.stop());
  for (const revision of changes) {
    buildbot.master.addChange({ ...SOURCE, revision });
  }
  const ci = createDataApi({
    ...{ url: buildbot.url, forceScheduler: 'bridge', collapseGuard: true, clock: systemClock },
  });
  undo.push(() => ci.close());
  const older = spec('t1', 'r1');
  const id = await ci.submit(older);
  await ci.submit(newer);
  expect((await ci.readMany([id])).get(id)).toMatchObject({ value: { state: collapses ? 'complete' : 'pending' } });
  expect(ci.collapseKey(newer) === ci.collapseKey(older)).toBe(keptApart);
});
