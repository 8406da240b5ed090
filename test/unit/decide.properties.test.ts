import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { RequestView } from '../../src/domain/build.ts';
import { RESULT_NAMES } from '../../src/domain/build.ts';
import type { Mapping } from '../../src/domain/mapping.ts';
import type { TaskRun, TaskStatus } from '../../src/domain/task.ts';
import { QueueError } from '../../src/errors.ts';
import type { Seen } from '../../src/ports.ts';
import { ACTION_KINDS, type Action } from '../../src/reflector/actions.ts';
import { reclaimDue, reclaimTime } from '../../src/reflector/claims.ts';
import { decide, type Observation } from '../../src/reflector/decide.ts';
import { isLastChance } from '../../src/reflector/upload-time.ts';
import { aBuild, aMapping, aRequest, aTask, MINUTE, NOW, ours, POLICY } from '../support/builders.ts';
import { settle } from '../support/model.ts';

import { ADMITTED, REFUSED, UNREADABLE } from './decide.cases.ts';

const REASONS = [
  'canceled',
  'deadline-exceeded',
  'claim-expired',
  'worker-shutdown',
  'intermittent-task',
  'internal-error',
  'malformed-payload',
  'made-up',
];
const minutes = (min: number, max: number) => fc.integer({ min, max }).map((m) => NOW + m * MINUTE);

/** Mostly null. */
function rarely<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> {
  return fc.oneof({ weight: 9, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: value });
}

const resolvedRun: fc.Arbitrary<Partial<TaskRun>> = fc.oneof(
  fc.constantFrom<Partial<TaskRun>>(
    { state: 'completed', reasonResolved: 'completed' },
    { state: 'failed', reasonResolved: 'failed' },
  ),
  fc
    .oneof(fc.constantFrom(...REASONS), fc.constant('worker-shutdown'))
    .map((reasonResolved) => ({ state: 'exception' as const, reasonResolved })),
);
const lastRun: fc.Arbitrary<Partial<TaskRun>> = fc.oneof(
  fc.constant({ state: 'pending' as const }),
  minutes(-5, 20).map((takenUntil) => ours(takenUntil)),
  minutes(-5, 20).map((takenUntil) => ({ ...ours(takenUntil), workerId: 'somebody-else' })),
  resolvedRun,
);
const task: fc.Arbitrary<TaskStatus> = fc
  .tuple(fc.array(resolvedRun, { maxLength: 3 }), lastRun, fc.integer({ min: 0, max: 1 }), minutes(-20, 90))
  .map(([before, last, retriesLeft, deadline]) => aTask([...before, last], { retriesLeft, deadline }));

const builds = fc
  .array(fc.constantFrom('RETRY' as const), { maxLength: 3 })
  .map((retries) => retries.map((results) => aBuild(results)));
const request: fc.Arbitrary<RequestView> = fc.oneof(
  builds.map((list) => aRequest({ builds: list })),
  builds.map((list) => aRequest({ state: 'building', builds: [...list, aBuild(undefined)] })),
  fc
    .tuple(
      builds,
      fc.oneof(fc.constantFrom(...RESULT_NAMES, undefined), fc.constant('CANCELLED' as const)),
      ...[fc.boolean(), fc.boolean(), rarely(fc.constant(true))],
    )
    .map(([list, results, hasBuild, isShutdown, isSettling]) =>
      aRequest({
        state: 'complete',
        builds: hasBuild ? [...list, aBuild(results, { isComplete: true })] : list,
        ...(results === undefined ? {} : { results }),
        ...(isSettling ? { isSettling } : {}),
        ...(results === 'CANCELLED' ? { cancelledBy: isShutdown ? 'master-shutdown' : 'person' } : {}),
      }),
    ),
);

function seen<T>(value: fc.Arbitrary<T>): fc.Arbitrary<Seen<T>> {
  const error = new QueueError('queue-unavailable', 'no answer', { isTransient: true });
  return fc.oneof(
    { weight: 7, arbitrary: value.map((v) => ({ kind: 'present' as const, value: v })) },
    { weight: 2, arbitrary: fc.constant({ kind: 'absent' as const }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'unreadable' as const, error }) },
  );
}

const mapping: fc.Arbitrary<Mapping> = fc
  .record({
    state: fc.oneof(
      fc.constantFrom('refusing' as const, 'held' as const, 'cancelling' as const),
      fc.constant('intended' as const),
      fc.constant('submitted' as const),
    ),
    runId: fc.integer({ min: 0, max: 3 }),
    submissions: fc.integer({ min: 0, max: 6 }),
    retriesReported: fc.integer({ min: 0, max: 3 }),
    reruns: fc.integer({ min: 0, max: 6 }),
    cancels: fc.integer({ min: 0, max: 11 }),
    priority: fc.constantFrom(0, 2, 6),
    attempts: fc.integer({ min: 0, max: 6 }),
    takenUntil: fc.option(minutes(-5, 20)),
    reclaimAt: fc.option(minutes(-5, 20)),
    // What is back, or gone, is noted before anything else: mostly there is nothing to note.
    absentSince: rarely(minutes(-5, 0)),
    requestAbsentSince: rarely(minutes(-5, 0)),
    nextCheckAt: minutes(-2, 2),
    deadline: minutes(-30, 90),
  })
  .map((m) => aMapping({ ...m, buildRequestId: ['submitted', 'cancelling'].includes(m.state) ? 17 : null }));

