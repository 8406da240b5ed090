/** An answer that cannot be read: counted once, and one short line in the log, which names the task where it is known. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { createCatalogue } from '../../src/buildbot/data-api/catalogue.ts';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import type { RestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { namesOfMasters } from '../../src/buildbot/scheduler-db/builders.ts';
import { systemClock } from '../../src/clock.ts';
import { LegacyCiError } from '../../src/errors.ts';
import { createLog } from '../../src/log.ts';
import { createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import { createFaults, type Faults } from '../../src/sandbox/faults.ts';
import { countInputs } from '../support/count-inputs.ts';
import { eventually } from '../support/eventually.ts';
import { type HttpGate, startHttpGate } from '../support/http-gate.ts';
import { clientOf, WORKER } from '../support/queue-client.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { startSmallBridge } from '../support/small-bridge.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

type Lines = readonly Readonly<Record<string, unknown>>[];

/** What a person reads of what went wrong; at `debug` it may be told again. */
const errorsIn = (lines: Lines) => lines.filter(({ err, level }) => err !== undefined && level !== 'debug');

/** Long, and much of it has to be escaped. */
const NOISE = '"\u0001\\\n'.repeat(3000);
const GARBAGE = `<html>${NOISE}`;
const NO_STATUS = JSON.stringify({ status: { taskId: NOISE, runs: Array.from({ length: 100 }, () => ({})) } });
const EMPTY_RECORDS = JSON.stringify({ buildrequests: [{ [NOISE]: 1 }], builds: NOISE });

async function startStage() {
  const inputs = countInputs();
  const faults = createFaults();
  const buildbot = createBuildbotEmulator({
    ...{ clock: systemClock, version: '3.7', faults },
    builders: [
      { name: 'runtests', workers: ['w'], attempts: [{ results: 0, durationMs: 600_000 }] },
      { name: 'quick', workers: ['v'], attempts: [{ results: 0, durationMs: 1 }] },
    ],
    forceSchedulers: [{ name: 'bridge', builderNames: ['runtests', 'quick'], parameters: [{ name: 'taskId' }] }],
  });
  await buildbot.start();
  undo.push(() => buildbot.stop());
  const ci = await startHttpGate(buildbot.url);
  undo.push(() => ci.stop());
  const gates: HttpGate[] = [ci];
  const dataApi = createDataApi({
    ...{ url: ci.url, forceScheduler: 'bridge', collapseGuard: false, clock: systemClock, inputs },
  });
  undo.push(() => dataApi.close());
  const small = await startSmallBridge(undo, dataApi, {
    // Whatever is looked at is looked at by the test.
    services: [],
    metrics: { inputs },
    async queueOf(rootUrl) {
      const gate = await startHttpGate(rootUrl);
      undo.push(() => gate.stop());
      gates.push(gate);
      return clientOf(gate.url, { clock: systemClock, inputs, retries: 0 });
    },
  });
  const [, queue = ci] = gates;
  const { bridge, store, lines } = small;
  const pass = (taskId: string) => bridge.reconciler.reconcile(taskId);
  const stateOf = async (taskId: string) => (await store.openMapping(taskId))?.state;

  return {
    ...{ inputs, faults, queue, ci, lines, pass },
    async round() {
      // The bridge's clock, which is set by the database's, may be a little behind.
      await store.makeAllDue(Date.now() - 1000);
      await bridge.reflector.runOnce();
    },
    create: (buildername: string) => small.create({ payload: { buildername } }),
    async submitted(buildername = 'runtests'): Promise<string> {
      const taskId = await small.create({ payload: { buildername } });
      await pass(taskId);
      expect(await stateOf(taskId)).toBe('submitted');
      return taskId;
    },
    /** Its build goes on, or is over where its builder is quick. */
    async building(buildername = 'runtests'): Promise<string> {
      const taskId = await this.submitted(buildername);
      const id = (await store.openMapping(taskId))?.buildRequestId ?? 0;
      await eventually(async () => {
        const seen = (await dataApi.readMany([id])).get(id);
        const state = buildername === 'quick' ? 'complete' : 'building';
        return seen?.kind === 'present' && seen.value.state === state;
      });
      return taskId;
    },
    async claimed(): Promise<string> {
      const taskId = await this.building();
      await pass(taskId);
      return taskId;
    },
    /** Claimed, and of no mapping. */
    async unmapped(): Promise<string> {
      const taskId = await small.create();
      await small.client.claimTask(taskId, 0, WORKER);
      return taskId;
    },
    /** A task whose request could not be asked for. */
    async intended(given: Faults): Promise<string> {
      const outcome = { kind: 'status', status: 500 } as const;
      given.http.push({ method: 'POST', path: /forceschedulers/, takesEffect: false, times: 1, outcome });
      const taskId = await small.create();
      await pass(taskId);
      expect(await stateOf(taskId)).toBe('intended');
      lines.length = 0;
      return taskId;
    },
  };
}

