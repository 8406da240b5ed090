import { expect, it } from '@jest/globals';
import type { Admission } from '../../src/reflector/admission.ts';
import { createRefusals } from '../../src/reflector/refusals.ts';

const refused = (builder: string): Admission => ({ kind: 'refused', builder, problems: [] });

it('a refusal is kept until it is forgotten, and of too many the oldest goes', () => {
  const refusals = createRefusals(2);
  refusals.keep(1, refused('a'));
  refusals.keep(2, refused('b'));
  refusals.keep(1, refused('c'));
  refusals.keep(3, refused('d'));
  expect([1, 2, 3].map((id) => refusals.of(id))).toEqual([refused('c'), undefined, refused('d')]);
  refusals.forget(3);
  expect(refusals.of(3)).toBeUndefined();
});
