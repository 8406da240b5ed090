import { describe, expect, it } from '@jest/globals';
import { decide } from '../../src/reflector/decide.ts';
import { aBuild, aTask, exception, NOW, POLICY, pending, requestComplete } from '../support/builders.ts';
import { CASES, observationOf } from './decide.cases.ts';

describe('decide, row by row', () => {
  it.each(CASES.map((row) => [row.name, row] as const))('%s', (_name, row) => {
    const actions = decide(observationOf(row), POLICY, NOW);
    expect(actions.map((action) => action.do)).toEqual(
      row.todo.map((expected) => (typeof expected === 'string' ? expected : expected.do)),
    );
    row.todo.forEach((expected, index) => {
      if (typeof expected !== 'string') {
        expect(actions[index]).toMatchObject(expected);
      }
    });
    for (const { because } of actions) {
      expect(because).not.toBe('');
    }
  });

  it('does not take a result that the operator wants tried again for a RETRY that goes on', () => {
    const policy = { ...POLICY, results: { ...POLICY.results, exception: 'worker-shutdown' as const } };
    const request = requestComplete('EXCEPTION', aBuild('RETRY'), aBuild('EXCEPTION'));
    const row = { name: '', mapping: { takenUntil: NOW }, request, todo: [] };
    const todo = (...runs: Parameters<typeof aTask>[0]) =>
      decide(observationOf({ ...row, task: aTask(runs) }), policy, NOW).map((action) => action.do);
    expect(todo(exception('worker-shutdown'), pending())).toEqual(['closeMapping']);
    expect(todo(exception('worker-shutdown'))).toEqual(['closeMapping']);
  });

  it('has a row of its own for every name', () => {
    expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length);
  });
});
