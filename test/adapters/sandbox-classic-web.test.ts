/** The emulated web status against what a real 0.8.12 answered, call by call; and its sign-in. */
import { afterEach, expect, it } from '@jest/globals';
import got from 'got';
import { z } from 'zod';
import type { ClassicBuildbotOptions } from '../../src/sandbox/classic/options.ts';
import { eventually } from '../support/eventually.ts';
import { type Classic, readFixture, startClassic } from './sandbox-classic-support.ts';

const AUTH = { username: 'human', password: 'hum4n' };
const call = z.object({
  method: z.enum(['GET', 'POST']),
  path: z.string(),
  status: z.number(),
  body: z.string().optional(),
  headers: z.array(z.string()).optional(),
  contentType: z.string().optional(),
  response: z.unknown().optional(),
  location: z.string().nullable().optional(),
  setCookie: z.string().optional(),
});
type Call = z.infer<typeof call>;

let buildbot: Classic;
afterEach(() => buildbot?.stop());

async function start(more: Partial<ClassicBuildbotOptions> = {}): Promise<void> {
  const attempts = [{ results: 0, durationMs: 20, steps: [{ name: 'shell', log: 'hello\n' }] }];
  const names = ['ok', 'fail', 'warn', 'exc', 'retry'];
  buildbot = await startClassic({
    schema: 'B',
    flavour: 'stock',
    auth: AUTH,
    builders: [
      ...names.map((name) => ({ name, workers: ['w1'], attempts })),
      {
        name: 'slow',
        workers: ['w1'],
        attempts: [{ results: 0, durationMs: 'wait', steps: [{ name: 'shell', log: 'so far\n' }] }],
      },
      { name: 'noslave', workers: ['w2'], attempts },
    ],
    ...more,
  });
  await buildbot.killWorker('w2');
}

async function signIn(): Promise<string> {
  const answer = await got.post(`${buildbot.webStatusUrl}/login`, {
    form: { username: AUTH.username, passwd: AUTH.password },
    followRedirect: false,
  });
  return answer.headers['set-cookie']?.[0]?.split(';')[0] ?? '';
}

const post = (path: string, form: Record<string, string>, headers: Record<string, string> = {}) =>
  got.post(`${buildbot.webStatusUrl}${path}`, { form, headers, followRedirect: false, throwHttpErrors: false });

/** Times made alike, and what only that machine was called. */
function alike(value: unknown): unknown {
  const text = JSON.stringify(value)
    .replaceAll(/\d{10}(\.\d+)?/g, '"time"')
    .replaceAll('/srv/buildbot/s08/', '/srv/buildbot/w1/')
    .replaceAll(buildbot.webStatusUrl, 'http://127.0.0.1:8012')
    // What a step is called depends on its command.
    .replaceAll(`"'sh","-c","...'"`, `"'shell'"`);
  return JSON.parse(text);
}

it('answers what a real 0.8.12 answered', async () => {
  await start();
  await buildbot.completed(await buildbot.inject({ builder: 'ok', task: 'T-ok' }));
  await buildbot.completed(await buildbot.inject({ builder: 'ok', task: 'T-m0', revision: 'r0' }));
  let cookie = '';
  for (const recorded of readFixture('buildbot-0.8.12-webstatus.json', z.array(call))) {
    const answer = await ask(recorded, cookie);
    const what = { method: recorded.method, path: recorded.path };
    expect({ ...what, status: answer.statusCode, location: answer.headers.location ?? null }).toEqual({
      ...what,
      status: recorded.status,
      location: recorded.location ?? null,
    });
    if (recorded.method === 'GET') {
      const isJson = typeof recorded.response === 'object';
      const body = isJson ? JSON.parse(answer.body) : answer.body;
      expect({ ...what, type: answer.headers['content-type'] }).toEqual({ ...what, type: recorded.contentType });
      expect({ ...what, body: alike(body) }).toEqual({ ...what, body: alike(recorded.response) });
      expect(isJson ? Object.keys(body) : []).toEqual(isJson ? Object.keys(Object(recorded.response)) : []);
    }
    const [set = ''] = answer.headers['set-cookie'] ?? [];
    expect(shape(set)).toBe(shape(recorded.setCookie ?? ''));
    cookie = set.split(';')[0] || cookie;
  }
});

const shape = (cookie: string) =>
  cookie.replace(/=[^;]+;/, '=<cookie>;').replace(/Expires=\w{3}, [\w-]+ [\d:]+ GMT/, 'Expires=day');

function ask({ method, path, body, headers = [] }: Call, cookie: string) {
  const known: Readonly<Record<string, string>> = {
    authorization: `Basic ${Buffer.from(`${AUTH.username}:${AUTH.password}`).toString('base64')}`,
    cookie,
    referer: `${buildbot.webStatusUrl}/`,
  };
  const referer = headers.includes('referer') ? { referer: 'http://127.0.0.1:8012/' } : {};
  const sent = { ...Object.fromEntries(headers.map((name) => [name, known[name] ?? ''])), ...referer };
  return got(`${buildbot.webStatusUrl}${path}`, {
    method,
    headers: { ...sent, ...(body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }) },
    ...(body === undefined ? {} : { body }),
    followRedirect: false,
    throwHttpErrors: false,
    retry: { limit: 0 },
  });
}

