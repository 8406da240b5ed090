/** Build events as nobody should publish them, and frames as no master sends them. */
import { afterEach, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { pino } from 'pino';
import { WebSocketServer } from 'ws';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { requestOfEvent, startWatch } from '../../src/buildbot/data-api/watch.ts';
import { startEvents } from '../../src/buildbot/scheduler-db/events.ts';
import { parseEvent } from '../../src/buildbot/scheduler-db/messages.ts';
import { systemClock } from '../../src/clock.ts';
import { connect, migrate } from '../../src/db/connection.ts';
import { createKeptBuilds } from '../../src/db/kept-builds.ts';
import { isTaskId } from '../../src/domain/task.ts';
import type { SubscriptionOptions } from '../../src/ports.ts';
import { createInProcessBroker } from '../../src/sandbox/broker.ts';
import { TASK_ID } from '../support/builders.ts';
import { countInputs } from '../support/count-inputs.ts';
import { eventually } from '../support/eventually.ts';
import { tried } from '../support/hostile-input.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom(
    '\0',
    '\ud800',
    '\u202e',
    "'; DROP TABLE tasks; --",
    'javascript:alert(1)',
    'http://x/\0',
    '__proto__',
  ),
);
const leaf = fc.oneof(fc.jsonValue({ maxDepth: 2 }), text, fc.double(), fc.bigInt().map(Number));
const property = fc.tuple(
  fc.oneof(fc.constantFrom('taskId', 'request_ids', 'log_url', '__proto__', 'a'), text),
  fc.oneof(leaf, fc.array(leaf, { maxLength: 3 })),
  fc.oneof(fc.constant('postrun.py'), leaf),
);
const event = fc.record(
  {
    payload: fc.record(
      {
        build: fc.record(
          {
            number: fc.oneof(fc.integer(), fc.maxSafeInteger(), leaf),
            slave: fc.oneof(text, leaf),
            times: fc.array(fc.oneof(leaf, fc.constantFrom(1e300, -1e300, '2017-06-01T10:02:11+0000')), {
              maxLength: 3,
            }),
            properties: fc.array(fc.oneof({ weight: 9, arbitrary: property }, leaf), { maxLength: 6 }),
          },
          { requiredKeys: ['number'] },
        ),
        request_ids: fc.oneof(fc.array(fc.oneof(fc.maxSafeInteger(), leaf), { maxLength: 5 }), leaf),
      },
      { requiredKeys: ['build'] },
    ),
    _meta: fc.oneof(fc.record({ master_name: text }), leaf),
  },
  { requiredKeys: ['payload'] },
);
const key = fc.constantFrom('build.b.1.started', 'build.b.1.finished', 'build.a.b.1.log_uploaded');