type Stage = Awaited<ReturnType<typeof startStage>>;
type Side = 'queue' | 'ci';

interface Case {
  readonly name: string;
  readonly side: Side;
  readonly match: RegExp;
  readonly body: string;
  /** Brings a task as far as the answer is asked for next; answers its id. */
  readonly before: (stage: Stage) => Promise<string>;
  readonly act: (stage: Stage, taskId: string) => Promise<unknown>;
  /** What the line names; the task unless given. */
  readonly names?: 'nothing';
}

const pass: Case['act'] = (stage, taskId) => stage.pass(taskId);
const round: Case['act'] = (stage) => stage.round();
const fresh: Case['before'] = (stage) => stage.create('runtests');

const CASES: readonly Case[] = [
  {
    ...{ name: 'a status, of a task that is new', side: 'queue', match: /^GET .*\/status$/, body: NO_STATUS },
    ...{ before: fresh, act: pass },
  },
  {
    ...{ name: 'a status, of a task that is submitted', side: 'queue', match: /^GET .*\/status$/, body: GARBAGE },
    ...{ before: (stage) => stage.submitted(), act: pass },
  },
  {
    ...{ name: 'a definition', side: 'queue', match: /^GET .*\/task\/[\w-]{22}$/, body: NO_STATUS },
    ...{ before: fresh, act: pass },
  },
  {
    ...{ name: 'a claim', side: 'queue', match: /\/claim$/, body: NO_STATUS },
    ...{ before: (stage) => stage.building(), act: pass },
  },
  {
    ...{ name: 'a round’s statuses', side: 'queue', match: /^POST .*\/tasks\/status/, body: NO_STATUS },
    ...{ before: (stage) => stage.claimed(), act: round },
  },
  {
    // It is more than the sweep can tell from its own reading, so a pass goes on with that.
    ...{ name: 'a round’s statuses, of a task that is to be submitted', side: 'queue', body: NO_STATUS },
    match: /^POST .*\/tasks\/status/,
    before: (stage) => stage.intended(stage.faults),
    // Until its turn comes, when the call without an answer is out of the question.
    act: (stage) =>
      eventually(async () => {
        await stage.round();
        return stage.inputs.counts['rejected queue-answer'] === 1;
      }),
  },
  {
    ...{ name: 'a round’s statuses, of a claimed task without a mapping', side: 'queue', body: GARBAGE },
    ...{ match: /^POST .*\/tasks\/status/, before: (stage) => stage.unmapped(), act: round },
  },
  {
    ...{ name: 'a round’s list of pending tasks', side: 'queue', match: /\/pending/, body: NO_STATUS },
    ...{ before: (stage) => stage.submitted(), act: round, names: 'nothing' },
  },
  {
    ...{ name: 'a round’s list of claimed tasks', side: 'queue', match: /\/claimed/, body: GARBAGE },
    ...{ before: (stage) => stage.submitted(), act: round, names: 'nothing' },
  },
  {
    ...{ name: 'the ForceSchedulers', side: 'ci', match: /^GET .*\/forceschedulers/, body: GARBAGE },
    ...{ before: fresh, act: pass },
  },
  {
    ...{ name: 'a force call', side: 'ci', match: /^POST .*\/forceschedulers/, body: GARBAGE },
    ...{ before: fresh, act: pass },
  },
  {
    ...{ name: 'a force call, in JSON', side: 'ci', match: /^POST .*\/forceschedulers/, body: NO_STATUS },
    ...{ before: fresh, act: pass },
  },
  {
    ...{ name: 'a build request', side: 'ci', match: /\/buildrequests\?/, body: GARBAGE },
    ...{ before: (stage) => stage.submitted(), act: pass },
  },
  {
    ...{ name: 'its builds', side: 'ci', match: /\/builds\?/, body: EMPTY_RECORDS },
    ...{ before: (stage) => stage.claimed(), act: pass },
  },
  {
    ...{ name: 'a round’s build requests', side: 'ci', match: /\/buildrequests\?/, body: EMPTY_RECORDS },
    ...{ before: (stage) => stage.submitted(), act: round },
  },
  {
    ...{ name: 'a round’s builds', side: 'ci', match: /\/builds\?/, body: GARBAGE },
    ...{ before: (stage) => stage.claimed(), act: round },
  },
  {
    ...{ name: 'the properties of a build', side: 'ci', match: /\/properties/, body: GARBAGE },
    ...{ before: (stage) => stage.building('quick'), act: pass },
  },
];