it('leaves out the results of a build that runs, and shows its log so far', async () => {
  await start();
  const brid = await buildbot.inject({ builder: 'slow', task: 'T-slow' });
  await buildbot.built(brid);
  const build = await got(`${buildbot.webStatusUrl}/json/builders/slow/builds/0`).json<Record<string, unknown>>();
  expect(build).not.toHaveProperty('results');
  expect(build).toMatchObject({ text: [], currentStep: { isFinished: false, name: 'shell' } });
  expect(Object(build.times)[1]).toBeNull();
  const builder = await got(`${buildbot.webStatusUrl}/json/builders/slow`).json();
  expect(builder).toMatchObject({ state: 'building', currentBuilds: [0] });
  const log = await got(`${buildbot.webStatusUrl}/builders/slow/builds/0/steps/shell/logs/stdio/text`);
  expect(log.body).toBe('so far\n');
});

it('has the traceback of a step that broke, of which what is HTML is no text', async () => {
  await start({ builders: [{ name: 'broken', workers: ['w1'], attempts: [{ results: 4, durationMs: 20 }] }] });
  await buildbot.completed(await buildbot.inject({ builder: 'broken', task: 'T-broken' }));
  const build = await got(`${buildbot.webStatusUrl}/json/builders/broken/builds/0`).json<{
    logs: [string, string][];
  }>();
  expect(build.logs.map(([name]) => name)).toEqual(['err.text', 'err.html']);
  const ask = async (path: string) => (await got(path, { throwHttpErrors: false })).statusCode;
  for (const [name, url] of build.logs) {
    expect([name, await ask(url), await ask(`${url}/text`)]).toEqual([name, 200, name === 'err.text' ? 200 : 404]);
  }
});

it('stops and cancels only for who has signed in, and answers alike', async () => {
  await start();
  const running = await buildbot.inject({ builder: 'slow', task: 'T-stop' });
  const pending = await buildbot.inject({ builder: 'noslave', task: 'T-cancel' });
  await buildbot.built(running);
  const stop = (headers = {}) => post('/builders/slow/builds/0/stop', { comments: 'x' }, headers);
  const cancel = (headers = {}) => post('/builders/noslave/cancelbuild', { id: String(pending) }, headers);
  expect((await stop()).statusCode).toBe(302);
  expect((await cancel({ cookie: 'BuildBotSession=other' })).statusCode).toBe(302);
  await buildbot.poll();
  expect(await buildbot.request(running)).toMatchObject({ complete: 0 });
  expect(await buildbot.request(pending)).toMatchObject({ complete: 0 });

  const cookie = await signIn();
  expect((await stop({ cookie })).headers.location).toBe('../../../../builders/slow');
  await post('/builders/ok/cancelbuild', { id: String(pending) }, { cookie });
  expect(await buildbot.request(pending)).toMatchObject({ complete: 0 });
  expect((await cancel({ cookie })).headers.location).toBe('../../builders/noslave');
  await buildbot.completed(running);
  expect(await buildbot.request(running)).toMatchObject({ results: 4 });
  expect(await buildbot.request(pending)).toMatchObject({
    complete: 1,
    results: 2,
    claimed_by_name: expect.any(String),
  });
  expect(await buildbot.builds()).toHaveLength(1);
});

it('is away with its master, and comes back at the same place', async () => {
  await start();
  const url = buildbot.webStatusUrl;
  await buildbot.stopMaster();
  await expect(got(`${url}/json/builders`, { retry: { limit: 0 } })).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  expect((await got(buildbot.buildersUrl)).statusCode).toBe(200);
  await buildbot.startMaster();
  expect(buildbot.webStatusUrl).toBe(url);
  expect((await got(`${url}/json/builders`)).statusCode).toBe(200);
});

it('goes wrong as the fault rules say', async () => {
  await start();
  const running = await buildbot.inject({ builder: 'slow', task: 'T-stop' });
  await buildbot.built(running);
  const cookie = await signIn();
  const outcome = { kind: 'status', status: 502 } as const;
  buildbot.faults.http.push({ path: /\/json\//, takesEffect: false, outcome, times: 1 });
  buildbot.faults.http.push({ method: 'POST', path: /stop$/, takesEffect: true, outcome: { kind: 'reset' }, times: 1 });
  const first = await got(`${buildbot.webStatusUrl}/json/builders`, { throwHttpErrors: false, retry: { limit: 0 } });
  expect(first.statusCode).toBe(502);
  await expect(post('/builders/slow/builds/0/stop', { comments: 'x' }, { cookie })).rejects.toThrow();
  await buildbot.completed(running);
  await eventually(async () => (await got(`${buildbot.webStatusUrl}/json/builders`)).statusCode === 200);
});

it('is of a stock site: no Self-serve there, but a list of builders', async () => {
  await start();
  const answer = await got(`${buildbot.selfServeUrl}/branches`, { throwHttpErrors: false });
  expect(answer.statusCode).toBe(404);
  expect(await got(buildbot.buildersUrl).json()).toMatchObject({ builders: { noslave: { slavebuilddir: 'noslave' } } });
});
