import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { forceSchedulersAnswer } from '../../src/buildbot/data-api/answers.ts';
import { forceParameters, lackOf } from '../../src/buildbot/data-api/force-parameters.ts';
import type { BuildSpec } from '../../src/ports.ts';
import { describeScheduler, type ParameterOptions } from '../../src/sandbox/buildbot/force.ts';
import { TASK_ID } from '../support/builders.ts';

const PARAMETERS: readonly ParameterOptions[] = [
  { name: 'taskId' },
  { name: 'product' },
  { name: 'number', type: 'int' },
  { name: 'flag', type: 'bool' },
  { name: 'p1', type: 'any' },
  { name: 'p2', type: 'any' },
];

function scheduler(parameters = PARAMETERS, hasPriority = false) {
  const described = describeScheduler({ name: 'bridge', builderNames: ['b'], parameters }, hasPriority);
  const [found] = forceSchedulersAnswer.parse({ forceschedulers: [described] }).forceschedulers.read;
  if (found === undefined) {
    throw new Error('no scheduler');
  }
  return found;
}

function spec(properties: Record<string, unknown>, more: Partial<BuildSpec> = {}): BuildSpec {
  return {
    ...{ taskId: TASK_ID, runId: 0, externalId: `${TASK_ID}/0/1`, priority: 'high', builder: 'b', properties },
    ...{ branch: 'main', revision: null, repository: null, project: null, scheduled: 0 },
    ...more,
  };
}

describe('the parameters of a force call', () => {
  it('carry what is declared, and nothing else', () => {
    const { parameters, problems } = forceParameters(
      spec({ product: 'w', number: 3, flag: false, extra: [1] }),
      scheduler(),
    );
    expect(problems).toEqual([]);
    expect(parameters).toEqual({
      builderNames: ['b'],
      reason: `Created by BBB for task ${TASK_ID} (${TASK_ID}/0/1)`,
      owner: 'buildbot-bridge',
      taskId: TASK_ID,
      branch: 'main',
      product: 'w',
      number: 3,
      flag: false,
      p1_name: 'extra',
      p1_value: '[1]',
    });
  });

  it('send the priority where it is declared', () => {
    expect(forceParameters(spec({}), scheduler(PARAMETERS, true)).parameters).toMatchObject({ priority: 4 });
    expect(forceParameters(spec({}), scheduler()).parameters).not.toHaveProperty('priority');
  });

  it.each(['branch', 'project', 'priority', 'username', 'builderid', 'locale'])(
    'lead to a line of master.cfg that does help where nothing can carry %j',
    (name) => {
      const [problem] = forceParameters(spec({ [name]: 'x' }), scheduler([{ name: 'taskId' }])).problems;
      const line = /util\.(\w+)\(name="(\w+)"/.exec(problem?.mend ?? '');
      const type = line?.[1] === 'AnyPropertyParameter' ? ('any' as const) : ('text' as const);
      const mended = scheduler([{ name: 'taskId' }, { name: line?.[2] ?? '', type }]);
      expect(forceParameters(spec({ [name]: 'x' }), mended).problems).toEqual([]);
    },
  );

  it('never let a payload replace its taskId', () => {
    expect(forceParameters(spec({ taskId: 'another' }), scheduler()).parameters.taskId).toBe(TASK_ID);
  });

  it.each([
    [{ number: 'three' }, 'a whole number'],
    [{ flag: 'yes' }, 'true or false'],
    [{ product: ' ' }, 'not blank'],
    [{ owner: 'me' }, 'sets the property "owner" itself'],
    [{ a: 1, b: 2, c: 3 }, 'no parameter that could carry "c"'],
  ])('%j is a problem: %s', (properties, words) => {
    const { problems } = forceParameters(spec(properties), scheduler());
    expect(problems.map(({ what }) => what).join()).toContain(words);
    expect(problems.every(({ mend }) => mend.length > 0)).toBe(true);
  });

  it('account for every property, whatever it is', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string({ minLength: 1 }), fc.jsonValue()), (properties) => {
        const { parameters, problems } = forceParameters(spec(properties), scheduler());
        const carried = new Set([...Object.keys(parameters), parameters.p1_name, parameters.p2_name]);
        for (const name of Object.keys(properties).filter((key) => key !== 'taskId')) {
          const isRefused = problems.some(({ where }) => where === `payload.properties.${name}`);
          expect(carried.has(name) || isRefused).toBe(true);
        }
      }),
    );
  });
});

it('a ForceScheduler that does not declare taskId is told from one that does', () => {
  expect(lackOf(scheduler())).toBeUndefined();
  expect(lackOf(scheduler([{ name: 'product' }]))).toMatchObject({ mend: expect.stringContaining('name="taskId"') });
});
