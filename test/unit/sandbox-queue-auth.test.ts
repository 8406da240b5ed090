/** Who may do what at the emulated queue. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import taskcluster from 'taskcluster-client';
import { z } from 'zod';
import { clientOf } from '../support/queue-client.ts';
import {
  type Credentials,
  newTaskId,
  type QueueFixture,
  ROOT_CLIENT,
  startQueue,
  taskAt,
} from '../support/queue-emulator.ts';

const bridge = {
  clientId: 'bridge',
  accessToken: 'bridge-access-token-for-tests',
  scopes: ['assume:bridge-role', 'queue:worker-id:g/w'],
};
const roles = {
  'bridge-role': ['queue:claim-task:buildbot/bridge', 'queue:status:*', 'assume:repo:a'],
  'repo:*': ['queue:route:index.<..>.*'],
  anonymous: ['queue:get-artifact:public/*'],
};
const worker = { workerGroup: 'g', workerId: 'w' };

let queue: QueueFixture;
let taskId: string;
beforeEach(async () => {
  queue = await startQueue({ clients: [ROOT_CLIENT, bridge], roles });
  taskId = newTaskId();
  await queue.ok('createTask', taskId, taskAt(queue.clock.now(), { scopes: ['some:scope'] }));
});
afterEach(() => queue.stop());

describe('signatures', () => {
  it('lets a known client with the right token in', async () => {
    expect(await queue.call('status', [taskId], bridge)).toMatchObject({ ok: true });
  });

  it.each([
    ['a wrong token', { clientId: 'bridge', accessToken: 'wrong' }, 'Unauthorized: Bad mac'],
    ['an unknown client', { clientId: 'nobody', accessToken: 'x' }, "Client with clientId 'nobody' not found"],
  ])('refuses %s', async (_, credentials, message) => {
    const result = await queue.call('status', [taskId], credentials);
    expect(result).toMatchObject({ ok: false, status: 401, code: 'AuthenticationFailed' });
    expect(result).toHaveProperty('message', expect.stringContaining(message));
  });

  it('need no credentials for a ping, but for all else the scopes of anonymous are too few', async () => {
    expect(await queue.call('ping', [], null)).toMatchObject({ answer: { alive: true } });
    expect(await queue.call('status', [taskId], null)).toMatchObject({ status: 403, code: 'InsufficientScopes' });
  });
});

describe('scopes', () => {
  it('of roles count', async () => {
    expect(await queue.call('claimTask', [taskId, 0, worker], bridge)).toMatchObject({ ok: true });
  });

  it('that are missing are named', async () => {
    const result = await queue.call('cancelTask', [taskId], bridge);
    expect(result).toMatchObject({ ok: false, status: 403, code: 'InsufficientScopes' });
    expect(result).toHaveProperty(
      'message',
      expect.stringContaining(`queue:cancel-task:test-sched/${taskId}/${taskId}`),
    );
    const other = await queue.call('claimTask', [taskId, 0, { ...worker, workerId: 'other' }], bridge);
    expect(other).toHaveProperty('message', expect.stringContaining('queue:worker-id:g/other'));
    expect(other).toHaveProperty('message', expect.stringContaining('Client ID bridge'));
  });

  it('can be taken away and given at run time', async () => {
    queue.emulator.setScopes('bridge', []);
    expect(await queue.call('status', [taskId], bridge)).toMatchObject({ status: 403 });
    queue.emulator.setScopes('bridge', ['queue:cancel-task:test-sched/*']);
    expect(await queue.call('cancelTask', [taskId], bridge)).toMatchObject({ ok: true });
    expect(() => queue.emulator.setScopes('nobody', [])).toThrow('nobody');
  });

  it('of a batch are needed for each task', async () => {
    queue.emulator.setScopes('bridge', [`queue:status:${taskId}`]);
    expect(await queue.call('statuses', [{ taskIds: [taskId] }], bridge)).toMatchObject({ ok: true });
    const other = newTaskId();
    const result = await queue.call('statuses', [{ taskIds: [taskId, other] }], bridge);
    expect(result).toHaveProperty('message', expect.stringContaining(`queue:status:${other}`));
  });

  it('for creating a task may be those of a higher priority', async () => {
    const scopes = (priority: string) => [
      ...['queue:create-task:project:none', 'queue:scheduler-id:test-sched', 'queue:route:index.a.*'],
      `queue:create-task:${priority}:buildbot/bridge`,
    ];
    const task = taskAt(queue.clock.now(), { priority: 'medium', routes: ['index.a.b'] });
    queue.emulator.setScopes('bridge', scopes('high'));
    expect(await queue.call('createTask', [newTaskId(), task], bridge)).toMatchObject({ ok: true });
    queue.emulator.setScopes('bridge', scopes('low'));
    expect(await queue.call('createTask', [newTaskId(), task], bridge)).toMatchObject({ status: 403 });
  });

  it('are expanded by auth', async () => {
    const { scopes } = z
      .object({ scopes: z.array(z.string()) })
      .parse(await queue.auth('expandScopes', { scopes: ['assume:bridge-role', 'x'] }));
    expect(scopes).toEqual([
      ...['assume:bridge-role', 'assume:repo:a', 'queue:claim-task:buildbot/bridge'],
      ...['queue:route:index.a.*', 'queue:status:*', 'x'],
    ]);
    // Seen on a real 106: a parameter that is a pattern itself ends the scope.
    for (const [given, expected] of [
      ['assume:repo:b*', 'queue:route:index.b*'],
      ['assume:re*', 'queue:route:index.*'],
      ['a*', 'queue:route:index.*'],
    ] as const) {
      expect(await queue.auth('expandScopes', { scopes: [given, 'ab'] })).toMatchObject({
        scopes: expect.arrayContaining([expected]),
      });
    }
    expect(await queue.auth('currentScopes')).toMatchObject({ scopes: ['*'] });
  });
});

describe('the credentials that come with a claim', () => {
  it('are good for the run, and no other, until the claim runs out', async () => {
    const { credentials } = z
      .object({ credentials: z.object({ clientId: z.string(), accessToken: z.string(), certificate: z.string() }) })
      .parse(await queue.ok('claimTask', taskId, 0, worker));
    const other = newTaskId();
    await queue.ok('createTask', other, taskAt(queue.clock.now()));
    await queue.ok('claimTask', other, 0, worker);
    expect(await queue.call('reclaimTask', [taskId, 0], credentials)).toMatchObject({ ok: true });
    expect(await queue.call('reclaimTask', [other, 0], credentials)).toMatchObject({ status: 403 });
    expect(await queue.call('status', [taskId], credentials)).toMatchObject({ status: 403 });
    // Seen on a real 106: there are five minutes of slack.
    queue.clock.advance(25 * 60_000);
    expect(await queue.call('reclaimTask', [taskId, 0], credentials)).toMatchObject({ ok: true });
    queue.clock.advance(1);
    expect(await queue.call('reclaimTask', [taskId, 0], credentials)).toMatchObject({ status: 401 });
  });
});

describe('temporary credentials', () => {
  const HOUR = 3_600_000;
  const temporary = (options: { clientId?: string; scopes?: string[]; accessToken?: string; hours?: number } = {}) =>
    taskcluster.createTemporaryCredentials({
      ...(options.clientId === undefined ? {} : { clientId: options.clientId }),
      start: new Date(queue.clock.now()),
      expiry: new Date(queue.clock.now() + (options.hours ?? 1) * HOUR),
      scopes: options.scopes ?? ['queue:status:*'],
      credentials: { clientId: bridge.clientId, accessToken: options.accessToken ?? bridge.accessToken },
    });
  const refused = (message: string) => ({ status: 401, message: expect.stringContaining(message) });
  const status = (credentials: Credentials) => queue.call('status', [taskId], credentials);

  it('have the scopes of their certificate and no more', async () => {
    const credentials = temporary();
    expect(await status(credentials)).toMatchObject({ ok: true });
    expect(await queue.call('claimTask', [taskId, 0, worker], credentials)).toMatchObject({ status: 403 });
    expect(await status(temporary({ scopes: ['queue:nothing'] }))).toMatchObject(refused('satisfy all certificate'));
  });

  it('may have a name, if their issuer may give it', async () => {
    expect(await status(temporary({ clientId: 'bridge/one' }))).toMatchObject(refused('auth:create-client:bridge/one'));
    queue.emulator.setScopes('bridge', ['auth:create-client:bridge/*', 'queue:status:*']);
    expect(await status(temporary({ clientId: 'bridge/one' }))).toMatchObject({ ok: true });
    const renamed = { ...temporary({ clientId: 'bridge/one' }), clientId: 'bridge/two' };
    expect(await status(renamed)).toMatchObject(refused('signature is not valid'));
  });

  it('are good from their start to their expiry, give or take five minutes', async () => {
    const credentials = temporary();
    expect(await status(temporary({ hours: 31 * 24 }))).toMatchObject({ ok: true });
    queue.clock.advance(-300_000);
    expect(await status(credentials)).toMatchObject({ ok: true });
    queue.clock.advance(-1);
    expect(await status(credentials)).toMatchObject(refused('start > now'));
    queue.clock.advance(300_001 + HOUR + 300_000);
    expect(await status(credentials)).toMatchObject({ ok: true });
    queue.clock.advance(1);
    expect(await status(credentials)).toMatchObject(refused('expiry < now'));
  });

  it('are refused where they are not signed by the token of a client', async () => {
    expect(await status(temporary({ accessToken: 'guessed' }))).toMatchObject(refused('signature is not valid'));
    expect(await status({ ...temporary(), accessToken: 'guessed' })).toMatchObject(refused('Unauthorized: Bad mac'));
    expect(await status({ ...temporary(), certificate: '{"version":2}' })).toMatchObject(refused('version'));
  });

  it('do for the bridge', async () => {
    const scopes = ['queue:claim-task:buildbot/bridge', 'queue:worker-id:buildbot-bridge/buildbot-bridge'];
    queue.emulator.setScopes('bridge', [...scopes, 'queue:status:*']);
    const client = clientOf(queue.emulator.rootUrl, { credentials: temporary({ scopes }) });
    expect(await client.claim(taskId, 0)).toMatchObject({ runs: [{ state: 'running' }] });
    expect(await client.status(taskId)).toMatchObject({ kind: 'unreadable', error: { code: 'queue-forbidden' } });
  });
});
