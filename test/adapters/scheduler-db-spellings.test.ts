/** Names that MySQL takes for the same, since it compares without regard to case, accents and blanks at the end. */
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import type { BuildSpec } from '../../src/ports.ts';
import { builderProblems } from '../../src/reflector/admission.ts';
import { type Bench, BRANCH, startBench } from '../support/classic-bench.ts';
import { tried } from '../support/hostile-input.ts';
import { newTaskId } from '../support/queue-emulator.ts';
import { inject } from './sandbox-classic-support.ts';

jest.setTimeout(60_000);

const deadline = Date.now() + 3_600_000;
function aSpec(more: Partial<BuildSpec> = {}): BuildSpec {
  const taskId = more.taskId ?? newTaskId();
  return {
    ...{ taskId, runId: 0, externalId: `${taskId}/0/1`, scheduled: Date.now(), priority: 'low', builder: 'build' },
    ...{ branch: BRANCH, revision: 'abc', repository: null, project: null, properties: { product: 'widget' } },
    ...more,
  };
}

describe.each(['mozilla', 'stock'] as const)('on the database of a %s site', (site) => {
  let bench: Bench;
  beforeEach(async () => {
    bench = await startBench({ site, ci: { webStatus: undefined, buildersUrl: undefined } });
  });
  afterEach(() => bench.stop());

  it('tasks whose ids differ in case only have a request each', async () => {
    const lower = aSpec({ taskId: `a${newTaskId().slice(1)}` });
    const upper = aSpec({ taskId: `A${lower.taskId.slice(1)}` });
    const ids = [await bench.one.ci.submit(lower), await bench.one.ci.submit(upper)];
    expect(new Set(ids).size).toBe(2);
    for (const [at, spec] of [lower, upper].entries()) {
      const found = await bench.one.ci.findByExternalId({ ...spec, deadline });
      expect(found).toMatchObject({ kind: 'present', value: { buildRequestId: ids[at] } });
    }
  });

  it.each(['BBB_EXTERNAL_ID', 'bbb_external_id ', 'bbb_éxternal_id'])(
    'the property %j of a payload does not stand for the external id',
    async (name) => {
      tried('spellings that MySQL takes for one name');
      const first = aSpec();
      const second = { ...first, externalId: `${first.taskId}/1/1` };
      const properties = { product: 'widget', [name]: second.externalId };
      const id = await bench.one.ci.submit({ ...first, properties });
      expect(await bench.one.ci.findByExternalId({ ...second, deadline })).toEqual({ kind: 'absent' });
      expect(await bench.one.ci.submit(second)).not.toBe(id);
      // Nor does its request look like one of the first bridge's, which has no such property.
      const old = { ...first, externalId: `taskId:${first.taskId}` };
      expect(await bench.one.ci.findByExternalId({ ...old, deadline })).toEqual({ kind: 'absent' });
    },
  );

  it('a restricted builder is not reached by another spelling that somebody once asked for', async () => {
    const schema = site === 'mozilla' ? 'A' : 'B';
    const spellings = ['release', 'RELEASE', 'release ', 'rélease'];
    for (const builder of spellings) {
      tried('spellings that MySQL takes for one name');
      await inject(bench.db, schema, { builder, task: newTaskId() });
    }
    // This is what a master asks for; else this test would show nothing.
    expect(await bench.db('buildrequests').where({ buildername: 'release' })).toHaveLength(4);
    const names = await bench.one.ci.builders('release');
    expect([...names].sort()).toEqual([...spellings].sort());
    const rules = { isIgnored: () => false, isRestricted: (builder: string) => builder === 'release' };
    for (const builder of spellings) {
      expect(builderProblems(builder, rules, [], names)).toMatchObject([{ where: 'scopes' }]);
      expect(builderProblems(builder, rules, ['buildbot-bridge:builder-name:release'], names)).toEqual([]);
    }
  });
});