describe('a build event', () => {
  it('is an event or malformed, and what it tells can be kept, whatever the JSON', () => {
    let events = 0;
    fc.assert(
      fc.property(key, fc.oneof({ weight: 9, arbitrary: event }, leaf), (routingKey, value) => {
        tried('build events');
        const parsed = parseEvent(routingKey, Buffer.from(JSON.stringify(value) ?? ''));
        if (parsed.kind !== 'event') {
          expect(parsed).toMatchObject({ kind: 'malformed', reason: expect.any(String) });
          return;
        }
        events += 1;
        expect(parsed.taskId === null || isTaskId(parsed.taskId)).toBe(true);
        expect(parsed.buildRequestIds.every((id) => Number.isSafeInteger(id) && id > 0)).toBe(true);
        if (parsed.build) {
          const { startedAt, logUrl, number } = parsed.build;
          expect(Number.isNaN(new Date(startedAt).getTime())).toBe(false);
          expect(Number.isSafeInteger(number)).toBe(true);
          expect(logUrl === null || /^https?:/.test(logUrl)).toBe(true);
        }
      }),
      { numRuns: 1000 },
    );
    expect(events).toBeGreaterThan(20);
  });

  it('is malformed or of another kind, whatever the bytes', () => {
    fc.assert(
      fc.property(text, fc.uint8Array({ maxLength: 300 }), (routingKey, bytes) => {
        tried('build events', 2);
        expect(parseEvent(routingKey, Buffer.from(bytes)).kind).not.toBe('event');
        expect(parseEvent('build.b.1.started', Buffer.from(bytes)).kind).toBe('malformed');
      }),
      { numRuns: 500 },
    );
  });

  it('with a source that brings its own toString is an event', () => {
    tried('build events');
    const properties = [['taskId', TASK_ID, { toString: 1, valueOf: 1 }]];
    const body = Buffer.from(JSON.stringify({ payload: { build: { number: 1, properties } } }));
    expect(parseEvent('build.b.1.started', body)).toMatchObject({ kind: 'event', taskId: TASK_ID });
  });

  it.each([
    ['deep JSON', '['.repeat(500_000)],
    ['more than a message has', `{"payload":"${'x'.repeat(4_000_000)}"}`],
  ])('of %s is malformed', (_what, body) => {
    tried('build events');
    expect(parseEvent('build.b.1.finished', Buffer.from(body)).kind).toBe('malformed');
  });

  it('that can be read can be kept, and what was kept can be read', async () => {
    const db = connect('sqlite::memory:');
    undo.push(() => db.destroy());
    await migrate(db);
    const kept = createKeptBuilds(db);
    await fc.assert(
      fc.asyncProperty(event, async (value) => {
        tried('build events');
        const parsed = parseEvent('build.b.1.finished', Buffer.from(JSON.stringify(value)));
        if (parsed.kind === 'event' && parsed.build) {
          await kept.keep([{ ...parsed.build, buildRequestId: 1 }], 0);
        }
        await kept.of([1]);
      }),
      { numRuns: 200 },
    );
  });

  it('that cannot be read is acknowledged: it would come again for ever', async () => {
    let onMessage: SubscriptionOptions['onMessage'] | undefined;
    const events = await startEvents({
      broker: {
        subscribe(options) {
          ({ onMessage } = options);
          return { start: async () => undefined, stop: async () => undefined };
        },
        close: async () => undefined,
      },
      exchange: 'exchange/build/',
      kept: { keep: async () => undefined, of: async () => [], whole: async () => undefined, prune: async () => 0 },
      ownRequests: async (named) => named,
      onHint: () => undefined,
      onGap: () => undefined,
      ...{ clock: systemClock, retentionMs: 1, log: undefined },
    });
    undo.push(() => events.stop());
    tried('build events');
    const message = { exchange: '', routingKey: 'build.b.1.started', body: Buffer.from('{'), isRedelivered: false };
    await expect(onMessage?.(message)).resolves.toBeUndefined();
  });

  it('that cannot be read is said once, in short, and the next one is heard', async () => {
    const lines: string[] = [];
    const hints: number[] = [];
    const inputs = countInputs();
    const broker = createInProcessBroker();
    const events = await startEvents({
      broker,
      exchange: 'exchange/build/',
      kept: { keep: async () => undefined, of: async () => [], whole: async () => undefined, prune: async () => 0 },
      ownRequests: async (named) => named,
      onHint: (id) => hints.push(id),
      onGap: () => undefined,
      clock: systemClock,
      retentionMs: 1,
      inputs,
      log: pino({ level: 'info' }, { write: (line) => void lines.push(line) }),
    });
    const publish = (payload: unknown) =>
      broker.publish({ exchange: 'exchange/build/', routingKey: 'build.b.1.started', payload });
    for (let count = 0; count < 20; count += 1) {
      tried('build events');
      publish({ payload: { build: { number: 'x'.repeat(1000), properties: '\u001b[2J' } } });
    }
    publish({ payload: { build: { number: 1, properties: [['taskId', TASK_ID, 's']] }, request_ids: [7] } });
    await eventually(() => hints.length === 1);
    await events.stop();
    expect(lines).toHaveLength(20);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(700);
    expect(inputs.counts).toEqual({ 'received build-event': 21, 'rejected build-event': 20 });
  });
});

describe('of a build event what is left out', () => {
  it.each([
    ['is counted and said once, where the build is a bridge’s', [7], 1],
    ['is nobody’s business, where it is not', [], 0],
  ])('%s', async (_what, own, count) => {
    const lines: Record<string, unknown>[] = [];
    const inputs = countInputs();
    const broker = createInProcessBroker();
    let isKept: () => void = () => undefined;
    const heard = new Promise<void>((resolve) => {
      isKept = resolve;
    });
    const events = await startEvents({
      ...{ broker, exchange: 'exchange/build/', inputs, clock: systemClock, retentionMs: 1 },
      kept: { keep: async () => undefined, of: async () => [], whole: async () => undefined, prune: async () => 0 },
      async ownRequests() {
        isKept();
        return own;
      },
      ...{ onHint: () => undefined, onGap: () => undefined },
      log: pino({ level: 'info' }, { write: (line) => void lines.push(JSON.parse(line)) }),
    });
    const properties = [
      ['taskId', TASK_ID, 's'],
      ['log_url', 'javascript:alert(1)', 'postrun.py'],
      ['request_ids', [7], 'postrun.py'],
    ];
    const payload = { payload: { build: { number: 1, properties } } };
    broker.publish({ exchange: 'exchange/build/', routingKey: 'build.b.1.log_uploaded', payload });
    await heard;
    await events.stop();
    expect(lines.map(({ taskId, what }) => ({ taskId, what }))).toEqual(
      Array.from({ length: count }, () => ({ taskId: TASK_ID, what: ['log_url'] })),
    );
    expect(inputs.counts).toEqual({
      'received build-event': 1,
      ...(count > 0 ? { 'rejected build-event': count } : {}),
    });
  });
});

