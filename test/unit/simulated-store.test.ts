/**
 * The mapping database of the simulation answers as the real one does: what the simulation shows of the bridge is worth
 * as much as that. Both are asked the same, at times, by owners and with versions that go by turns and are often stale.
 */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Knex } from 'knex';
import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import { readMapping } from '../../src/db/rows.ts';
import { type Mapping, type MappingChanges, OPEN_STATES } from '../../src/domain/mapping.ts';
import type { MappingStore } from '../../src/ports.ts';
import { createStorePort } from '../../src/sandbox/simulation/store-port.ts';
import { createStoreState, type StoreState } from '../../src/sandbox/simulation/store-state.ts';

const RUNS = 150;
/** A thousand statements a second, on a machine that is busy. */
const LIMIT_MS = 120_000;
const MINUTE = 60_000;
const TASKS = ['t0', 't1', 't2', 't3'] as const;
/** Keys are told apart by case, and long ones are kept as something shorter. */
const KEYS = ['k', 'K', 'k'.repeat(80)] as const;
const REQUESTS = [1, 2, 3] as const;
/** Between two whole minutes by the real clock, which `mendTimes` goes by: a moment more or less changes nothing. */
const LONGEST = { leaseMs: 1.5 * MINUTE, waitMs: 2.5 * MINUTE, graceMs: 0.5 * MINUTE };
/** Of the database's clock, between one statement and the next. */
const MOMENT_MS = MINUTE / 4;

const STORING = ['insert', 'adopt', 'update', 'release'] as const;
const LEASING = [
  'lease',
  'leaseDue',
  'renewLease',
  'releaseMany',
  'keepLeased',
  'giveBack',
  'makeAllDue',
  'mendTimes',
] as const;
const OPEN = ['openMapping', 'tasksOfRequests', 'ownAmong', 'openRequests', 'unwantedAmong', 'openAmong'] as const;
const OTHERS = ['hasUnclaimed', 'nextHeld', 'mappingsOf', 'addEvents', 'eventsOf', 'prune'] as const;
const NAMES = [...STORING, ...LEASING, ...OPEN, ...OTHERS];
type Name = (typeof NAMES)[number];
/** What most of the others need first. */
const OFTEN: readonly Name[] = ['insert', 'insert', 'lease', 'leaseDue', 'update', 'update', 'release', 'release'];

/** What a call may need; each takes its part. Times are minutes from the beginning, and do not only go forward. */
const step = fc.record({
  call: fc.constantFrom(...NAMES, ...OFTEN),
  task: fc.constantFrom(...TASKS),
  owner: fc.constantFrom('a#1', 'b#1'),
  now: fc.nat(8),
  duration: fc.integer({ min: -1, max: 3 }),
  limit: fc.integer({ min: 1, max: 3 }),
  key: fc.oneof({ weight: 4, arbitrary: fc.constant(KEYS[0]) }, fc.constantFrom(...KEYS)),
  /** Of those that the legacy CI does not collapse. */
  isAlone: fc.nat(4).map((one) => one === 4),
  /** How many answers ago the mapping was read that is written. */
  age: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.nat(6)),
  isLoose: fc.boolean(),
  state: fc.constantFrom(...OPEN_STATES),
  hasSlot: fc.boolean(),
  takenUntil: fc.option(fc.nat(8)),
  priority: fc.nat(2),
  request: fc.option(fc.constantFrom(...REQUESTS)),
  text: fc.constantFrom(null, 'away', 'x'.repeat(2100)),
  changes: fc.record(
    {
      runId: fc.nat(3),
      state: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...OPEN_STATES) }, fc.constant('closed' as const)),
      buildRequestId: fc.option(fc.constantFrom(...REQUESTS)),
      hasSlot: fc.constantFrom(undefined, true, true, false),
      priority: fc.nat(2),
      cancels: fc.nat(2),
      takenUntil: fc.option(fc.nat(8)),
      reclaimAt: fc.option(fc.nat(8)),
      /** Not always a whole millisecond. */
      nextCheckAt: fc.oneof(fc.nat(8), fc.constant(3 + 0.4 / MINUTE)),
      absentSince: fc.option(fc.nat(8)),
      attempts: fc.oneof(fc.nat(6), fc.constant(1000)),
      lastError: fc.constantFrom(null, 'away', 'x'.repeat(2100)),
      resolution: fc.constantFrom('completed', 'x'.repeat(80)),
    },
    { requiredKeys: ['hasSlot'] },
  ),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** What a step is asked about. */
