/** What a campaign asks for, and when: by its seed alone, whatever the servers do. */
import { FATES, type Fate } from './fates.ts';
import type { Fault, Place } from './faults.ts';
import type { Random, Streams } from './random.ts';

export interface PlannedTask {
  /** Since the beginning. */
  readonly atMs: number;
  readonly fate: Fate;
}

export interface PlannedFault {
  /** Since the beginning. */
  readonly atMs: number;
  readonly place: string;
  readonly fault: Fault;
  /** For what happens in it: its own, so that nothing else that goes on changes it. */
  readonly random: Random;
}

/** Every fate in turn, at uneven times. */
export function planTasks(streams: Streams, { tasks, ms }: { tasks: number; ms: number }): readonly PlannedTask[] {
  const random = streams('tasks');
  let atMs = 0;
  return Array.from({ length: tasks }, (_, index) => {
    const task = { atMs, fate: FATES[index % FATES.length] ?? FATES[0] };
    atMs += (ms / tasks) * 0.9 * (0.5 + random.next());
    return task;
  });
}

/**
 * Of these places, in the order of time. Each kind of fault is asked for before any comes again, and at least once where
 * the time is long enough for all of a place, one after the other.
 */
export function planFaults(places: readonly Place[], streams: Streams, ms: number): readonly PlannedFault[] {
  return places.flatMap((place) => planPlace(place, streams, ms)).sort((a, b) => a.atMs - b.atMs);
}

function planPlace({ name, gapMs, faults }: Place, streams: Streams, ms: number): readonly PlannedFault[] {
  const random = streams(`faults of ${name}`);
  const [shortest] = gapMs;
  const longest = Math.max(shortest, Math.min(gapMs[1], Math.floor((ms - 1) / faults.length)));
  const planned: PlannedFault[] = [];
  let bag: readonly Fault[] = [];
  for (let atMs = random.between(300, longest); atMs < ms; atMs += random.between(shortest, longest)) {
    if (bag.length === 0) {
      bag = shuffled(faults, random);
    }
    const [fault, ...rest] = bag;
    if (fault !== undefined) {
      planned.push({ atMs, place: name, fault, random: streams(`fault ${planned.length} of ${name}`) });
    }
    bag = rest;
  }
  return planned;
}

/** Each as often as its weight says, so that none is left out by chance for long; first all of them once. */
function shuffled(faults: readonly Fault[], random: Random): readonly Fault[] {
  return faults
    .flatMap((fault) => Array.from({ length: fault.weight }, (_, round) => ({ fault, round, rank: random.next() })))
    .sort((a, b) => a.round - b.round || a.rank - b.rank)
    .map(({ fault }) => fault);
}
