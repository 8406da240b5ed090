import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { readCanceller } from '../../src/buildbot/data-api/canceller.ts';
import { createDataApi } from '../../src/buildbot/data-api/index.ts';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { systemClock } from '../../src/clock.ts';
import type { BuildSpec, LegacyCi } from '../../src/ports.ts';
import { Secret } from '../../src/secret.ts';
import { eventually } from '../support/eventually.ts';
import { type Buildbot, startBuildbot } from '../support/services/index.ts';

let buildbot: Buildbot;
let ci: LegacyCi;
let count = 0;
const AUTH = { username: 'bridge@example.com', password: 'a password: with = signs' };

function api(changes: Partial<Parameters<typeof createDataApi>[0]> = {}): LegacyCi {
  return createDataApi({
    url: buildbot.url,
    forceScheduler: 'bridge',
    username: AUTH.username,
    password: new Secret(AUTH.password),
    collapseGuard: true,
    clock: systemClock,
    ...changes,
  });
}

function spec(builder: string, properties: Record<string, unknown> = {}): BuildSpec & { readonly deadline: number } {
  count += 1;
  const taskId = `task-${count}`;
  return {
    ...{ taskId, runId: 0, externalId: `${taskId}/0/1`, priority: 'low', builder, properties },
    ...{ branch: 'main', revision: `r${count}`, repository: null, project: null },
    ...{ scheduled: Date.now(), deadline: Date.now() + 3_600_000 },
  };
}

async function view(id: number) {
  const seen = (await ci.readMany([id])).get(id);
  return seen?.kind === 'present' ? seen.value : undefined;
}

const complete = (id: number) =>
  eventually(
    async () => {
      const request = await view(id);
      return request?.state === 'complete' ? request : undefined;
    },
    { timeoutMs: 30_000, what: `build request ${id} to be complete` },
  );

beforeAll(async () => {
  buildbot = await startBuildbot({ auth: AUTH });
  ci = api();
});
afterAll(async () => {
  await ci?.close();
  await buildbot?.stop();
});

