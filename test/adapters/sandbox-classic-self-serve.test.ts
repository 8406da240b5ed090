/** The emulated Self-serve: what it answers, what its agent does later, and how it is known to fail. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import got from 'got';
import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import { type Classic, MASTER, NEVER_MS, startClassic } from './sandbox-classic-support.ts';

const BRANCHES = { 'mozilla-inbound': { repo: 'https://hg.mozilla.org/integration/mozilla-inbound' }, other: {} };
const BUILDERS = [
  { name: 'ok', workers: ['w1'], attempts: [{ results: 0, durationMs: 20 }] },
  { name: 'slow', workers: ['w1'], attempts: [{ results: 0, durationMs: 'wait' as const }] },
];
const jobSchema = z.looseObject({
  completed_at: z.number().nullable(),
  complete_data: z
    .object({ request_id: z.number(), body: z.object({ errors: z.boolean(), msg: z.string() }) })
    .nullable(),
});

let buildbot: Classic;
beforeEach(async () => {
  await start('A');
});
afterEach(() => buildbot?.stop());

async function start(schema: 'A' | 'B'): Promise<void> {
  buildbot = await startClassic({
    schema,
    flavour: 'mozilla',
    builders: BUILDERS,
    branches: BRANCHES,
    pollIntervalMs: NEVER_MS,
  });
}

async function call(method: 'GET' | 'DELETE', path: string, headers: Record<string, string> = {}) {
  const answer = await got(`${buildbot.selfServeUrl}${path}`, {
    method,
    headers: { accept: 'application/json', 'x-remote-user': 'bridge', ...headers },
    followRedirect: false,
    throwHttpErrors: false,
    retry: { limit: 0 },
  });
  const { statusCode: status, body } = answer;
  return { status, body: body.startsWith('{') ? JSON.parse(body) : body, headers: answer.headers };
}
const cancel = (what: 'request' | 'build', id: number) => call('DELETE', `/mozilla-inbound/${what}/${id}`);

/** What the agent says of a job, when it is done. */
async function outcomeOf(answer: Awaited<ReturnType<typeof call>>) {
  expect(answer).toMatchObject({ status: 202, body: { status: 'OK', request_id: expect.any(Number) } });
  return eventually(async () => {
    const job = jobSchema.parse((await call('GET', `/jobs/${answer.body.request_id}`)).body);
    return job.complete_data?.body;
  });
}

async function running(): Promise<number> {
  const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
  await buildbot.poll();
  return brid;
}

describe('looking', () => {
  it('shows a request and its builds', async () => {
    const brid = await buildbot.inject({ builder: 'slow', task: 'T0', submittedAt: 1000 });
    const pending = {
      ...{ request_id: brid, buildername: 'slow', branch: 'integration/mozilla-inbound', revision: 'abc' },
      ...{ submittime: 1000, priority: 0, claimed_at: 0, complete: 0, complete_at: null },
      ...{ reason: 'Created by BBB for task T0', properties: { taskId: 'T0', product: 'firefox' }, build_ids: [] },
    };
    expect(await call('GET', `/mozilla-inbound/request/${brid}`)).toMatchObject({ status: 200, body: pending });
    await buildbot.poll();
    const { body } = await call('GET', `/mozilla-inbound/request/${brid}`);
    expect(body).toEqual({ ...pending, claimed_at: expect.any(Number), build_ids: [1] });
    expect((await call('GET', '/mozilla-inbound/build/1')).body).toMatchObject({
      ...{ build_id: 1, buildnumber: 0, buildername: 'slow', branch: 'integration/mozilla-inbound', revision: 'abc' },
      ...{ starttime: expect.any(Number), endtime: null, status: null, claimed_by_name: MASTER },
      requests: [{ request_id: brid }],
    });
  });

  it('knows its branches', async () => {
    expect(await call('GET', '/branches')).toMatchObject({ status: 200, body: BRANCHES });
  });

  it.each([
    ['GET', '/nosuch/request/1', 404, 'Branch nosuch not found'],
    ['GET', '/other/request/1', 404, 'Request 1 not found on branch other'],
    ['GET', '/mozilla-inbound/request/99', 404, 'Request 99 not found on branch mozilla-inbound'],
    ['DELETE', '/nosuch/request/1', 404, 'Branch nosuch not found'],
    ['DELETE', '/mozilla-inbound/build/99', 404, 'Build 99 not found on branch mozilla-inbound'],
    ['DELETE', '/mozilla-inbound/request/abc', 400, 'Non-integer request_id'],
    ['GET', '/jobs/99', 404, 'Job 99 not found'],
  ] as const)('%s %s: %i', async (method, path, status, msg) => {
    await buildbot.inject({ builder: 'slow', task: 'T0' });
    expect(await call(method, path)).toMatchObject({ status, body: { status: 'FAILED', msg } });
  });

  it('wants a user, and sends people to the page of the job', async () => {
    const brid = await running();
    expect((await call('DELETE', `/mozilla-inbound/request/${brid}`, { 'x-remote-user': '' })).status).toBe(403);
    const html = await call('DELETE', `/mozilla-inbound/request/${brid}`, { accept: 'text/html' });
    expect(html).toMatchObject({ status: 302, headers: { location: '/buildapi/self-serve/jobs/1' } });
    expect((await call('GET', '/jobs/1', { accept: 'text/html' })).headers['content-type']).toContain('text/html');
    expect((await call('GET', '/jobs/1?format=json', { accept: '*/*' })).body).toMatchObject({ who: 'bridge' });
    expect(await call('GET', '/branches/')).toMatchObject({
      status: 301,
      headers: { location: '/buildapi/self-serve/branches' },
    });
  });
});

