/** Artifacts of a run, put through the queue client to the emulated queue and the bucket behind it. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import type { Artifact, TaskQueue } from '../../src/ports.ts';
import { createAnswerReader } from '../../src/taskcluster/answers.ts';
import { putArtifact } from '../../src/taskcluster/artifacts.ts';
import { createServices } from '../../src/taskcluster/services.ts';
import { countInputs } from '../support/count-inputs.ts';
import { eventually } from '../support/eventually.ts';
import { clientOf, type FakeServer, startFakeServer } from '../support/queue-client.ts';
import { newTaskId, type QueueFixture, ROOT_CLIENT, startQueue, taskAt } from '../support/queue-emulator.ts';

const BUCKET = /^\/public-bucket\//;
const CREATE = /\/artifacts\//;
const TEXT = { kind: 'content', name: 'public/a.txt', contentType: 'text/plain' } as const;

let fixture: QueueFixture;
let queue: TaskQueue;
let taskId: string;
let expires: number;
let folder: string;
beforeEach(async () => {
  fixture = await startQueue();
  queue = clientOf(fixture.emulator.rootUrl, { clock: fixture.clock });
  taskId = newTaskId();
  expires = fixture.clock.now() + 86_400_000;
  folder = mkdtempSync(path.join(tmpdir(), 'bbb-artifacts-'));
  await fixture.ok('createTask', taskId, taskAt(fixture.clock.now()));
  await queue.claim(taskId, 0);
});
afterEach(async () => {
  await fixture.stop();
  rmSync(folder, { recursive: true, force: true });
});

const stored = (name: string) =>
  fixture.emulator.tasks.get(taskId)?.artifacts.find((artifact) => artifact.name === name);

/** The same without the client, so that the waits between the tries are short. */
function putQuickly(artifact: Artifact, rootUrl = fixture.emulator.rootUrl, time?: AbortSignal): Promise<void> {
  const { clientId, accessToken } = ROOT_CLIENT;
  const agent = { http: new http.Agent(), https: new https.Agent() };
  const credentials = { clientId, accessToken };
  const services = createServices({ rootUrl, credentials, agent, signedAt: Date.now, timeoutMs: 6000, retries: 0 });
  const options = { services, agent, reader: createAnswerReader(), tries: 3, firstDelayMs: 1 };
  return putArtifact(taskId, 0, artifact, options, time);
}

function makeFile(size: number): { path: string; size: number; content: Buffer } {
  const content = Buffer.alloc(size, 'a line of a log\n');
  const file = path.join(folder, 'file');
  writeFileSync(file, content);
  return { path: file, size, content };
}

const sha = (content: Buffer | undefined) =>
  createHash('sha256')
    .update(content ?? '')
    .digest('hex');

describe('content', () => {
  it.each([
    ['text', 'hällo', Buffer.from('hällo')],
    ['bytes', Buffer.from([0, 255, 1]), Buffer.from([0, 255, 1])],
    ['nothing', '', Buffer.alloc(0)],
  ])('is uploaded as it is: %s', async (_what, content, expected) => {
    await queue.putArtifact(taskId, 0, { ...TEXT, expires, content });
    expect(stored(TEXT.name)).toMatchObject({ contentType: 'text/plain', expires, details: { storageType: 's3' } });
    expect(stored(TEXT.name)?.content()).toEqual(expected);
  });

  it('can be uploaded again', async () => {
    await queue.putArtifact(taskId, 0, { ...TEXT, expires, content: 'one' });
    await queue.putArtifact(taskId, 0, { ...TEXT, expires, content: 'two' });
    expect(stored(TEXT.name)?.content()?.toString()).toBe('two');
  });

  it('may have a name that needs to be escaped', async () => {
    const name = 'public/logs/a b%2F?c#d.txt';
    await queue.putArtifact(taskId, 0, { ...TEXT, name, expires, content: 'x' });
    expect(stored(name)?.content()?.toString()).toBe('x');
  });

  it('that would outlive the task is invalid', async () => {
    const artifact = { ...TEXT, expires: expires + 1, content: 'x' };
    await expect(queue.putArtifact(taskId, 0, artifact)).rejects.toMatchObject({
      code: 'queue-invalid',
      isTransient: false,
      context: { taskId, runId: 0, artifact: TEXT.name, statusCode: 400 },
    });
  });

  it('of a run that is over is a conflict', async () => {
    await queue.resolve(taskId, 0, { state: 'completed' });
    const put = queue.putArtifact(taskId, 0, { ...TEXT, expires, content: 'x' });
    await expect(put).rejects.toMatchObject({ code: 'queue-conflict' });
  });
});

