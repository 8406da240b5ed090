/** The emulated build events: what they tell, and the logs that they lead to. */
import { gunzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from '@jest/globals';
import got from 'got';
import { z } from 'zod';
import type { BuildMessage } from '../../src/sandbox/classic/options.ts';
import { eventually } from '../support/eventually.ts';
import { type Classic, MASTER, startClassic } from './sandbox-classic-support.ts';

const steps = [{ name: 'compile', log: 'cc -o x x.c\n' }];
const ok = { name: 'ok', workers: ['w1'], attempts: [{ results: 0, durationMs: 20, steps }] };
const slow = { name: 'slow', workers: ['w1'], attempts: [{ results: 0, durationMs: 'wait' as const }] };

let buildbot: Classic;
afterEach(() => buildbot?.stop());

async function start(more: Partial<Parameters<typeof startClassic>[0]> = {}): Promise<void> {
  buildbot = await startClassic({ schema: 'A', flavour: 'mozilla', builders: [ok, slow], ...more });
}
const keys = () => buildbot.messages.map(({ routingKey }) => routingKey);
const heard = (count: number) => eventually(() => buildbot.messages.length >= count, { what: `${count} messages` });
/** Builds one request of `ok`; resolves when it is complete. */
async function build(more: object = {}): Promise<number> {
  const brid = await buildbot.inject({ builder: 'ok', task: 'T0', ...more });
  await buildbot.completed(brid);
  return brid;
}

describe('their shape', () => {
  const TIME = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000$/);
  const meta = (routing_key: string) => ({
    ...{ exchange: 'exchange/build/', serializer: 'json', routing_key, message_id: expect.any(Number) },
    ...{ master_name: MASTER, master_incarnation: expect.stringMatching(/^pid\d+-boot\d+$/) },
    sent: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$/),
  });
  const common = {
    ...{ number: 0, reason: 'Created by BBB for task T0', slave: 'w1', blame: [], eta: null, currentStep: null },
    sourceStamp: {
      ...{ branch: 'integration/mozilla-inbound', revision: 'abc', repository: '', project: '' },
      ...{ hasPatch: false, changes: [] },
    },
  };

  it('is that of started, finished and log_uploaded', async () => {
    await start({ builders: [{ ...ok, name: 'Linux build', directory: 'linux.build 1' }] });
    const brid = await build({ builder: 'Linux build' });
    await heard(3);
    const [started, finished, uploaded] = buildbot.messages;
    const row = await buildbot.request(brid);
    const properties = [
      ['basedir', expect.any(String), 'slave'],
      ['branch', 'integration/mozilla-inbound', 'Build'],
      ['buildername', 'Linux build', 'Builder'],
      ['buildnumber', 0, 'Build'],
      ['master', buildbot.webStatusUrl, 'Build'],
      ['product', 'firefox', 'bbb'],
      ['project', '', 'Build'],
      ['repository', '', 'Build'],
      ['revision', 'abc', 'Build'],
      ['slavename', 'w1', 'BuildSlave'],
      ['taskId', 'T0', 'bbb'],
    ];
    expect(started).toEqual({
      exchange: 'exchange/build/',
      routingKey: 'build.linux_build_1.0.started',
      payload: {
        payload: {
          build: {
            ...common,
            builderName: 'Linux build',
            results: null,
            text: [],
            steps: [],
            times: [TIME, null],
            properties,
          },
          request_ids: [brid],
        },
        _meta: meta('build.linux_build_1.0.started'),
      },
    });
    const over = {
      ...common,
      results: 0,
      text: ['build', 'successful'],
      steps: [expect.objectContaining({ name: 'compile' })],
    };
    expect(finished).toEqual({
      exchange: 'exchange/build/',
      routingKey: 'build.linux_build_1.0.finished',
      payload: {
        payload: {
          build: { ...over, builderName: 'Linux build', times: [TIME, TIME], properties },
          request_ids: [brid],
          results: 0,
        },
        _meta: meta('build.linux_build_1.0.finished'),
      },
    });
    const added = [
      ['log_url', expect.stringMatching(/^http.*\.txt\.gz$/), 'postrun.py'],
      ['request_ids', [brid], 'postrun.py'],
      ['request_times', { [brid]: row.submitted_at }, 'postrun.py'],
      ['statusdb_id', expect.any(Number), 'postrun.py'],
    ];
    const sorted = [...properties, ...added].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
    expect(uploaded).toEqual({
      exchange: 'exchange/build/',
      routingKey: 'build.linux.build 1.0.log_uploaded',
      payload: {
        payload: { build: { ...over, builderName: 'linux.build 1', times: [TIME, TIME], properties: sorted } },
        _meta: meta('build.linux.build 1.0.log_uploaded'),
      },
    });
  });

  it('tells no more than 100 request ids', async () => {
    await start({ builders: [{ ...ok, workers: ['w1'], maxMerged: 200 }, slow] });
    const holder = await buildbot.inject({ builder: 'slow', task: 'T' });
    await buildbot.built(holder);
    let last = 0;
    for (let index = 0; index < 103; index += 1) {
      last = await buildbot.inject({ builder: 'ok', task: `T${index}` });
    }
    await buildbot.finish(holder);
    await buildbot.completed(last);
    await eventually(() => keys().includes('build.ok.0.log_uploaded'));
    for (const { payload } of buildbot.messages.filter(({ routingKey }) => routingKey.startsWith('build.ok.'))) {
      expect(requestIdsOf(payload)).toHaveLength(100);
    }
  });

  it('has sources and logs as a 0.8.12 has them, on its schema', async () => {
    await start({ schema: 'B' });
    await build();
    await heard(3);
    expect(buildbot.messages[1]?.payload).toMatchObject({
      payload: { build: { sourceStamps: [{ codebase: '', revision: 'abc' }], logs: [['stdio', expect.any(String)]] } },
    });
  });
});

