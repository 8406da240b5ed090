/** A lost build request is found again by its reason, whatever a ForceScheduler makes of that; or it takes no request. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import { systemClock } from '../../src/clock.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import type { ForceSchedulerOptions } from '../../src/sandbox/buildbot/force.ts';
import { createFaults } from '../../src/sandbox/faults.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function startCi(more: Partial<ForceSchedulerOptions>) {
  const buildbot = createBuildbotEmulator({
    ...{ clock: systemClock, version: '3.7', faults: createFaults() },
    builders: [{ name: 'b', workers: [], attempts: [], collapse: false }],
    forceSchedulers: [{ name: 'bridge', builderNames: ['b'], parameters: [{ name: 'taskId' }], ...more }],
  });
  await buildbot.start();
  undo.push(() => buildbot.stop());
  const ci = createDataApi({
    ...{ url: buildbot.url, forceScheduler: 'bridge', collapseGuard: false, clock: systemClock },
  });
  undo.push(() => ci.close());
  return { ci, requests: buildbot.master.state.requests };
}

const spec = (externalId: string): BuildSpec & { readonly deadline: number } => ({
  ...{ taskId: 'T', runId: 0, externalId, priority: 'low', builder: 'b', properties: {}, scheduled: 0, deadline: 1 },
  ...{ branch: null, revision: null, repository: null, project: null },
});

it.each([
  "A build was forced by '%(owner)s': %(reason)s",
  '%(reason)s (forced by %(owner)s)',
  '%(reason)s',
  '%(reason)s %(reason)s',
])('a request is found by its own reason, and by no other’s, where the reasonString is %s', async (reasonString) => {
  const { ci } = await startCi({ reasonString });
  await ci.check();
  for (const externalId of ['T/0/12', 'T/10/1']) {
    await ci.submit(spec(externalId));
  }
  expect(await ci.findByExternalId(spec('T/0/1'))).toEqual({ kind: 'absent' });
  const id = await ci.submit(spec('T/0/1'));
  expect(await ci.findByExternalId(spec('T/0/1'))).toMatchObject({ kind: 'present', value: { buildRequestId: id } });
});

describe.each<[string, ForceSchedulerOptions['reason'] & object]>([
  ['is fixed', { name: 'reason', type: 'fixed' }],
  ['has another name', { name: 'why', type: 'text' }],
])('a ForceScheduler whose reason %s', (_what, reason) => {
  it('is not begun with', async () => {
    const { ci } = await startCi({ reason });
    await expect(ci.check()).rejects.toThrow(/reason=util\.StringParameter\(name="reason"/);
  });

  it('is asked for nothing', async () => {
    const { ci, requests } = await startCi({ reason });
    await expect(ci.submit(spec('T/0/1'))).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
    expect(requests).toEqual([]);
  });
});

it('a ForceScheduler may take its reason in a text of several lines', async () => {
  const { ci } = await startCi({ reason: { name: 'reason', type: 'textarea' } });
  await ci.check();
  const id = await ci.submit(spec('T/0/1'));
  expect(await ci.findByExternalId(spec('T/0/1'))).toMatchObject({ kind: 'present', value: { buildRequestId: id } });
});