describe('a file', () => {
  const log = { kind: 'file', name: 'public/logs/live_backing.log', contentType: 'text/plain; charset=utf-8' } as const;

  it.each([0, 1, 10_000_000])('of %d bytes is uploaded whole', async (size) => {
    const { content, ...file } = makeFile(size);
    await queue.putArtifact(taskId, 0, { ...log, ...file, expires });
    expect(stored(log.name)?.contentType).toBe(log.contentType);
    expect(sha(stored(log.name)?.content())).toBe(sha(content));
  });

  it('is uploaded from its beginning again when the first try broke off', async () => {
    const { content, ...file } = makeFile(1_000_000);
    fixture.faults.http.push(
      { method: 'PUT', path: BUCKET, times: 1, takesEffect: false, outcome: { kind: 'reset' } },
      { method: 'PUT', path: BUCKET, times: 1, takesEffect: false, outcome: { kind: 'status', status: 503 } },
    );
    await putQuickly({ ...log, ...file, expires });
    expect(sha(stored(log.name)?.content())).toBe(sha(content));
  });

  it('is closed again, whatever became of the upload', async () => {
    const { content: _content, ...file } = makeFile(5_000_000);
    const openFiles = () => readdirSync('/proc/self/fd').length;
    const before = openFiles();
    fixture.faults.http.push({ method: 'PUT', path: BUCKET, takesEffect: false, outcome: { kind: 'reset' } });
    await expect(putQuickly({ ...log, ...file, expires })).rejects.toMatchObject({ code: 'queue-unavailable' });
    await eventually(() => openFiles() <= before, { what: 'all files and sockets to be closed' });
  });

  it('that is not there cannot be uploaded, which may be better later', async () => {
    const put = putQuickly({ ...log, path: path.join(folder, 'none'), size: 5, expires });
    await expect(put).rejects.toMatchObject({
      isTransient: true,
      message: 'the content of public/logs/live_backing.log could not be uploaded: ENOENT',
    });
  });
});

