/** Artifacts at the emulated queue, up to the bucket behind it. */
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { dirname } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createBlobStore } from '../../src/sandbox/queue/blobs.ts';
import { connect, newTaskId, type QueueFixture, startQueue, taskAt } from '../support/queue-emulator.ts';

const worker = { workerGroup: 'g', workerId: 'w' };
const EXPIRES = '2026-11-24T20:00:00.000Z';

let queue: QueueFixture;
let taskId: string;
beforeEach(async () => {
  queue = await startQueue();
  taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now()));
  await queue.ok('claimTask', taskId, 0, worker);
});
afterEach(() => queue.stop());

const create = (name: string, input: Readonly<Record<string, unknown>>) =>
  queue.call('createArtifact', [taskId, 0, name, { expires: EXPIRES, ...input }]);

async function putUrl(name: string, contentType = 'text/plain'): Promise<string> {
  const result = await create(name, { storageType: 's3', contentType });
  return z.object({ answer: z.object({ putUrl: z.string() }) }).parse(result).answer.putUrl;
}

const put = (url: string, body: string, headers: Record<string, string> = { 'content-type': 'text/plain' }) =>
  fetch(url, { method: 'PUT', body, headers });

const artifactUrl = (name: string) => `${queue.emulator.rootUrl}/api/queue/v1/task/${taskId}/runs/0/artifacts/${name}`;
const contentOf = (name: string) =>
  queue.emulator.tasks
    .get(taskId)
    ?.artifacts.find((artifact) => artifact.name === name)
    ?.content()
    ?.toString();

describe('an s3 artifact', () => {
  it('is what was uploaded, for everybody if it is public', async () => {
    const response = await put(await putUrl('public/a log.txt'), 'hello');
    expect(response.status).toBe(200);
    const read = await fetch(artifactUrl('public/a%20log.txt'));
    expect(read.headers.get('content-type')).toContain('text/plain');
    expect(await read.text()).toBe('hello');
    expect(contentOf('public/a log.txt')).toBe('hello');
  });

  it('keeps its content encoding', async () => {
    const headers = { 'content-type': 'text/plain', 'content-encoding': 'gzip' };
    await fetch(await putUrl('public/log'), { method: 'PUT', body: gzipSync('hello'), headers });
    expect(await (await fetch(artifactUrl('public/log'))).text()).toBe('hello');
  });

  it('is only for those with the scope if it is private, by a signed URL', async () => {
    await put(await putUrl('private/a.txt'), 'secret');
    expect((await fetch(artifactUrl('private/a.txt'))).status).toBe(403);
    const { url } = z.object({ url: z.string() }).parse(await queue.ok('getArtifact', taskId, 0, 'private/a.txt'));
    expect(await (await fetch(url)).text()).toBe('secret');
    expect((await fetch(url.replace(/\?.*/, ''))).status).toBe(403);
    queue.clock.advance(31 * 60_000);
    expect((await fetch(url)).status).toBe(403);
  });

  it('can be read without credentials by a URL that the client signed', async () => {
    await put(await putUrl('private/a.txt'), 'secret');
    const client = await connect(queue.emulator.rootUrl);
    const signed = await client.buildSignedUrl?.(client.getArtifact, taskId, 0, 'private/a.txt');
    expect(await (await fetch(String(signed))).text()).toBe('secret');
    expect((await fetch(String(signed).replace('a.txt', 'b.txt'))).status).toBe(401);
  });

  it('is not taken with another content type than announced', async () => {
    const response = await put(await putUrl('public/a'), 'x', { 'content-type': 'text/html' });
    expect(response.status).toBe(403);
    expect(await response.text()).toContain('<Code>SignatureDoesNotMatch</Code>');
    expect(contentOf('public/a')).toBeUndefined();
  });

  it.each([
    ['in chunks of unknown length', { 'transfer-encoding': 'chunked' }, 501],
    ['when it is longer than 5 GiB', { 'content-length': String(5 * 2 ** 30 + 1) }, 400],
  ])('is not taken %s', async (_what, length, expected) => {
    const url = await putUrl('public/a');
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { 'content-type': 'text/plain', ...length };
      const call = request(url, { method: 'PUT', headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      call.on('error', reject);
      call.end('hello');
    });
    expect(status).toBe(expected);
    expect(contentOf('public/a')).toBeUndefined();
  });

  it('is not taken late', async () => {
    const url = await putUrl('public/a');
    queue.clock.advance(46 * 60_000);
    expect((await put(url, 'x')).status).toBe(403);
  });

  it('is not there until it is uploaded', async () => {
    await putUrl('public/a');
    expect((await fetch(artifactUrl('public/a'))).status).toBe(404);
  });

  it('can be asked for again, but not changed', async () => {
    await putUrl('public/a');
    expect(await create('public/a', { storageType: 's3', contentType: 'text/plain' })).toMatchObject({ ok: true });
    const changed = await create('public/a', { storageType: 's3', contentType: 'text/html' });
    expect(changed).toMatchObject({ status: 409, code: 'RequestConflict' });
  });
});