describe('the check at the start', () => {
  it('is content with a ForceScheduler that declares taskId', () => ci.check());

  it('names the lines to add to master.cfg', async () => {
    await expect(api({ forceScheduler: 'nope' }).check()).rejects.toThrow(
      /name="nope"[\s\S]*StringParameter\(name="taskId"/,
    );
    await expect(api({ forceScheduler: 'no-task-id' }).check()).rejects.toThrow(/util\.StringParameter\(name="taskId"/);
  });

  it('says of a master that is away that it may come back', async () => {
    await expect(api({ url: 'http://127.0.0.1:9' }).check()).rejects.toMatchObject({
      code: 'legacy-ci-unavailable',
      isTransient: true,
    });
  });
});

describe('control', () => {
  it('signs in when it is told to, and not with a wrong password', async () => {
    const wrong = api({ password: new Secret('wrong') });
    await expect(wrong.submit(spec('quick-1'))).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
    await wrong.close();
    const none = api({ username: undefined, password: undefined });
    await expect(none.submit(spec('quick-1'))).rejects.toMatchObject({ code: 'legacy-ci-forbidden' });
    await none.close();
    expect((await complete(await ci.submit(spec('quick-1')))).results).toBe('SUCCESS');
  });

  it('is rejected for a builder that cannot be forced', async () => {
    await expect(ci.submit(spec('outside'))).rejects.toMatchObject({ code: 'legacy-ci-rejected' });
    expect((await ci.builders('outside')).has('outside')).toBe(false);
    expect((await ci.builders('success')).has('success')).toBe(true);
  });
});

describe('properties', () => {
  it('travel in declared parameters and in slots, typed ones as they are', async () => {
    const wanted = { product: 'a product: "quoted", {1}', number: -3, flag: true, other: 'x.y', count: 7 };
    const request = await complete(await ci.submit(spec('quick-1', wanted)));
    const { properties } = await ci.outcome(request);
    const values = Object.fromEntries(Object.keys(wanted).map((name) => [name, properties[name]?.[0]]));
    expect(values).toEqual({ ...wanted, count: '7' });
    expect(properties.taskId?.[0]).toBe(`task-${count}`);
  });

  it('that do not fit are problems before, and rejections with a hint after', async () => {
    const tooMany = { a: '1', b: '2', c: '3', d: '4' };
    expect(await ci.problems(spec('quick-1', tooMany))).toMatchObject([{ where: 'payload.properties.d' }]);
    await expect(ci.submit(spec('quick-1', { any: 'with blanks' }))).rejects.toThrow(/property_value/);
  });
});

describe('requests', () => {
  it('are found again by their external id, pending and complete', async () => {
    const waiting = spec('noworker');
    const id = await ci.submit(waiting);
    const found = await ci.findByExternalId(waiting);
    expect(found).toMatchObject({ kind: 'present', value: { buildRequestId: id, state: 'pending', builds: [] } });
    const quick = spec('quick-2');
    const done = await ci.submit(quick);
    await complete(done);
    expect(await ci.findByExternalId(quick)).toMatchObject({ value: { buildRequestId: done, state: 'complete' } });
    expect(await ci.findByExternalId({ ...waiting, taskId: 'task-x', externalId: 'task-x/0/1' })).toEqual({
      kind: 'absent',
    });
    // Not the one whose external id merely begins alike.
    expect(await ci.findByExternalId({ ...waiting, externalId: `${waiting.taskId}/0` })).toEqual({
      kind: 'absent',
    });
  });

  it('are read many at once, with those that nobody knows', async () => {
    const id = await ci.submit(spec('failure'));
    await complete(id);
    const ids = [id, ...Array.from({ length: 250 }, (_, i) => 100_000 + i)];
    const seen = await ci.readMany(ids);
    expect(seen.size).toBe(ids.length);
    expect(seen.get(id)).toMatchObject({
      value: { results: 'FAILURE', builder: 'failure', builds: [{ worker: 'w1' }] },
    });
    expect(seen.get(100_000)).toEqual({ kind: 'absent' });
  });

  it('are asked for in a way that does not make the master answer every build it has', async () => {
    const [first, second] = [await ci.submit(spec('quick-1')), await ci.submit(spec('quick-2'))];
    await complete(first);
    await complete(second);
    const query = [first, second].map((id) => `buildrequestid__in=${id}`).join('&');
    const { builds } = await buildbot.get<{ builds: { buildrequestid: number }[] }>(`builds?${query}`);
    expect(builds.map(({ buildrequestid }) => buildrequestid).sort()).toEqual([first, second]);
  });

  it('are cancelled while they wait and while they build, and twice', async () => {
    const waiting = await ci.submit(spec('noworker'));
    const building = await ci.submit(spec('slow'));
    await eventually(async () => (await view(building))?.state === 'building');
    for (const id of [waiting, building, waiting]) {
      const request = await view(id);
      expect(request).toBeDefined();
      if (request) {
        await ci.cancel(request, 'not wanted');
      }
    }
    expect(await complete(waiting)).toMatchObject({ results: 'CANCELLED', cancelledBy: 'person', builds: [] });
    expect(await complete(building)).toMatchObject({ results: 'CANCELLED', cancelledBy: 'person' });
  });

  it('collapse unless they are kept apart, which their key tells', async () => {
    const first = spec('noworker');
    const second = { ...spec('noworker'), revision: first.revision };
    expect(ci.collapseKey(first)).toBe(ci.collapseKey(second));
    expect(ci.collapseKey(first)).not.toBe(ci.collapseKey({ ...second, branch: 'other' }));
    const older = await ci.submit(first);
    await ci.submit(second);
    expect(await complete(older)).toMatchObject({ results: 'SKIPPED', builds: [] });
  });

  it('collapse although their revisions differ, where a repository told of both', async () => {
    const sourcestamp = { branch: 'main', repository: 'https://hg.example.org/x', project: 'p' };
    const first = { ...spec('noworker'), ...sourcestamp };
    const second = { ...spec('noworker'), ...sourcestamp };
    for (const { revision } of [first, second]) {
      await buildbot.addChange({ ...sourcestamp, revision: revision ?? '' });
    }
    const older = await ci.submit(first);
    await ci.submit(second);
    expect(await complete(older)).toMatchObject({ results: 'SKIPPED', builds: [] });
    expect(ci.collapseKey(first)).toBe(ci.collapseKey(second));
  });
});

describe('a log', () => {
  it('is complete, streamed and in order', async () => {
    const request = await complete(await ci.submit(spec('large-log')));
    const { log } = await ci.outcome(request);
    let size = 0;
    let tail = '';
    for await (const chunk of log.kind === 'stream' ? await log.open() : []) {
      size += Buffer.from(chunk).length;
      tail = (tail + String(chunk)).slice(-2000);
    }
    expect(size).toBeGreaterThan(4_700_000);
    expect(tail).toContain('\n700000\n');
  });

  it('keeps every character', async () => {
    const request = await complete(await ci.submit(spec('unicode')));
    const { log } = await ci.outcome(request);
    const chunks: Buffer[] = [];
    for await (const chunk of log.kind === 'stream' ? await log.open() : []) {
      chunks.push(Buffer.from(chunk));
    }
    expect(Buffer.concat(chunks).toString('utf8')).toContain('Grüße 🎉');
  });
});

describe('a build whose master was stopped', () => {
  it('has the reason in a log of its step, where older masters have nothing else', async () => {
    const wish = spec('slow');
    const id = await ci.submit(wish);
    await buildbot.begun(wish.taskId);
    await buildbot.stopMaster();
    await buildbot.startMaster();
    const { results, cancelledBy, builds } = await complete(id);
    expect({ results, cancelledBy }).toEqual({ results: 'CANCELLED', cancelledBy: 'master-shutdown' });
    const [build] = builds;
    expect(build?.stateText).toMatch(/^cancelled \(Master Shutdown\)/);
    const rest = createRestClient({ url: buildbot.url, session: createSession(buildbot.url) });
    expect(build && (await readCanceller(rest, { ...build, stateText: "cancelled 'wait'" }))).toBe('master-shutdown');
    rest.close();
  });
});

describe('hints', () => {
  it('come as things happen, and a restart of the master is a gap', async () => {
    const heard = new Set<number>();
    let gaps = 0;
    const watch = await ci.watch({
      onHint: (id) => heard.add(id),
      onGap: () => {
        gaps += 1;
      },
    });
    await eventually(() => gaps === 1, { what: 'the first connection' });
    const id = await ci.submit(spec('quick-3'));
    await eventually(() => heard.has(id), { what: 'a hint' });
    await buildbot.killMaster();
    await buildbot.startMaster();
    await eventually(() => gaps === 2, { timeoutMs: 30_000, what: 'the second connection' });
    await watch.stop();
  });
});