describe('the upload', () => {
  let bucket: FakeServer;
  let putUrls: string[];
  /** A queue that hands out the next URL of a bucket that answers as it is told, with this code of S3's. */
  async function startBucket(statuses: readonly number[], code = 'Code'): Promise<void> {
    let puts = 0;
    putUrls = [];
    bucket = await startFakeServer(({ method }) => {
      if (method === 'POST') {
        putUrls.push(`${bucket.url}/b?X-Amz-Signature=secret-${putUrls.length}`);
        return { body: { storageType: 's3', putUrl: putUrls.at(-1) } };
      }
      puts += 1;
      const body = `<Error><Code>${code}</Code><Message>secret-message</Message></Error>`;
      return { status: statuses[puts - 1] ?? 200, body, contentType: 'application/xml' };
    });
  }
  afterEach(() => bucket.stop());
  const puts = () => bucket.requests.filter(({ method }) => method === 'PUT');

  it('ends at once, and is not tried again, when there is no time left for it', async () => {
    const time = new AbortController();
    bucket = await startFakeServer(({ method }) => {
      if (method === 'POST') {
        return { body: { storageType: 's3', putUrl: `${bucket.url}/b` } };
      }
      time.abort();
      return undefined;
    });
    await expect(putQuickly({ ...TEXT, expires, content: 'x' }, bucket.url, time.signal)).rejects.toMatchObject({
      code: 'queue-unavailable',
      isTransient: true,
    });
    expect(puts()).toHaveLength(1);
  });

  it('says the type that was announced, and its length, and is not compressed', async () => {
    await startBucket([]);
    await putQuickly({ ...TEXT, expires, content: 'hällo' }, bucket.url);
    expect(puts()).toHaveLength(1);
    expect(puts()[0]?.headers).toMatchObject({ 'content-type': 'text/plain', 'content-length': '6' });
    expect(puts()[0]?.headers).not.toHaveProperty('transfer-encoding');
    expect(puts()[0]?.headers).not.toHaveProperty('content-encoding');
    expect(puts()[0]?.headers).not.toHaveProperty('authorization');
    expect(puts()[0]?.body.toString()).toBe('hällo');
    expect(JSON.parse(bucket.requests[0]?.body.toString() ?? '')).toEqual({
      storageType: 's3',
      contentType: 'text/plain',
      expires: new Date(expires).toISOString(),
    });
  });

  it('is tried again, with a fresh URL each time: the old one may have expired', async () => {
    await startBucket([403, 500]);
    await putQuickly({ ...TEXT, expires, content: 'x' }, bucket.url);
    expect(puts().map(({ url }) => url)).toEqual(putUrls.map((url) => url.slice(bucket.url.length)));
    expect(new Set(putUrls).size).toBe(3);
  });

  it.each([
    [400, 'EntityTooLarge'],
    [405, 'MethodNotAllowed'],
    [411, 'MissingContentLength'],
    [413, 'Code'],
    [501, 'NotImplemented'],
  ])('is given up at once where the bucket refuses it for good: %d %s', async (statusCode, code) => {
    await startBucket([statusCode], code);
    await expect(putQuickly({ ...TEXT, expires, content: 'x' }, bucket.url)).rejects.toMatchObject({
      code: 'queue-invalid',
      isTransient: false,
      message: `the content of public/a.txt could not be uploaded: status ${statusCode} (${code})`,
      context: { artifact: TEXT.name, statusCode },
    });
    expect(puts()).toHaveLength(1);
  });

  it.each(['RequestTimeout', 'ExpiredToken', 'IncompleteBody', 'BadDigest'])(
    'is tried again where the bucket refuses the try and not the content: %s',
    async (code) => {
      await startBucket([400, 400], code);
      await putQuickly({ ...TEXT, expires, content: 'x' }, bucket.url);
      expect(puts()).toHaveLength(3);
    },
  );

  it.each([400, 405, 411, 501])('is tried again where only what stands before the bucket says %d', async (status) => {
    await startBucket([status, status], '- it has no codes');
    await putQuickly({ ...TEXT, expires, content: 'x' }, bucket.url);
    expect(puts()).toHaveLength(3);
  });

  it('is given up some time, without a word of the URL', async () => {
    await startBucket([500, 500, 503]);
    const error: unknown = await putQuickly({ ...TEXT, expires, content: 'x' }, bucket.url).catch((e: unknown) => e);
    expect(error).toMatchObject({
      code: 'queue-unavailable',
      isTransient: true,
      message: 'the content of public/a.txt could not be uploaded: status 503 (Code)',
      context: { artifact: TEXT.name, statusCode: 503 },
    });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toMatch(/secret-|Signature/);
    expect(puts()).toHaveLength(3);
  });

  it('uses its connection again', async () => {
    await startBucket([]);
    const client = clientOf(bucket.url);
    for (let i = 0; i < 5; i += 1) {
      await client.putArtifact(taskId, 0, { ...TEXT, expires, content: 'x' });
    }
    // The same for the calls and the contents: here both are at one place.
    expect(bucket.connections()).toBe(1);
  });
});