interface Situation {
  at(minutes: number): number;
  /** A mapping that was read a while ago. */
  read(): Mapping;
  /** Several of these. */
  readonly reads: readonly Mapping[];
}

type Call = (store: MappingStore, step: Step, situation: Situation) => Promise<unknown>;

const lease = ({ owner, now, duration }: Step, { at }: Situation) => ({
  ...{ owner, now: at(now), leaseUntil: at(now + duration) },
});

function aNew({ task, state, key, isAlone, hasSlot, priority, takenUntil }: Step, { at }: Situation) {
  return {
    ...{ taskId: task, runId: 0, taskGroupId: task, builder: 'b', state, externalId: `${task}/0/1`, submissions: 1 },
    ...{ collapseKey: isAlone ? null : key, hasSlot, priority, deadline: at(60) },
    takenUntil: takenUntil === null ? null : at(takenUntil),
  };
}

function changesOf({ changes, now }: Step, { at, read }: Situation): MappingChanges {
  const { state, hasSlot, nextCheckAt, takenUntil, reclaimAt, absentSince, ...plain } = changes;
  const times = Object.entries({ takenUntil, reclaimAt, absentSince }).filter(([, time]) => time !== undefined);
  return {
    ...plain,
    ...Object.fromEntries(times.map(([key, time]) => [key, time === null || time === undefined ? null : at(time)])),
    // Nobody opens again what is closed.
    ...(read().state === 'closed'
      ? {}
      : {
          ...(state === undefined ? {} : { state }),
          ...(state === 'closed' ? { resolved: at(now) } : {}),
          ...(hasSlot === undefined ? {} : { hasSlot }),
          ...(nextCheckAt === undefined ? {} : { nextCheckAt: at(nextCheckAt) }),
        }),
  };
}

/** Sorted where no order is promised. */
const sorted = <T extends string | number>(values: Iterable<T>) => [...values].sort();

const CALLS: Readonly<Record<Name, Call>> = {
  insert: (store, step, now) => store.insert(aNew(step, now), lease(step, now)),
  adopt: (store, step, now) =>
    store.adopt({ ...aNew(step, now), buildRequestId: step.request, retriesReported: step.priority }, now.at(step.now)),
  lease: (store, step, now) => store.lease(step.task, lease(step, now)),
  leaseDue: (store, step, now) => {
    const dueBy = now.at(step.now - step.duration);
    return store.leaseDue({ ...lease(step, now), limit: step.limit, ...(step.isLoose ? {} : { dueBy }) });
  },
  update: (store, step, now) => store.update(now.read(), changesOf(step, now), now.at(step.now)),
  release: (store, step, now) => store.release(now.read(), changesOf(step, now), now.at(step.now)),
  renewLease: (store, step, now) => store.renewLease(now.read(), now.at(step.now + step.duration), now.at(step.now)),
  releaseMany: (store, { text, now, duration }, { reads, at }) =>
    store.releaseMany(reads, { nextCheckAt: at(now + duration) + 0.4, lastError: text }, at(now)),
  keepLeased: (store, { now, duration }, { reads, at }) => store.keepLeased(reads, at(now + duration)),
  giveBack: (store, _step, { reads }) => store.giveBack(reads),
  makeAllDue: (store, { now }, { at }) => store.makeAllDue(at(now)),
  mendTimes: (store) => store.mendTimes(LONGEST),
  openMapping: (store, { task }) => store.openMapping(task),
  mappingsOf: (store, { task }) => store.mappingsOf(task),
  tasksOfRequests: async (store, { request }) =>
    sorted(await store.tasksOfRequests(request === null ? [] : [request, 9])),
  openRequests: async (store) => sorted(await store.openRequests()),
  ownAmong: async (store, { limit }) => sorted(await store.ownAmong(REQUESTS.slice(0, limit))),
  unwantedAmong: async (store, { limit }) => sorted(await store.unwantedAmong(REQUESTS.slice(0, limit))),
  openAmong: async (store, { limit }) => sorted(await store.openAmong(TASKS.slice(0, limit))),
  hasUnclaimed: (store, { key, isLoose }, { read }) => store.hasUnclaimed(key, isLoose ? null : read().id),
  nextHeld: (store, { key }) => store.nextHeld(key),
  addEvents: (store, { task, now, owner, priority }, { at }) =>
    store.addEvents(
      [0, 1].map((count) => ({
        ...{ taskId: task, runId: priority, at: at(now), instance: owner, what: `${count}`, detail: '' },
      })),
    ),
  eventsOf: (store, { task, limit, isLoose }) => (isLoose ? store.eventsOf(task) : store.eventsOf(task, limit)),
  async prune(store, { now, limit }, { at }) {
    const count = await store.prune(at(now), limit);
    // Which ones a limit leaves is not promised, nor when traces of old go: the rest goes at once.
    await store.prune(at(now), 1000);
    return count;
  },
};