describe('frames of a WebSocket', () => {
  it('name a request by a whole number, or none', () => {
    fc.assert(
      fc.property(fc.oneof(text, fc.constantFrom('builds/1/new', 'buildrequests/9/x')), leaf, (path, message) => {
        tried('WebSocket frames');
        const id = requestOfEvent(path, message);
        expect(id === undefined || id === 'malformed' || Number.isSafeInteger(id)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  /** A master that sends these frames to whoever listens, and closes if told to. */
  async function startMaster(frames: readonly (string | Buffer)[], closes = false) {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    let connections = 0;
    server.on('connection', (socket) => {
      connections += 1;
      socket.on('error', () => undefined);
      for (const frame of frames) {
        tried('WebSocket frames');
        socket.send(frame);
      }
      if (closes) {
        socket.close();
      }
    });
    await new Promise((resolve) => server.once('listening', resolve));
    undo.push(() => {
      for (const client of server.clients) {
        client.terminate();
      }
      server.close();
    });
    const address = server.address();
    const url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
    const heard = {
      hints: [] as number[],
      gaps: 0,
      sleeps: [] as number[],
      lines: [] as string[],
      inputs: countInputs(),
    };
    const watch = startWatch({
      url,
      session: createSession(url),
      clock: {
        now: systemClock.now,
        uptime: Date.now,
        sleep: (ms, signal) => {
          heard.sleeps.push(ms);
          return systemClock.sleep(Math.min(ms, 5), signal);
        },
      },
      log: pino({ level: 'info' }, { write: (line) => void heard.lines.push(line) }),
      inputs: heard.inputs,
      onHint: (id) => heard.hints.push(id),
      onGap: () => {
        heard.gaps += 1;
      },
    });
    undo.push(() => watch.stop());
    return { heard, connections: () => connections };
  }
  const confirm = (id: number) => JSON.stringify({ _id: id, code: 200, msg: 'OK' });
  const hint = JSON.stringify({ k: 'buildrequests/7/new', m: {} });

  it('that are garbage are passed over', async () => {
    const frame = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.jsonValue().map((value) => JSON.stringify(value)),
      fc.record({ k: leaf, m: leaf, _id: leaf, code: leaf, msg: leaf }).map((value) => JSON.stringify(value)),
      fc.uint8Array().map((bytes) => Buffer.from(bytes)),
      fc.constant('['.repeat(100_000)),
    );
    const frames = fc.sample(frame, { numRuns: 500, seed: 7 });
    const { heard } = await startMaster([...frames, hint]);
    await eventually(() => heard.hints.includes(7));
    expect(heard.hints.every((id) => Number.isSafeInteger(id))).toBe(true);
  });

  it('that cannot be read are counted, and each is said once and in short', async () => {
    const noRequest = JSON.stringify({ k: 'builds/1/new', m: { buildid: 1 } });
    const { heard } = await startMaster([`\u001b[2J${'x'.repeat(5000)}`, noRequest, confirm(1), hint]);
    await eventually(() => heard.hints.length === 1);
    expect(heard.inputs.counts).toEqual({ 'received websocket-frame': 4, 'rejected websocket-frame': 2 });
    expect(heard.lines.map((line): unknown => JSON.parse(line))).toMatchObject([
      { msg: 'malformed frame dropped', excerpt: expect.stringMatching(/^\\u001b\[2Jx+$/) },
      { msg: 'malformed frame dropped', excerpt: noRequest },
    ]);
    expect(heard.lines[0]?.length).toBeLessThan(400);
  });

  it('that confirm without end are one gap', async () => {
    const again = Array.from({ length: 1000 }, (_, i) => confirm(i % 4));
    const { heard } = await startMaster([confirm(1), confirm(2), ...again, hint]);
    await eventually(() => heard.hints.length === 1);
    expect(heard.gaps).toBe(1);
  });

  it('that are too long end the connection, which is made again', async () => {
    const { heard, connections } = await startMaster(['x'.repeat(5_000_000)]);
    await eventually(() => connections() > 1);
    expect(heard.hints).toEqual([]);
    expect(heard.inputs.counts['rejected websocket-frame']).toBeGreaterThan(0);
    expect(heard.lines[0]).toContain('Buildbot cannot be listened to');
  });

  it('of a master that always hangs up are asked for more and more slowly', async () => {
    const { heard, connections } = await startMaster([confirm(1), confirm(2)], true);
    await eventually(() => connections() >= 8);
    expect(heard.sleeps.slice(0, 7).at(-1)).toBeGreaterThanOrEqual(15_000);
  });
});