describe('other artifacts', () => {
  it('redirect, if they are references', async () => {
    await create('public/a', { storageType: 'reference', contentType: 'text/html', url: 'http://example.com/log' });
    const response = await fetch(artifactUrl('public/a'), { redirect: 'manual' });
    expect(response.status).toBe(303);
    expect(response.headers.get('location')).toBe('http://example.com/log');
    expect(response.headers.get('x-taskcluster-artifact-storage-type')).toBe('reference');
  });

  it('stand for others, if they are links', async () => {
    await put(await putUrl('public/logs/live_backing.log'), 'hello');
    const url = 'http://example.com/log';
    await create('public/logs/live.log', { storageType: 'reference', contentType: 'text/plain', url });
    const link = { storageType: 'link', contentType: 'text/plain', artifact: 'public/logs/live_backing.log' };
    expect(await create('public/logs/live.log', link)).toMatchObject({ ok: true });
    expect(await (await fetch(artifactUrl('public/logs/live.log'))).text()).toBe('hello');
    const back = { storageType: 'reference', contentType: 'text/plain', url };
    expect(await create('public/logs/live.log', back)).toMatchObject({ status: 409 });
  });

  it('must not link in a circle', async () => {
    await create('public/a', { storageType: 'link', artifact: 'public/b' });
    await create('public/b', { storageType: 'link', artifact: 'public/a' });
    expect((await fetch(artifactUrl('public/a'))).status).toBe(400);
  });

  it('say why there is nothing, if they are errors', async () => {
    const error = { reason: 'too-large-file-on-worker', message: 'too large' };
    await create('public/a', { storageType: 'error', ...error });
    const response = await fetch(artifactUrl('public/a'));
    expect(response.status).toBe(424);
    expect(await response.json()).toEqual(error);
    expect(await queue.ok('latestArtifact', taskId, 'public/a')).toEqual({ storageType: 'error', ...error });
  });

  it('cannot be objects, and none need be finished', async () => {
    const object = await create('public/a', { storageType: 'object', contentType: 'text/plain' });
    expect(object).toMatchObject({ status: 400, message: expect.stringContaining('no object service') });
    await putUrl('public/b');
    const finished = await queue.call('finishArtifact', [taskId, 0, 'public/b', { uploadId: newTaskId() }]);
    expect(finished).toMatchObject({ status: 400, code: 'InputError' });
  });
});

describe('the artifacts of a run', () => {
  it('are listed, also those of the latest run', async () => {
    await putUrl('public/b');
    await create('public/a', { storageType: 'link', artifact: 'public/b' });
    const listed = {
      artifacts: [
        { name: 'public/a', storageType: 'link' },
        { name: 'public/b', storageType: 's3' },
      ],
    };
    expect(await queue.ok('listArtifacts', taskId, 0)).toMatchObject(listed);
    expect(await queue.ok('listLatestArtifacts', taskId)).toMatchObject(listed);
    expect(await queue.ok('artifactInfo', taskId, 0, 'public/b')).toMatchObject({ expires: EXPIRES });
    await queue.ok('reportException', taskId, 0, { reason: 'worker-shutdown' });
    expect(await queue.ok('listLatestArtifacts', taskId)).toEqual({ artifacts: [] });
    expect(await queue.call('listArtifacts', [taskId, 2])).toMatchObject({ status: 404 });
  });

  it('can be added for 25 minutes after an exception', async () => {
    await queue.ok('reportException', taskId, 0, { reason: 'malformed-payload' });
    queue.clock.advance(24 * 60_000);
    expect(await create('public/a', { storageType: 's3', contentType: 'a/b' })).toMatchObject({ ok: true });
    queue.clock.advance(2 * 60_000);
    expect(await create('public/b', { storageType: 's3', contentType: 'a/b' })).toMatchObject({ status: 409 });
  });

  it('cannot be of a run that nobody claimed', async () => {
    const pending = newTaskId();
    await queue.ok('createTask', pending, taskAt(queue.clock.now()));
    const input = { storageType: 's3', contentType: 'a/b', expires: EXPIRES };
    const result = await queue.call('createArtifact', [pending, 0, 'public/a', input]);
    expect(result).toMatchObject({ status: 400, message: expect.stringContaining('was not claimed by a worker') });
  });

  it('leave nothing behind when the queue is stopped', async () => {
    const blobs = createBlobStore();
    await blobs.open();
    await blobs.put('public-bucket/a', Readable.from('hello'), { contentType: 'a/b', contentEncoding: undefined }, 5);
    const path = blobs.get('public-bucket/a')?.path ?? '';
    expect(existsSync(path)).toBe(true);
    await blobs.close();
    expect(existsSync(dirname(path))).toBe(false);
  });
});
