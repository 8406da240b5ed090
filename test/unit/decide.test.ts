import { describe, expect, it } from '@jest/globals';
import { decide } from '../../src/reflector/decide.ts';
import { NOW, POLICY } from '../support/builders.ts';
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

  it('has a row of its own for every name', () => {
    expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length);
  });
});
