/** Nothing is refused, for good, by what was known before whoever is responsible mended it. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { observe } from '../../src/reflector/observe.ts';
import { aTask, MINUTE, NOW, pending, TASK_ID } from '../support/builders.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aLegacyCi, aQueue } from '../support/stubs.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

const field = (name: string) => ({ name, fullName: name, type: 'text', default: '' });

/** A master whose ForceScheduler declares `taskId`, until somebody adds to it. */
async function startMaster() {
  const master = { fields: [field('reason'), field('taskId')], isAway: false, readings: 0 };
  const server = createServer((_request, response) => {
    master.readings += 1;
    // Of a proxy in front of it, which is not asked again at once.
    response.statusCode = master.isAway ? 404 : 200;
    const scheduler = { name: 'bridge', enabled: true, builder_names: ['b'], all_fields: master.fields };
    response.end(master.isAway ? '' : JSON.stringify({ forceschedulers: [scheduler] }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.push(() => server.close());
  const clock = createManualClock(NOW);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const ci = createDataApi({ url, forceScheduler: 'bridge', collapseGuard: false, clock });
  undo.push(() => ci.close());
  return { master, clock, ci };
}

const SPEC: Omit<BuildSpec, 'properties'> = {
  ...{ taskId: TASK_ID, runId: 0, externalId: 'x', scheduled: NOW, builder: 'b' },
  ...{ branch: null, revision: null, repository: null, project: null },
  priority: 'low',
};
const WITH_LOCALE = { ...SPEC, properties: { locale: 'de' } };

describe('for a parameter that the ForceScheduler lacks', () => {
  it('it is read again, and what is declared by now is not refused', async () => {
    const { master, ci } = await startMaster();
    expect(await ci.problems({ ...SPEC, properties: {} })).toEqual([]);
    expect(await ci.problems(WITH_LOCALE)).toHaveLength(1);
    master.fields = [field('reason'), field('taskId'), field('locale')];
    expect(await ci.problems(WITH_LOCALE)).toEqual([]);
  });

  it('nothing is refused while the master cannot be asked', async () => {
    const { master, clock, ci } = await startMaster();
    expect(await ci.problems({ ...SPEC, properties: {} })).toEqual([]);
    master.isAway = true;
    clock.advance(50 * MINUTE);
    expect(await ci.problems({ ...SPEC, properties: {} })).toEqual([]);
    await expect(ci.problems(WITH_LOCALE)).rejects.toMatchObject({ code: 'legacy-ci-unavailable', isTransient: true });
    await expect(ci.submit(WITH_LOCALE)).rejects.toMatchObject({ code: 'legacy-ci-unavailable', isTransient: true });
  });

  it('what fits is read once', async () => {
    const { master, ci } = await startMaster();
    await ci.problems({ ...SPEC, properties: {} });
    await ci.problems({ ...SPEC, properties: {} });
    expect(master.readings).toBe(1);
  });
});

describe('for a scope that a role lacks', () => {
  const SCOPE = 'buildbot-bridge:builder-name:b';
  const admitted = async (before: readonly string[], now: readonly string[]) => {
    const asked: boolean[] = [];
    const { admission } = await observe(
      TASK_ID,
      { mapping: null },
      {
        queue: aQueue({
          status: async () => ({ kind: 'present', value: aTask([pending()]) }),
          task: async () => ({
            kind: 'present',
            value: { ...aTask([]), scopes: ['assume:r'], payload: { buildername: 'b' } },
          }),
          async expandScopes(_scopes, { isFresh = false } = {}) {
            asked.push(isFresh);
            return isFresh ? now : before;
          },
        }),
        ci: aLegacyCi({
          builders: async (wanted) => new Set([wanted]),
          problems: async () => [],
          collapseKey: () => null,
        }),
        rules: { isIgnored: () => false, isRestricted: () => true },
      },
    );
    return { kind: admission?.kind, asked };
  };

  it.each([
    ['that it had minutes ago, auth is asked once', [SCOPE], [], { kind: 'admitted', asked: [false] }],
    ['that it has by now, it is not refused', [], [SCOPE], { kind: 'admitted', asked: [false, true] }],
    ['that it has not, it is', [], [], { kind: 'refused', asked: [false, true] }],
  ] as const)('%s', async (_what, before, now, expected) => {
    expect(await admitted(before, now)).toEqual(expected);
  });
});
