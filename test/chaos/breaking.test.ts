import { expect, it } from '@jest/globals';
import { breakThings } from './breaking.ts';
import type { Fault, Place } from './faults.ts';
import { createRandom } from './random.ts';
import type { Stage } from './stage.ts';

// Faults that break nothing need nothing to break.
const stage = {} as Stage;
const unending = new AbortController().signal;

/** A fault that hits as many as it is told, one time after the other. */
function aFault(name: string, ...hits: number[]): Fault {
  return { name, weight: 1, happen: async () => hits.shift() ?? 0 };
}

function run(faults: readonly Fault[], happening: readonly Fault[]) {
  const places: readonly Place[] = [{ name: 'place', gapMs: [1, 1], faults }];
  const plan = happening.map((fault, index) => ({ atMs: 0, place: `place ${index}`, fault, random: createRandom(1) }));
  return breakThings(stage, places, plan, unending);
}

it('counts a fault as survived only where it hit something', async () => {
  const [cut, never, miss] = [aFault('cut', 2, 0, 3), aFault('never'), aFault('miss', 0)];
  const { kinds, problems } = await run([cut, never, miss], [cut, cut, miss, cut]);
  expect(Object.fromEntries(kinds)).toEqual({
    cut: { survived: 2, hits: 5, missed: 1 },
    never: { survived: 0, hits: 0, missed: 0 },
    miss: { survived: 0, hits: 0, missed: 1 },
  });
  expect(problems).toEqual([]);
});

it('counts a fault that could not be mended as neither, and says so', async () => {
  const fault: Fault = { name: 'bad', weight: 1, happen: () => Promise.reject(new Error('broken for good')) };
  const { kinds, problems } = await run([fault], [fault]);
  expect(kinds.get('bad')).toEqual({ survived: 0, hits: 0, missed: 0 });
  expect(problems).toEqual(['bad: it could not be mended: Error: broken for good']);
});

it('leaves out what comes to a place that is still broken', async () => {
  const fault = aFault('cut', 1, 1);
  const plan = [1, 2].map((seed) => ({ atMs: 0, place: 'place', fault, random: createRandom(seed) }));
  const report = await breakThings(stage, [{ name: 'place', gapMs: [1, 1], faults: [fault] }], plan, unending);
  expect(report).toMatchObject({ skipped: 1, problems: [] });
  expect(report.kinds.get('cut')).toEqual({ survived: 1, hits: 1, missed: 0 });
});
