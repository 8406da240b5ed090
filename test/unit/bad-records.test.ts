/** One record of Buildbot's that cannot be read, among others that can: it spoils no other request. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { type Catalogue, createCatalogue } from '../../src/buildbot/data-api/catalogue.ts';
import { reasonOf } from '../../src/buildbot/data-api/force-parameters.ts';
import { createRequestReader, type RequestReader } from '../../src/buildbot/data-api/requests.ts';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { systemClock } from '../../src/clock.ts';
import { countInputs } from '../support/count-inputs.ts';
import { type HostileServer, startHostileServer } from '../support/hostile-server.ts';

type Given = Record<string, unknown>;
const aRequest = (id: number, more: Given = {}): Given => ({
  ...{ buildrequestid: id, buildsetid: 10 + id, builderid: 5, complete: false, results: -1, ...more },
});
const aBuild = (id: number, more: Given = {}): Given => ({
  ...{ buildid: 100 + id, number: id, builderid: 5, buildrequestid: id, workerid: 6, complete: false, results: null },
  ...{ state_string: 'building', started_at: 1, complete_at: null, ...more },
});

let server: HostileServer;
let given: {
  buildrequests: unknown[];
  builds: unknown[];
  buildsets: unknown[];
  builders: unknown[];
  workers: unknown[];
  forceschedulers: unknown[];
};
let inputs: ReturnType<typeof countInputs>;
let reader: RequestReader;
let catalogue: Catalogue;
const undo: (() => unknown)[] = [];

/** Those of the ids that the query names; a record without an id is found by each that `strays` says. */
const asked = (line: string) => [...line.matchAll(/buildrequestid(?:__in)?=(\d+)/g)].map(([, id]) => Number(id));
let strays: (ids: readonly number[]) => readonly unknown[];

beforeEach(async () => {
  strays = () => [];
  given = {
    buildrequests: [1, 2, 3].map((id) => aRequest(id)),
    builds: [1, 2, 3].map((id) => aBuild(id)),
    buildsets: [],
    builders: [{ builderid: 5, name: 'linux' }],
    workers: [{ workerid: 6, name: 'w' }],
    forceschedulers: [],
  };
  server = await startHostileServer('answers of a Data API, a web status or Self-serve', (line) => {
    const ids = line.includes('/builds?') ? asked(line) : [];
    // No request has the id 0: so a reader learns whether several can be asked for at once.
    const builds = ids.includes(0) ? [] : [...given.builds, ...strays(ids)];
    return { kind: 'says', body: JSON.stringify({ ...given, builds }) };
  });
  inputs = countInputs();
  const rest = createRestClient({ url: server.url, session: createSession(server.url), retries: 0, inputs });
  catalogue = createCatalogue(rest, systemClock, 'f', { inputs });
  reader = createRequestReader(rest, catalogue, server.url, inputs);
  undo.push(
    () => rest.close(),
    () => server.stop(),
  );
});
afterEach(async () => {
  for (const work of undo.splice(0)) {
    await work();
  }
});

const kinds = async (ids = [1, 2, 3]) => [...(await reader.readMany(ids))].map(([id, { kind }]) => `${id} ${kind}`);
/** Calls by which a reader learns, once, how builds can be asked for. */
const TO_LEARN = 2;
const REJECTED = 'rejected legacy-ci-answer';