const observation: fc.Arbitrary<Observation> = fc
  .tuple(
    ...[fc.option(mapping, { freq: 6 }), seen(task), seen(request)],
    ...[fc.constantFrom(ADMITTED, REFUSED, UNREADABLE), rarely(fc.constant(true))],
  )
  .map(([map, seenTask, seenRequest, admission, isOfAnotherRun]) => {
    const knowsRequest = map !== null && (map.buildRequestId !== null || map.state === 'intended');
    const shared = map !== null && seenTask.kind === 'present' ? shareOf(map, seenTask.value, !isOfAnotherRun) : map;
    return {
      mapping: shared,
      task: seenTask,
      request: knowsRequest ? seenRequest : { kind: 'none' },
      admission,
    };
  });

/** A mapping has its task's deadline, and mostly follows its last run. */
function shareOf(map: Mapping, { deadline, runs }: TaskStatus, followsLast: boolean): Mapping {
  const runId = runs.at(-1)?.runId;
  return { ...map, deadline, ...(followsLast && runId !== undefined ? { runId } : {}) };
}

const names = (actions: readonly Action[]) => actions.map((action) => action.do);
const RESOLVING: readonly Action['do'][] = ['resolveRun', 'cancelTask', 'rerunTask'];

function check(property: (seen: Observation, actions: readonly Action[]) => void): void {
  fc.assert(
    fc.property(observation, (o) => property(o, decide(o, POLICY, NOW))),
    { numRuns: 5000 },
  );
}

function settled(o: Observation): Observation {
  return o.request.kind === 'present'
    ? { ...o, request: { ...o.request, value: { ...o.request.value, isSettling: false } } }
    : o;
}

