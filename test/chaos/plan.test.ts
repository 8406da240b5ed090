import { expect, it } from '@jest/globals';
import { placesOf } from './faults.ts';
import { planFaults, planTasks } from './plan.ts';
import { createStreams } from './random.ts';

const MS = 240_000;
/** Of the short form, which `npm test` runs with seed 1. */
const SHORT_MS = 60_000;
const PLACES = placesOf('mozilla');

/** What a seed asks for, with the first thing that each fault draws. */
function askedFor(seed: number, drawBefore = 0) {
  const streams = createStreams(seed);
  const planned = planFaults(PLACES, streams, MS);
  for (let drawn = 0; drawn < drawBefore; drawn += 1) {
    planned[0]?.random.next();
  }
  return planned.slice(1).map(({ atMs, place, fault, random }) => [atMs, place, fault.name, random.next()]);
}

it('asks for the same faults at the same times, by the seed alone', () => {
  expect(askedFor(1)).toEqual(askedFor(1));
  expect(askedFor(1, 7)).toEqual(askedFor(1));
  expect(askedFor(2)).not.toEqual(askedFor(1));
  const tasks = (seed: number) => planTasks(createStreams(seed), { tasks: 90, ms: MS }).map(({ atMs }) => atMs);
  expect(tasks(1)).toEqual(tasks(1));
  expect(tasks(2)).not.toEqual(tasks(1));
});

it('gives each stream numbers of its own', () => {
  const streams = createStreams(1);
  const drawn = ['tasks', 'faults of bridge', 'fault 0 of bridge', 'fault 1 of bridge'].map((name) =>
    streams(name).next(),
  );
  expect(new Set(drawn).size).toBe(drawn.length);
});

it.each([1, 2, 3, 4])('asks for every kind of fault at least three times in a long campaign (seed %d)', (seed) => {
  const asked = planFaults(PLACES, createStreams(seed), MS).map(({ fault }) => fault.name);
  const names = PLACES.flatMap(({ faults }) => faults.map(({ name }) => name));
  expect(names.filter((name) => asked.filter((one) => one === name).length < 3)).toEqual([]);
});

const ofNetwork = (to: string, cut = 'cut') => [
  ...[`connections to ${to} ${cut}`, `${to} slow`, `network to ${to} swallows everything`],
];
/** What a campaign has to break, whichever Buildbot it is on. */
const EVERYWHERE = [
  ...['bridge killed', 'bridge paused', 'all bridges restarted, one after the other'],
  ...['broker restarted', 'database restarted', 'master restarted', 'master killed', 'worker killed'],
  ...[...ofNetwork('the pulse'), ...ofNetwork('the database'), ...ofNetwork('the legacy'), 'Pulse queue deleted'],
  ...['queue answers 5xx', 'queue does not answer', 'queue slow', 'connections to the queue cut'],
  ...['messages dropped', 'messages repeated', 'messages delayed', 'messages re-ordered'],
];
const AT_SITE = [
  ...ofNetwork('Self-serve', 'cut again and again'),
  ...ofNetwork('the list of builders', 'cut again and again'),
];

it.each([
  ['data-api' as const, EVERYWHERE],
  ['mozilla' as const, [...EVERYWHERE, ...AT_SITE]],
])('asks for every kind of fault in the short form, whatever the seed (%s)', (kind, wanted) => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const asked = planFaults(placesOf(kind), createStreams(seed), SHORT_MS).map(({ fault }) => fault.name);
    expect([...new Set(asked)].sort()).toEqual([...wanted].sort());
  }
});

it.each([1, 2, 3, 4])('asks for many more than twenty faults in a minute (seed %d)', (seed) => {
  expect(planFaults(placesOf('data-api'), createStreams(seed), SHORT_MS).length).toBeGreaterThan(32);
});

it('breaks Self-serve and the list of builders where there are such, and all else as it does elsewhere', () => {
  const plan = (kind: 'data-api' | 'mozilla') =>
    planFaults(placesOf(kind), createStreams(1), MS).map(({ atMs, place, fault }) => ({ atMs, place, fault }));
  const ofSite = ({ place }: { place: string }) => place === 'Self-serve' || place === 'builders';
  expect(
    new Set(
      plan('mozilla')
        .filter(ofSite)
        .map(({ place }) => place),
    ).size,
  ).toBe(2);
  expect(plan('mozilla').filter((each) => !ofSite(each))).toEqual(plan('data-api'));
});