describe('what has no content of its own', () => {
  const page = { name: 'public/logs/live.log', contentType: 'text/html' } as const;
  const reference = (url: string) => ({
    ...{ storageType: 'reference', contentType: 'text/html', url },
    expires: new Date(expires).toJSON(),
  });

  it('redirects to a page, later to another, and is a link in the end', async () => {
    await queue.putArtifact(taskId, 0, { ...page, kind: 'redirect', url: 'http://buildbot/#/builders/1', expires });
    const url = 'https://buildbot/#/builders/1/builds/2';
    await queue.putArtifact(taskId, 0, { ...page, kind: 'redirect', url, expires });
    expect(stored(page.name)).toMatchObject({ expires, details: { storageType: 'reference', url } });
    const target = 'public/logs/live_backing.log';
    await queue.putArtifact(taskId, 0, { kind: 'link', name: page.name, contentType: 'text/plain', target, expires });
    expect(stored(page.name)).toMatchObject({ details: { storageType: 'link', artifact: target } });
    await queue.putArtifact(taskId, 0, { kind: 'link', name: page.name, contentType: 'text/plain', target, expires });
  });

  it.each(['javascript:alert(1)', 'file:///etc/passwd', 'ftp://host/x', 'buildbot/x', ''])(
    'does not redirect to %p',
    async (url) => {
      const inputs = countInputs();
      const client = clientOf(fixture.emulator.rootUrl, { clock: fixture.clock, inputs });
      const put = client.putArtifact(taskId, 0, { ...page, kind: 'redirect', url, expires });
      await expect(put).rejects.toMatchObject({ code: 'queue-invalid', isTransient: false });
      expect(stored(page.name)).toBeUndefined();
      expect(inputs.counts).toEqual({ 'rejected legacy-ci-answer': 1 });
    },
  );

  it.each([
    ['http://buildbot/a log?q=a b#/x y', 'http://buildbot/a%20log?q=a%20b#/x%20y'],
    ['http://büild.example/übersicht', 'http://xn--bild-0ra.example/%C3%BCbersicht'],
    ['http://u:p@[::1]:80/a|b[1]?{x}#/^`#', 'http://u:p@[::1]/a%7Cb%5B1%5D?%7Bx%7D#/%5E%60%23'],
    ['http://buildbot/100%/%41', 'http://buildbot/100%25/%41'],
    ['http://buildbot?#', 'http://buildbot/'],
  ])('redirects to %p as the queue takes it', async (url, expected) => {
    // Seen on a real 106: whatever is not of RFC 3986 is refused with 400.
    expect(await fixture.call('createArtifact', [taskId, 0, 'x', reference(url)])).toMatchObject(
      url.includes('?#') ? { ok: true } : { status: 400, code: 'InputValidationError' },
    );
    await queue.putArtifact(taskId, 0, { ...page, kind: 'redirect', url, expires });
    expect(stored(page.name)).toMatchObject({ details: { url: expected } });
  });

  it('leaves it to the bridge which schemes are redirected to', async () => {
    // Seen on a real 106.
    for (const url of ['ftp://host/x', 'javascript:alert(1)']) {
      expect(await fixture.call('createArtifact', [taskId, 0, url, reference(url)])).toMatchObject({ ok: true });
    }
  });

  it('says why there is nothing', async () => {
    const error = { reason: 'file-missing-on-worker', message: 'the log could not be read' };
    await queue.putArtifact(taskId, 0, { kind: 'error', name: page.name, expires, ...error });
    expect(stored(page.name)).toMatchObject({ expires, details: { storageType: 'error', ...error } });
  });

  it.each<Artifact>([
    { ...page, kind: 'redirect', url: 'http://buildbot/', expires: 0 },
    { ...page, kind: 'link', target: 'public/logs/live_backing.log', expires: 0 },
    { name: page.name, kind: 'error', reason: 'file-missing-on-worker', message: 'gone', expires: 0 },
  ])('is not taken for there where some proxy answers in place of the queue: $kind', async (artifact) => {
    const proxy = await startFakeServer(() => ({ body: '<html>Sign in</html>', contentType: 'text/html' }));
    try {
      await expect(putQuickly({ ...artifact, expires }, proxy.url)).rejects.toMatchObject({
        code: 'queue-unavailable',
        isTransient: true,
      });
    } finally {
      await proxy.stop();
    }
  });

  it('is a conflict where something else has the name', async () => {
    await queue.putArtifact(taskId, 0, { ...TEXT, expires, content: 'x' });
    const put = queue.putArtifact(taskId, 0, { ...TEXT, kind: 'redirect', url: 'http://buildbot/', expires });
    await expect(put).rejects.toMatchObject({ code: 'queue-conflict', context: { artifact: TEXT.name } });
  });

  it('is unavailable when the queue does not answer', async () => {
    fixture.faults.http.push({ path: CREATE, takesEffect: false, outcome: { kind: 'status', status: 500 } });
    const put = putQuickly({ ...page, kind: 'redirect', url: 'http://buildbot/', expires });
    await expect(put).rejects.toMatchObject({ code: 'queue-unavailable', isTransient: true });
  });
});