describe('cancelling', () => {
  it('a pending request: complete, never claimed, and its buildset forgotten', async () => {
    const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
    expect(await outcomeOf(await cancel('request', brid))).toEqual({ errors: false, msg: `${brid}: Ok` });
    expect(await buildbot.request(brid)).toMatchObject({
      complete: 1,
      results: 2,
      claimed_at: 0,
      complete_at: expect.any(Number),
    });
    expect(await buildbot.buildset(brid)).toMatchObject({ complete: 0, results: null });
    await buildbot.poll();
    expect(await buildbot.builds()).toEqual([]);
    expect(await outcomeOf(await cancel('request', brid))).toEqual({
      errors: false,
      msg: `Request ${brid} is complete, nothing to do`,
    });
  });

  it.each(['request', 'build'] as const)('a running one, by its %s', async (what) => {
    const brid = await running();
    const [build] = await buildbot.builds();
    expect(await outcomeOf(await cancel(what, what === 'request' ? brid : (build?.id ?? 0)))).toMatchObject({
      errors: false,
    });
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 6 });
    expect(await buildbot.buildset(brid)).toMatchObject({ complete: 1, results: 2 });
  });

  it('tells of a job that the agent has not done yet', async () => {
    buildbot.selfServe.isPaused = true;
    const brid = await running();
    const accepted = await cancel('request', brid);
    expect((await call('GET', `/jobs/${accepted.body.request_id}`)).body).toEqual({
      ...{ action: 'cancel_request', who: 'bridge', when: expect.any(Number), what: { brid } },
      ...{ completed_at: null, complete_data: null },
    });
    buildbot.selfServe.isPaused = false;
    expect(await outcomeOf(accepted)).toMatchObject({ errors: false });
    expect((await call('GET', `/jobs/${accepted.body.request_id}`)).body).toMatchObject({
      completed_at: expect.any(Number),
      complete_data: { request_id: accepted.body.request_id },
    });
  });
});

describe('failing as it was known to', () => {
  it('finds nothing of what has just been made (404)', async () => {
    buildbot.selfServe.missNext = 1;
    const brid = await running();
    expect((await cancel('request', brid)).status).toBe(404);
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: false });
  });

  it('accepts a job and then does not do it', async () => {
    buildbot.selfServe.failNext = 1;
    const brid = await running();
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: true });
    expect(await buildbot.request(brid)).toMatchObject({ complete: 0 });
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: false });
  });

  it('cannot stop what its master was killed at', async () => {
    const brid = await running();
    await buildbot.killMaster();
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: true });
  });

  it('cancels a request that the master has claimed meanwhile: its build goes on', async () => {
    buildbot.selfServe.raceNext = 1;
    const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: false });
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 2, claimed_by_name: MASTER });
    expect(await buildbot.builds()).toMatchObject([{ brid, finish_time: null }]);
    await buildbot.finish(brid);
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 0 });
  });

  it('answers as the fault rules say', async () => {
    buildbot.faults.http.push({
      method: 'DELETE',
      takesEffect: true,
      outcome: { kind: 'status', status: 503 },
      times: 1,
    });
    const brid = await running();
    expect((await cancel('request', brid)).status).toBe(503);
    await buildbot.completed(brid);
  });
});

describe('on schema B, as a site might have ported it', () => {
  beforeEach(async () => {
    await buildbot.stop();
    await start('B');
  });

  it('cancels by the table of claims', async () => {
    const pending = await buildbot.inject({ builder: 'slow', task: 'T0', revision: 'r0' });
    expect((await call('GET', `/mozilla-inbound/request/${pending}`)).body).toMatchObject({ claimed_at: 0 });
    expect(await outcomeOf(await cancel('request', pending))).toMatchObject({ errors: false });
    expect(await buildbot.request(pending)).toMatchObject({ complete: 1, results: 2, claimed_at: 0 });
    const brid = await running();
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: false });
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 6, claimed_by_name: MASTER });
  });

  it('has the last word on a request that the master has claimed meanwhile', async () => {
    buildbot.selfServe.raceNext = 1;
    const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
    expect(await outcomeOf(await cancel('request', brid))).toMatchObject({ errors: false });
    await buildbot.finish(brid);
    expect(await buildbot.request(brid)).toMatchObject({ complete: 1, results: 2 });
    expect(await buildbot.buildset(brid)).toMatchObject({ complete: 0 });
    expect(await buildbot.builds()).toMatchObject([{ brid, finish_time: expect.any(Number) }]);
  });
});