describe('decide, for anything that can be seen', () => {
  it('comes to every action, so that what follows says something of each', () => {
    const done = fc.sample(observation, { numRuns: 5000, seed: 1 }).flatMap((o) => names(decide(o, POLICY, NOW)));
    const counts = Object.fromEntries(ACTION_KINDS.map((kind) => [kind, done.filter((name) => name === kind).length]));
    expect(Object.entries(counts).filter(([, count]) => count < 5)).toEqual([]);
  });

  it('never throws, gives the same answer twice, and a reason with every action', () => {
    check((o, actions) => {
      expect(decide(structuredClone(o), POLICY, NOW)).toEqual(actions);
      expect(actions.every(({ because }) => because.length > 0)).toBe(true);
    });
  });

  it('never leaves an open mapping without a next step', () => {
    check((o, actions) => expect(actions.length > 0 || o.mapping === null).toBe(true));
  });

  it('only reclaims and looks again while either side is unreadable', () => {
    check((o, actions) => {
      if (o.mapping !== null && (o.task.kind === 'unreadable' || o.request.kind === 'unreadable')) {
        expect(names(actions).filter((name) => name !== 'reclaimRun' && name !== 'lookAgain')).toEqual([]);
      }
    });
  });

  it('neither submits nor refuses while it cannot be read whether a task can be built', () => {
    check((o, actions) => {
      if (o.admission?.kind === 'unreadable') {
        const judging = ['recordIntent', 'submit', 'refuse'];
        expect(names(actions).filter((name) => judging.includes(name))).toEqual([]);
        // That it is refused is known by then, and soon nobody could tell.
        const isKnown = o.mapping?.state === 'refusing' && isLastChance(o.mapping.deadline, NOW);
        const isTold = actions.some((action) => action.do === 'uploadExplanation' && action.about === 'refused');
        expect(isTold && !isKnown).toBe(false);
      }
    });
  });

  it('resolves a run at most once, only its own running one, and uploads before', () => {
    check((o, actions) => {
      const resolving = actions.filter((action) => RESOLVING.includes(action.do));
      expect(resolving.length).toBeLessThanOrEqual(1);
      const index = actions.findIndex((action) => action.do === 'resolveRun');
      const action = actions[index];
      if (action?.do === 'resolveRun') {
        const last = o.task.kind === 'present' ? o.task.value.runs.at(-1) : undefined;
        expect(last).toMatchObject({ runId: action.runId, state: 'running', workerId: POLICY.workerId });
        expect(names(actions.slice(0, index))).toContainEqual(expect.stringMatching(/^upload/));
      }
    });
  });

  it('does nothing to a resolved run but end what is left of it, or rerun it after a RETRY', () => {
    check((o, actions) => {
      const last = o.task.kind === 'present' ? o.task.value.runs.at(-1) : undefined;
      if (last && !['pending', 'running'].includes(last.state)) {
        const allowed = ['cancelRequest', 'closeMapping', 'adopt', 'lookAgain', 'noteAbsence', 'rerunTask'];
        expect(names(actions).filter((name) => !allowed.includes(name))).toEqual([]);
      }
    });
  });

  it('leaves a run alone that another worker has', () => {
    check((o, actions) => {
      const last = o.task.kind === 'present' ? o.task.value.runs.at(-1) : undefined;
      if (last?.workerId === 'somebody-else') {
        const touching = ['claimRun', 'reclaimRun', 'resolveRun', 'cancelTask', 'rerunTask', 'submit'];
        expect(names(actions).filter((name) => touching.includes(name))).toEqual([]);
      }
    });
  });

  it('never submits while a request of the mapping exists', () => {
    check((o, actions) => {
      if (o.request.kind === 'present' || o.request.kind === 'unreadable') {
        expect(names(actions)).not.toContain('submit');
      }
    });
  });

  it('comes to rest', () => {
    fc.assert(
      fc.property(observation, (o) => {
        const end = settle(o, 24);
        expect({ isAtRest: end.isAtRest, done: names(end.done) }).toMatchObject({ isAtRest: true });
      }),
      { numRuns: 5000 },
    );
  });

  it('comes to rest with claims of any length, and reclaims a run once at most', () => {
    fc.assert(
      fc.property(observation, fc.integer({ min: -5 * MINUTE, max: 60 * MINUTE }), (o, claimMs) => {
        const end = settle(o, 24, claimMs);
        const reclaimed = end.done.flatMap((action) => (action.do === 'reclaimRun' ? [action.runId] : []));
        expect({ isAtRest: end.isAtRest, reclaimed }).toEqual({ isAtRest: true, reclaimed: [...new Set(reclaimed)] });
      }),
      { numRuns: 5000 },
    );
  });

  it('looks again at a claim before it runs out, and then reclaims it', () => {
    const claims = fc.integer({ min: 2000, max: 60 * MINUTE });
    fc.assert(
      fc.property(claims, fc.integer({ min: 0, max: 999 }), (claimMs, part) => {
        const takenUntil = NOW + claimMs;
        const reclaimAt = reclaimTime(takenUntil, POLICY.reclaimThresholdMs, NOW);
        expect(reclaimAt).toBeGreaterThan(NOW);
        expect(reclaimAt).toBeLessThan(takenUntil);
        const building = aRequest({ state: 'building', builds: [aBuild(undefined)] });
        const at = (now: number) =>
          decide(
            {
              mapping: aMapping({ takenUntil, reclaimAt }),
              task: { kind: 'present', value: aTask([ours(takenUntil)], { deadline: NOW + 90 * MINUTE }) },
              request: { kind: 'present', value: building },
              admission: null,
            },
            POLICY,
            now,
          );
        expect(at(NOW)).toEqual([expect.objectContaining({ do: 'lookAgain' })]);
        const now = NOW + Math.floor((claimMs * part) / 1000);
        const [action] = at(now);
        expect(action?.do).toBe(now >= reclaimAt ? 'reclaimRun' : 'lookAgain');
        expect(action?.do === 'lookAgain' && action.at > reclaimAt).toBe(false);
      }),
      { numRuns: 2000 },
    );
  });

  it('reclaims in time what was claimed by a clock that is or was ahead, and by such a clock not without end', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 24 * 60 * MINUTE }), fc.boolean(), (ahead, isNear) => {
        const aheadMs = isNear ? ahead % (25 * MINUTE) : ahead;
        const takenUntil = NOW + 20 * MINUTE;
        const reclaimAt = reclaimTime(takenUntil, POLICY.reclaimThresholdMs, NOW + aheadMs);
        const isDue = (now: number) =>
          reclaimDue({ takenUntil, reclaimAt }, takenUntil, POLICY.reclaimThresholdMs, now) <= now;
        expect(isDue(NOW + aheadMs)).toBe(false);
        // By a clock that is right, or has been set back.
        expect(isDue(NOW + 10 * MINUTE) || isDue(NOW + 13 * MINUTE)).toBe(true);
        expect(isDue(NOW + 9 * MINUTE)).toBe(false);
      }),
      { numRuns: 5000 },
    );
  });

  it('at rest, does not keep a run claimed that no request stands behind', () => {
    fc.assert(
      fc.property(observation, (o) => {
        // What is on its way comes some time, and then the run is resolved.
        const { observation: end } = settle(settled(settle(o, 24).observation), 24);
        const last = end.task.kind === 'present' ? end.task.value.runs.at(-1) : undefined;
        if (end.mapping === null || (last?.runId ?? -1) < end.mapping.runId) {
          return;
        }
        const isClaimed = last?.state === 'running' && last.workerId === POLICY.workerId;
        // Past its deadline no task can be canceled: the queue resolves the run.
        const isLeftToQueue =
          end.request.kind === 'present' && end.request.value.results === 'CANCELLED' && end.mapping.deadline <= NOW;
        if (isClaimed && end.request.kind === 'present' && !isLeftToQueue) {
          expect(end.request.value.state).not.toBe('complete');
        }
      }),
      { numRuns: 5000 },
    );
  });
});