let db: Knex;
beforeAll(async () => {
  db = connect('sqlite::memory:');
  await migrate(db);
});
afterAll(() => db.destroy());

/** Both stores, empty. */
async function openBoth() {
  // With the last one the ids begin anew.
  for (const table of ['tasks', 'events', 'sqlite_sequence']) {
    await db(table).delete();
  }
  const real = createMappingStore(db);
  const began = await real.now();
  let databaseNow = began;
  const state = createStoreState({ onWrite() {}, onOverwritten() {}, onPruned() {}, onTrace() {} });
  const simulated = createStorePort({ call: async (_call, effect) => effect() }, state, () => databaseNow);
  return {
    ...{ real, simulated, state, began },
    async tellTime() {
      databaseNow = await real.now();
    },
  };
}

async function realRows(): Promise<readonly Mapping[]> {
  const rows: unknown[] = await db('tasks').orderBy('id');
  return rows.map((row) => readMapping(row).mapping ?? missing());
}
function missing(): never {
  throw new Error('there is no such mapping: a bug of this test');
}

/** Times that the database's clock gave both, a moment apart, are the same from then on. */
function settle(state: StoreState, rows: readonly Mapping[]): void {
  const isNear = (a: number, b: number) => Math.abs(a - b) < MOMENT_MS;
  for (const { id, nextCheckAt, leaseUntil } of rows) {
    const row = state.rows.get(id);
    if (row && isNear(row.nextCheckAt, nextCheckAt) && isNear(row.leaseUntil, leaseUntil)) {
      state.rows.set(id, { ...row, nextCheckAt, leaseUntil });
    }
  }
}

/** What the most urgent are chosen by. */
const urgencyAt =
  (now: number) =>
  ({ takenUntil, reclaimAt, nextCheckAt, state }: Mapping) =>
    `${(reclaimAt === null || reclaimAt <= now) && state !== 'cancelling' ? takenUntil : null}, ${nextCheckAt}`;

/** Whether the two took different leases of mappings that are equally urgent: of these the port promises nothing. */
function isDraw(answers: readonly (readonly Mapping[])[], urgencyOf: (mapping: Mapping) => string): boolean {
  const ids = answers.map((leased) =>
    leased
      .map(({ id }) => id)
      .sort()
      .join(),
  );
  const urgencies = answers.map((leased) => leased.map(urgencyOf).join());
  return ids[0] !== ids[1] && urgencies[0] === urgencies[1];
}