function requestIdsOf(payload: unknown): unknown {
  const properties = z.array(z.tuple([z.string(), z.unknown(), z.string()]));
  const shape = z.object({
    payload: z.object({ request_ids: z.unknown().optional(), build: z.object({ properties }) }),
  });
  const {
    request_ids,
    build: { properties: own },
  } = shape.parse(payload).payload;
  return request_ids ?? own.find(([name]) => name === 'request_ids')?.[1];
}

function logUrlOf(message: BuildMessage | undefined): string {
  return String(/"log_url","([^"]+)"/.exec(JSON.stringify(message))?.[1]);
}

describe('telling less than they should', () => {
  it.each([
    ['empty', [[], [], []]],
    // Of the log's event they are a property, which postrun.py adds in any case.
    ['absent', [undefined, undefined, [1]]],
  ] as const)('%s request ids', async (requestIds, expected) => {
    await start();
    buildbot.events.requestIds = requestIds;
    await build();
    await heard(3);
    expect(buildbot.messages.map(({ payload }) => requestIdsOf(payload))).toEqual(expected);
  });

  it('no URL of the log: the word null', async () => {
    await start();
    buildbot.events.failUploads = 1;
    await build();
    await build();
    await heard(6);
    expect(buildbot.messages.filter((message) => logUrlOf(message) === 'null')).toHaveLength(1);
  });
});

describe('the log', () => {
  it.each([
    ['encoded', 'text/plain', 'gzip'],
    ['file', 'application/x-gzip', undefined],
  ] as const)('is really gzipped, and served as %s', async (logsAs, type, encoding) => {
    await start({ logsAs });
    await build();
    await heard(3);
    const answer = await got(logUrlOf(buildbot.messages[2]), { decompress: false, responseType: 'buffer' });
    expect(answer.headers['content-type']).toContain(type);
    expect(answer.headers['content-encoding']).toBe(encoding);
    expect(gunzipSync(answer.body).toString()).toContain('results: success (0)');
    expect(gunzipSync(answer.body).toString()).toContain('cc -o x x.c\n');
  });

  it('can be had while the master is away', async () => {
    await start();
    await build();
    await heard(3);
    await buildbot.stopMaster();
    expect((await got(logUrlOf(buildbot.messages[2]))).body).toContain('builder: ok');
  });

  it('is never uploaded of a build without a product', async () => {
    await start({ builders: [ok, { ...ok, name: 'next' }] });
    await build({ properties: { product: undefined } });
    await build({ builder: 'next' });
    await eventually(() => keys().includes('build.next.0.log_uploaded'));
    expect(keys()).not.toContain('build.ok.0.log_uploaded');
  });
});
