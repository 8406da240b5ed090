/** What the emulated queue takes and what it refuses, and in which words, as it was seen of a real one (106). */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';

const worker = { workerGroup: 'g', workerId: 'w' };
const BAD_INPUT = { status: 400, code: 'InputValidationError' };
const metadata = { name: 't', description: 'd', owner: 'o', source: 'https://example.com' };

let queue: QueueFixture;
let expires: string;
let taskId: string;
beforeEach(async () => {
  // Everybody may do everything, so that calls can be made by hand.
  queue = await startQueue({ roles: { anonymous: ['*'] } });
  expires = new Date(queue.clock.now() + 3_600_000).toJSON();
  taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now()));
  await queue.ok('claimTask', taskId, 0, worker);
});
afterEach(() => queue.stop());

const create = (changes: Readonly<Record<string, unknown>>) =>
  queue.call('createTask', [newTaskId(), taskAt(queue.clock.now(), changes)]);
const put = (name: string, artifact: object) =>
  queue.call('createArtifact', [taskId, 0, name, { expires, ...artifact }]);
const url = (path: string) => `${queue.emulator.rootUrl}/api/queue/v1${path}`;

async function send(path: string, body: string | undefined, contentType = 'application/json') {
  const method = path.startsWith('/task/') && !path.includes('/runs/') ? 'PUT' : 'POST';
  const headers = { 'content-type': contentType };
  const answer = await fetch(url(path), { method, ...(body === undefined ? {} : { headers, body }) });
  return { status: answer.status, body: await answer.json() };
}

describe('a task', () => {
  it.each([
    ['a priority of old', { priority: 'normal' }],
    ['capitals in its worker type', { taskQueueId: undefined, provisionerId: 'a', workerType: 'Bridge' }],
    ['an underscore in its worker type', { taskQueueId: 'a/brid_ge' }],
    ['a worker type with a dash at its end', { taskQueueId: undefined, provisionerId: 'a', workerType: 'bridge-' }],
    ['the same route twice', { routes: ['a', 'a'] }],
    ['the same dependency twice', { dependencies: Array(2).fill('RwycG7IhT6CSdg6WvVhkGw') }],
    ['metadata of its own invention', { metadata: { ...metadata, more: '' } }],
    ['a source that is no URL', { metadata: { ...metadata, source: 'javascript:alert(1)' } }],
    ['a project with a blank', { projectId: 'a b' }],
    ['a project with no name', { projectId: '' }],
    ['a time without seconds', { deadline: '2026-11-23T22:00Z' }],
  ])('is refused with %s', async (_, changes) => {
    expect(await create(changes)).toMatchObject(BAD_INPUT);
  });

  it.each([
    ['a project of 60 letters', { projectId: 'a'.repeat(60) }],
    ['a source over ssh', { metadata: { ...metadata, source: 'git@example.com:a/b' } }],
    ['a small z in a time', { deadline: '2026-11-23T22:00:00z' }],
    ['a blank in a time', { deadline: '2026-11-23 22:00:00Z' }],
    ['a time without a zone', { expires: '2026-11-29T22:00:00' }],
  ])('is taken with %s', async (_, changes) => {
    expect(await create(changes)).toMatchObject({ ok: true });
  });

  it('has no run 1001', async () => {
    expect(await queue.call('claimTask', [taskId, 1001, worker])).toMatchObject({ code: 'ResourceNotFound' });
  });
});

describe('an artifact', () => {
  it('may say that a file is not readable, but not of what type it is', async () => {
    const error = { storageType: 'error', reason: 'file-not-readable-on-worker', message: '' };
    expect(await put('a', error)).toMatchObject({ ok: true });
    expect(await put('b', { ...error, contentType: 'text/plain' })).toMatchObject(BAD_INPUT);
  });

  it('may be a link to nothing, and has a type where it says none', async () => {
    expect(await put('a', { storageType: 'link', artifact: '' })).toMatchObject({ ok: true });
    const type = { contentType: 'application/binary' };
    expect(await put('b', { storageType: 's3', contentType: '' })).toMatchObject({ answer: type });
  });

  it('with too long a name is made, and spoils the list of its run', async () => {
    const s3 = { storageType: 's3', contentType: 'text/plain' };
    expect(await put('a'.repeat(1024), s3)).toMatchObject({ ok: true });
    expect(await queue.call('listArtifacts', [taskId, 0])).toMatchObject({ ok: true });
    expect(await put('a'.repeat(1025), s3)).toMatchObject({ status: 500, code: 'InternalServerError' });
    expect(await queue.call('listArtifacts', [taskId, 0])).toMatchObject({ status: 500 });
  });
});

it.each(['ü', 'a\nb'])('scopes with %j are not expanded', async (scope) => {
  await expect(queue.auth('expandScopes', { scopes: [scope] })).rejects.toMatchObject({ statusCode: 400 });
});

describe('a body', () => {
  const claim = () => `/task/${taskId}/runs/0/claim`;

  it.each([
    ['no JSON', '{', 'application/json', '{'],
    ['no object', '"text"', 'application/json', '"text"'],
    ['nothing', undefined, 'application/json', {}],
    ['of another type', '{}', 'text/plain', {}],
  ])('that is %s is malformed', async (_, body, contentType, payload) => {
    const answer = await send(claim(), body, contentType);
    expect(answer).toMatchObject({ status: 400, body: { code: 'MalformedPayload', requestInfo: { payload } } });
  });

  it('is shown parsed in an error', async () => {
    const answer = await send(claim(), '{"workerGroup":"g"}', 'application/json; charset=utf-8');
    expect(answer).toMatchObject({
      body: { code: 'InputValidationError', requestInfo: { method: 'claimTask', payload: { workerGroup: 'g' } } },
    });
  });

  it('of more than 10 MB is an error of the queue', async () => {
    const description = ' '.repeat(10 * 1024 * 1024);
    const answer = await send(`/task/${newTaskId()}`, JSON.stringify({ description }));
    expect(answer).toMatchObject({ status: 500, body: { code: 'InternalServerError' } });
  });
});

describe('who may not', () => {
  it('is told what credentials would have to satisfy, or what is missing', async () => {
    await queue.stop();
    queue = await startQueue({ roles: {} });
    const answer = await fetch(url(`/task/${taskId}/status`));
    const text = 'This request requires Taskcluster credentials that satisfy the following scope expression:';
    expect([answer.status, await answer.json()]).toMatchObject([403, { message: expect.stringContaining(text) }]);
  });

  it('gets a short answer for a route that there is not', async () => {
    const answer = await fetch(url('/nothing'));
    expect([answer.status, await answer.json()]).toEqual([404, { error: 'Not found' }]);
  });
});