/** Leases that were taken: in the order of urgency, and of equals in any. */
const inAnyOrder = (leased: readonly Mapping[], urgencyOf: (mapping: Mapping) => string) => ({
  order: leased.map(urgencyOf),
  mappings: [...leased].sort((a, b) => a.id - b.id),
});

/** In a word what came of a call. */
function labelOf(name: Name, answer: unknown, hasChanged: boolean): string {
  if (typeof answer === 'object' && answer !== null && 'kind' in answer) {
    return `${name}: ${answer.kind}`;
  }
  const isSomething = answer === undefined ? hasChanged : Array.isArray(answer) ? answer.length > 0 : Boolean(answer);
  return `${name}: ${isSomething ? 'something' : 'nothing'}`;
}

const isMapping = (value: unknown): value is Mapping =>
  typeof value === 'object' && value !== null && 'leaseUntil' in value;

/** All mappings in an answer, of which later calls take one. */
function mappingsIn(answer: unknown): readonly Mapping[] {
  const found = typeof answer === 'object' && answer !== null && 'mapping' in answer ? answer.mapping : answer;
  return (Array.isArray(found) ? found : [found]).filter(isMapping);
}

/** Asks both stores the same, until there is a draw. */
async function compare(first: Step, steps: readonly Step[], onMet: (label: string) => void): Promise<void> {
  const { real, simulated, state, began, tellTime } = await openBoth();
  const at = (minutes: number) => began + minutes * MINUTE;
  const seen: Mapping[] = [];
  let before: readonly Mapping[] = [];
  for (const step of [{ ...first, call: 'insert' } as const, ...steps]) {
    const name = step.call;
    const until = Math.max(0, seen.length - step.age);
    const recent = seen.slice(Math.max(0, until - step.limit), until);
    const reads = [...new Map(recent.map((mapping) => [mapping.id, mapping])).values()];
    const ask = (store: MappingStore) =>
      CALLS[name](store, step, { at, reads, read: () => seen.at(-1 - step.age) ?? seen[0] ?? missing() });
    await tellTime();
    const [answer, told] = [await ask(real), await ask(simulated)];
    const rows = await realRows();
    const leased = [answer, told].map(mappingsIn);
    if (name === 'leaseDue' && isDraw(leased, urgencyAt(at(step.now)))) {
      onMet('leaseDue: draw');
      return;
    }
    if (name === 'mendTimes') {
      settle(state, rows);
    }
    const [expected, found] =
      name === 'leaseDue' ? leased.map((each) => inAnyOrder(each, urgencyAt(at(step.now)))) : [answer, told];
    expect([name, found]).toEqual([name, expected]);
    expect([name, [...state.rows.values()]]).toEqual([name, rows]);
    onMet(labelOf(name, answer, JSON.stringify(rows) !== JSON.stringify(before)));
    seen.push(...mappingsIn(answer));
    before = rows;
  }
  for (const taskId of TASKS) {
    expect(await simulated.eventsOf(taskId)).toEqual(await real.eventsOf(taskId));
  }
}

/** What is worth comparing: that it is met is part of the test. In so many runs each is, about ten times or more. */
const WORTH: readonly string[] = [
  ...STORING.flatMap((name) => ['stored', 'conflict', 'slot-taken'].map((kind) => `${name}: ${kind}`)),
  ...['lease: leased', 'lease: busy', 'lease: none', 'renewLease: stored', 'renewLease: conflict'],
  ...[...LEASING, ...OPEN, ...OTHERS]
    .filter((name) => name !== 'lease' && name !== 'renewLease' && name !== 'addEvents')
    .flatMap((name) => [`${name}: something`, `${name}: nothing`]),
];

it(
  'answers as the real one does, whatever is asked',
  async () => {
    const met = new Set<string>();
    await fc.assert(
      fc.asyncProperty(step, fc.array(step, { maxLength: 60, size: 'max' }), (first, steps) =>
        compare(first, steps, (label) => met.add(label)),
      ),
      { numRuns: RUNS },
    );
    expect(WORTH.filter((label) => !met.has(label))).toEqual([]);
  },
  LIMIT_MS,
);
