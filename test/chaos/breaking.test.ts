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

/** @param at where each happens; each somewhere else, unless given */
function run(faults: readonly Fault[], happening: readonly Fault[], at: readonly string[] = [], ms = 1000) {
  const places: readonly Place[] = [{ name: 'place', gapMs: [1, 1], faults }];
  const random = createRandom(1);
  const plan = happening.map((fault, index) => ({ atMs: 0, place: at[index] ?? `place ${index}`, fault, random }));
  return breakThings(stage, places, plan, { ms, signal: unending });
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

/** A fault that lasts until the other one happens. */
function aLongFault(name: string): { readonly long: Fault; readonly end: Fault } {
  let mend: () => void = () => undefined;
  const mended = new Promise<void>((resolve) => {
    mend = resolve;
  });
  return {
    long: { name, weight: 1, happen: () => mended.then(() => 1) },
    end: {
      ...{ name: `end of ${name}`, weight: 1 },
      async happen() {
        mend();
        return 1;
      },
    },
  };
}

it('leaves out what comes to a place that is still broken, but for the first of its kind', async () => {
  const { long, end } = aLongFault('cut');
  const slow = aFault('slow', 1, 1);
  const at = ['place', 'place', 'place', 'place', 'elsewhere'];
  const { kinds, skipped } = await run([long, slow, end], [long, slow, long, slow, end], at);
  expect([...kinds.values()].map(({ survived }) => survived)).toEqual([1, 1, 1]);
  expect(skipped).toBe(2);
});

it('leaves out what comes to its turn when the time is over', async () => {
  const { long, end } = aLongFault('cut');
  const slow = aFault('slow', 1);
  const { kinds, skipped } = await run([long, slow, end], [long, slow, end], ['place', 'place', 'elsewhere'], -1);
  expect(skipped).toBe(1);
  expect(kinds.get('slow')).toEqual({ survived: 0, hits: 0, missed: 0 });
});