describe('among three requests', () => {
  it('all are read with as many calls as there are collections', async () => {
    expect(await kinds()).toEqual(['1 present', '2 present', '3 present']);
    expect(server.calls).toHaveLength(4 + TO_LEARN);
    expect(inputs.counts).toEqual({});
  });

  it('one bad build makes its request unreadable, which says why', async () => {
    given.builds[1] = aBuild(2, { state_string: null });
    expect(await kinds()).toEqual(['1 present', '2 unreadable', '3 present']);
    expect(server.calls).toHaveLength(4 + TO_LEARN);
    expect(inputs.counts).toEqual({ [REJECTED]: 1 });
    const seen = (await reader.readMany([1, 2])).get(2);
    expect(seen).toMatchObject({
      error: { code: 'legacy-ci-protocol', message: expect.stringContaining('build request 2') },
    });
    expect(seen).toMatchObject({ error: { message: expect.stringContaining('state_string') } });
  });

  it('one bad request is unreadable, and not absent', async () => {
    given.buildrequests[0] = aRequest(1, { complete: 'perhaps' });
    expect(await kinds()).toEqual(['1 unreadable', '2 present', '3 present']);
    expect(inputs.counts).toEqual({ [REJECTED]: 1 });
  });

  it('a bad build of nobody knows whom is looked for in each singly', async () => {
    strays = (ids) => (ids.includes(3) ? [aBuild(3, { buildrequestid: null })] : []);
    expect(await kinds()).toEqual(['1 present', '2 present', '3 unreadable']);
    expect(inputs.counts).toEqual({ [REJECTED]: 1 });
  });

  it('very many bad builds of one make that one unreadable, and no other', async () => {
    const bad = Array.from({ length: 500 }, (_, at) => aBuild(at, { buildrequestid: 2, state_string: null }));
    strays = (ids) => (ids.includes(2) ? bad : []);
    expect(await kinds()).toEqual(['1 present', '2 unreadable', '3 present']);
    expect(inputs.counts).toEqual({ [REJECTED]: 1 });
  });

  it('a bad worker and a bad builder cost no more than their names', async () => {
    given.workers = [
      { workerid: 6, name: null },
      { workerid: 7, name: 'v' },
    ];
    given.builders = [null, { builderid: 5, name: 'linux' }];
    given.builds[2] = aBuild(3, { workerid: 7 });
    const seen = await reader.readMany([1, 2, 3]);
    expect(seen.get(1)).toMatchObject({ kind: 'present', value: { builder: 'linux' } });
    expect(seen.get(3)).toMatchObject({ kind: 'present', value: { builds: [{ worker: 'v' }] } });
    expect(inputs.counts).toEqual({ [REJECTED]: 2 });
  });
});

describe('among the ForceSchedulers', () => {
  const field = (more: Given = {}): Given => ({ name: 'x', fullName: 'x', type: 'text', ...more });
  const scheduler = (name: string, more: Given = {}): Given => ({
    ...{ name, builder_names: ['b'], all_fields: [field(more)] },
  });

  it("another's that cannot be read is no reason to read none", async () => {
    given.forceschedulers = [scheduler('odd', { type: null }), scheduler('f')];
    expect(await catalogue.forceScheduler()).toMatchObject({ name: 'f' });
    expect((await catalogue.forceSchedulers()).map(({ name }) => name)).toEqual(['f']);
    expect(inputs.counts).toEqual({});
  });

  it('the own is not missing where it stands behind very many that cannot be read', async () => {
    given.forceschedulers = [...Array.from({ length: 1001 }, () => scheduler('odd', { type: null })), scheduler('f')];
    await expect(catalogue.forceScheduler()).rejects.toMatchObject({ code: 'legacy-ci-protocol', isTransient: true });
    given.forceschedulers.reverse();
    expect(await catalogue.forceScheduler()).toMatchObject({ name: 'f' });
  });

  it('the own that cannot be read is not missing', async () => {
    given.forceschedulers = [scheduler('f', { type: null }), scheduler('other')];
    const error = { code: 'legacy-ci-protocol', isTransient: true, message: expect.stringContaining('type') };
    await expect(catalogue.forceScheduler()).rejects.toMatchObject(error);
    await expect(catalogue.forceSchedulers()).rejects.toMatchObject(error);
    expect(inputs.counts).toEqual({ [REJECTED]: 2 });
  });
});

describe('among the buildsets that name an external id', () => {
  const spec = { taskId: 'T', externalId: 'T/0/1' };
  const own = { bsid: 11, reason: `A build was forced by 'x': ${reasonOf(spec)}` };
  const find = (...buildsets: unknown[]) => {
    given.buildsets = buildsets;
    return reader.findByExternalId(spec);
  };

  it('a later bad one does not hide the own', async () => {
    expect(await find(own, { bsid: 12, reason: null })).toMatchObject({
      kind: 'present',
      value: { buildRequestId: 1 },
    });
    expect(inputs.counts).toEqual({ [REJECTED]: 1 });
  });

  it('a bad one that may be the own is not taken for none', async () => {
    const unreadable = { kind: 'unreadable', error: { code: 'legacy-ci-protocol' } };
    expect(await find({ bsid: 11, reason: null })).toMatchObject(unreadable);
    expect(await find({ ...own, bsid: null })).toMatchObject(unreadable);
    expect(await find(own, { bsid: 3, reason: null })).toMatchObject(unreadable);
    expect(inputs.counts).toEqual({ [REJECTED]: 3 });
  });

  it("a bad one with another's reason is another's", async () => {
    expect(await find({ bsid: null, reason: 'something else' })).toEqual({ kind: 'absent' });
  });

  it('that the build of the own cannot be read is what is said', async () => {
    given.builds[0] = aBuild(1, { number: 'x' });
    expect(await find(own)).toMatchObject({ kind: 'unreadable', error: { code: 'legacy-ci-protocol' } });
  });
});