const SOURCES: Readonly<Record<Side, string>> = { queue: 'rejected queue-answer', ci: 'rejected legacy-ci-answer' };

describe('is said once, in short:', () => {
  let stage: Stage;
  beforeEach(async () => {
    stage = await startStage();
  });

  it.each(CASES)('$name ($side)', async ({ side, match, body, before, act, names }) => {
    const taskId = await before(stage);
    expect(stage.inputs.counts).toEqual({});
    stage[side].replace(match, body);
    await act(stage, taskId);
    expect(stage.inputs.counts).toEqual({ [SOURCES[side]]: 1 });
    const said = errorsIn(stage.lines);
    expect(said).toHaveLength(1);
    expect(JSON.stringify(said[0]).length).toBeLessThan(1500);
    expect(said[0]?.taskId).toBe(names === 'nothing' ? undefined : taskId);
  });

  it('those of both sides in one look, each', async () => {
    const taskId = await stage.submitted();
    stage.queue.replace(/^GET .*\/status$/, NO_STATUS);
    stage.ci.replace(/\/buildrequests\?/, GARBAGE);
    await stage.pass(taskId);
    expect(stage.inputs.counts).toEqual({ [SOURCES.queue]: 1, [SOURCES.ci]: 1 });
    const said = errorsIn(stage.lines);
    expect(said.map((line) => line.taskId)).toEqual([taskId, taskId]);
    expect(new Set(said.map(({ err }) => JSON.stringify(err))).size).toBe(2);
  });

  it('one about several tasks, which names them', async () => {
    const taskIds = [await stage.submitted(), await stage.submitted()];
    stage.queue.replace(/^POST .*\/tasks\/status/, NO_STATUS);
    await stage.round();
    const said = errorsIn(stage.lines);
    expect(said).toMatchObject([{ count: 2 }]);
    expect(JSON.stringify(said[0]).length).toBeLessThan(1500);
    expect([said[0]?.taskIds].flat().sort()).toEqual(taskIds.sort());
  });
});

describe('is said where what was read before counts on:', () => {
  const lines: Record<string, unknown>[] = [];
  const log = createLog({ level: 'info', destination: { write: (line) => void lines.push(JSON.parse(line)) } });
  const bad = new LegacyCiError('legacy-ci-protocol', 'nonsense', { isTransient: true });
  beforeEach(() => {
    lines.length = 0;
  });

  it('the ForceSchedulers', async () => {
    const clock = createManualClock(0);
    let isBad = false;
    const rest: RestClient = {
      async get(_path, answer) {
        if (isBad) {
          throw bad;
        }
        return answer.parse({ forceschedulers: [{ name: 'f', builder_names: ['b'], all_fields: [] }] });
      },
      control: () => Promise.reject(bad),
      stream: () => {
        throw bad;
      },
      close: () => undefined,
    };
    const catalogue = createCatalogue(rest, clock, 'f', { log });
    await catalogue.forceScheduler();
    clock.advance(60_000);
    isBad = true;
    const all = await Promise.all(Array.from({ length: 16 }, () => catalogue.forceScheduler()));
    expect(all.map(({ name }) => name)).toEqual(Array.from({ length: 16 }, () => 'f'));
    expect(await catalogue.forceScheduler()).toMatchObject({ name: 'f' });
    expect(errorsIn(lines)).toMatchObject([{ err: { message: 'nonsense' } }]);
    clock.advance(11_000);
    await catalogue.forceScheduler();
    expect(errorsIn(lines)).toHaveLength(2);
  });

  it.each([
    ['the builders of one of two masters', 'b', 1],
    ['the builders of both, where nobody knows the wanted one', 'nope', 2],
  ])('%s', async (_what, wanted, count) => {
    const [good, other] = [{ builders: async () => new Set(['b']) }, { builders: () => Promise.reject(bad) }];
    const failed = await namesOfMasters(count === 1 ? [good, other] : [other, other], wanted, log).then(
      () => 0,
      () => 1,
    );
    // What is thrown is said by whoever looks at the task.
    expect(errorsIn(lines).length + failed).toBe(count);
  });
});
