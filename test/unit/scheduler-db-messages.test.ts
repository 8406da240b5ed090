/** Build events: what is taken from them, in all the shapes that they came in, and that nothing in them does harm. */
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { type ParsedEvent, parseEvent } from '../../src/buildbot/scheduler-db/messages.ts';
import { tried } from '../support/hostile-input.ts';

const BUILD = {
  ...{ builderName: 'linux', number: 41, results: 0, reason: 'Created by BBB for task T', slave: 'bld-017' },
  ...{ text: ['build', 'successful'], blame: [], times: ['2017-06-01T10:02:11+0000', '2017-06-01T10:48:30+0000'] },
  properties: [
    ['buildername', 'linux', 'Builder'],
    ['product', 'firefox', 'bbb'],
    ['taskId', 'dSlITZ4yQgmvxxAi4A8fHQ', 'bbb'],
  ],
};
const UPLOADED = [
  ['log_url', 'https://archive.example.com/logs/build41.txt.gz', 'postrun.py'],
  ['request_ids', [17, 18], 'postrun.py'],
];
const META = { exchange: 'exchange/build/', master_name: 'bm77.example.com:/master', message_id: 1 };

const event = (kind: string, payload: unknown, meta: unknown = META): ParsedEvent =>
  parseEvent(`build.linux.41.${kind}`, Buffer.from(JSON.stringify({ payload, _meta: meta })));
const uploaded = (properties: readonly unknown[] = UPLOADED) =>
  event('log_uploaded', { build: { ...BUILD, properties: [...BUILD.properties, ...properties] } });

describe('an event', () => {
  it('of a start says whose build it is, and nothing that lasts', () => {
    expect(event('started', { build: { ...BUILD, times: [BUILD.times[0], null] }, request_ids: [17] })).toEqual({
      ...{ kind: 'event', event: 'started', buildRequestIds: [17], taskId: 'dSlITZ4yQgmvxxAi4A8fHQ' },
      build: undefined,
      leftOut: [],
    });
  });

  it('of an end tells the properties, before the log is there', () => {
    expect(event('finished', { build: BUILD, request_ids: [17, 18], results: 0 })).toMatchObject({
      buildRequestIds: [17, 18],
      build: {
        ...{ number: 41, master: 'bm77.example.com:/master', startedAt: Date.UTC(2017, 5, 1, 10, 2, 11) },
        ...{ isFinal: false, logUrl: null, worker: 'bld-017', properties: { product: ['firefox', 'bbb'] } },
      },
    });
  });

  it('of an upload tells the log; its requests are a property', () => {
    expect(uploaded()).toMatchObject({
      buildRequestIds: [17, 18],
      build: { isFinal: true, logUrl: 'https://archive.example.com/logs/build41.txt.gz' },
    });
  });

  it('believes nothing but the upload itself of where a log is, and whose', () => {
    const own = [
      ['log_url', 'https://elsewhere.example.com/', 'bbb'],
      ['request_ids', [1, 2], 'bbb'],
    ];
    const finished = { build: { ...BUILD, properties: [...BUILD.properties, ...own] }, request_ids: [17] };
    expect(event('finished', finished)).toMatchObject({ buildRequestIds: [17], build: { logUrl: null }, leftOut: [] });
    expect(uploaded(own)).toMatchObject({ buildRequestIds: [], build: { logUrl: null }, leftOut: ['log_url'] });
    expect(uploaded([...UPLOADED, ...own])).toMatchObject({
      buildRequestIds: [17, 18],
      build: { logUrl: 'https://archive.example.com/logs/build41.txt.gz' },
    });
  });

  it('of a build whose taskId no task can have is about the requests that it names', () => {
    const properties = [['taskId', 'dSlITZ4yJgmvxxAi4A8fHQ', 'bbb']];
    expect(event('started', { build: { ...BUILD, properties }, request_ids: [17] })).toMatchObject({
      ...{ kind: 'event', buildRequestIds: [17], taskId: null },
    });
  });

  it.each([
    ['the word "null"', 'null'],
    ['no text', 7],
    ['a script', 'javascript:alert(1)'],
    ['a file', 'file:///etc/passwd'],
    ['very long', `http://x/${'a'.repeat(2000)}`],
  ])('whose URL is %s has no log', (_what, url) => {
    expect(uploaded([['log_url', url, 'postrun.py']])).toMatchObject({ build: { logUrl: null } });
  });

  it('says what of it is left out, and nothing of what is merely not there', () => {
    const leftOut = (properties: readonly unknown[]) => {
      const parsed = uploaded(properties);
      return parsed.kind === 'event' && parsed.leftOut;
    };
    expect(leftOut(UPLOADED)).toEqual([]);
    expect(leftOut([['log_url', 'null', 'postrun.py']])).toEqual([]);
    expect(leftOut([['log_url', 'javascript:alert(1)', 'postrun.py']])).toEqual(['log_url']);
    expect(leftOut([...UPLOADED, 'no triple'])).toEqual(['properties']);
    expect(leftOut([['request_ids', [17, -1], 'postrun.py']])).toEqual(['request_ids']);
    expect(leftOut([['huge', 'x'.repeat(100_001), 'bbb']])).toEqual(['huge']);
  });

  it.each([
    ['with an offset', '2017-06-01T12:02:11+0200', Date.UTC(2017, 5, 1, 10, 2, 11)],
    ['in ISO form', '2017-06-01T10:02:11Z', Date.UTC(2017, 5, 1, 10, 2, 11)],
    // Told from the machine's zone only where that is not UTC.
    ['without an offset', '2017-06-01T10:02:11', Date.UTC(2017, 5, 1, 10, 2, 11)],
    ['without an offset, with a space', '2017-06-01 10:02:11.5', Date.UTC(2017, 5, 1, 10, 2, 11, 500)],
    ['in seconds', 1_496_311_331.5, 1_496_311_331_500],
    ['beyond all time', 1e300, 0],
    ['unreadable', 'yesterday', 0],
    ['missing', undefined, 0],
  ])('whose start is %s', (_what, start, startedAt) => {
    const times = start === undefined ? [] : [start, null];
    expect(event('finished', { build: { ...BUILD, times }, request_ids: [17] })).toMatchObject({
      build: { startedAt },
    });
  });

  it.each([
    ['missing', undefined, []],
    ['none', [], []],
    ['no list', 'none', []],
    ['partly nonsense', [17, -1, 0, '18', 1.5, null, 2 ** 60, 2 ** 31, 2 ** 31 - 1], [17, 2 ** 31 - 1]],
    ['very many', Array.from({ length: 2000 }, (_, at) => at + 1), Array.from({ length: 100 }, (_, at) => at + 1)],
  ])('whose request ids are %s', (_what, request_ids, expected) => {
    expect(event('started', { build: BUILD, request_ids })).toMatchObject({ buildRequestIds: expected });
  });

  it('tolerates properties that are no triples, and sources that are no texts', () => {
    const properties = [null, 'x', [], ['a'], [1, 2, 3], ['b', { deep: [] }, null], ['taskId', 7, 'bbb']];
    expect(event('finished', { build: { number: 1, properties } })).toMatchObject({
      taskId: null,
      build: { properties: { b: [{ deep: [] }, ''], taskId: [7, 'bbb'] }, worker: null },
    });
  });

  it('with very many properties is not looked through to its end', () => {
    const properties = [...Array.from({ length: 10_000 }, () => 0), ...BUILD.properties];
    expect(event('finished', { build: { number: 1, properties } })).toMatchObject({
      ...{ taskId: null, build: { properties: {} }, leftOut: ['properties'] },
    });
  });

  it('of a master that does not give its name has none', () => {
    expect(event('finished', { build: BUILD }, {})).toMatchObject({ build: { master: '' } });
  });

  it('leaves out properties that are too large, and what would be too much together', () => {
    const big = (name: string, size: number) => [name, 'x'.repeat(size), 'bbb'];
    const many = Array.from({ length: 20 }, (_, at) => big(`p${at}`, 90_000));
    const parsed = event('finished', { build: { number: 1, properties: [big('huge', 100_001), ...many] } });
    const kept = parsed.kind === 'event' ? Object.keys(parsed.build?.properties ?? {}) : [];
    expect(kept).toEqual(Array.from({ length: 11 }, (_, at) => `p${at}`));
  });

  it('keeps a property of whatever name', () => {
    const properties = JSON.parse('[["__proto__", {"polluted": true}, "bbb"], ["constructor", 1, "bbb"]]');
    const parsed = event('finished', { build: { number: 1, properties } });
    const kept = parsed.kind === 'event' ? (parsed.build?.properties ?? {}) : {};
    expect(Object.keys(kept).sort()).toEqual(['__proto__', 'constructor']);
    expect(Object.getPrototypeOf(kept)).toBe(Object.prototype);
  });
});

describe('a routing key', () => {
  const body = Buffer.from(JSON.stringify({ payload: { build: { number: 1 } } }));
  it.each([
    ['build.release-1.0.x linux.41.log_uploaded', 'event'],
    ['build.a.1.started', 'event'],
    ['build.a.1.step.x.started', 'event'],
    ['heartbeat', 'other'],
    ['slave.bld-017.connected', 'other'],
    ['request.linux.cancelled', 'other'],
    ['build.a.1.finished.not', 'other'],
    ['started', 'other'],
    ['', 'other'],
  ])('%j is of an %s', (key, kind) => expect(parseEvent(key, body).kind).toBe(kind));
});

describe('nonsense', () => {
  it.each<[string, Buffer, string]>([
    ['text', Buffer.from('nothing'), 'not JSON'],
    ['bytes', Buffer.from([0xff, 0xfe, 0]), 'not JSON'],
    ['nothing', Buffer.alloc(0), 'not JSON'],
    ['null', Buffer.from('null'), 'expected object'],
    ['no build', Buffer.from('{"payload":{}}'), 'payload.build'],
    ['a build without number', Buffer.from('{"payload":{"build":{}}}'), 'payload.build.number'],
    [
      'a build of no possible number',
      Buffer.from('{"payload":{"build":{"number":2147483648}}}'),
      'payload.build.number',
    ],
    ['too much', Buffer.alloc(4_000_001, ' '), 'too many'],
  ])('%s is malformed', (_what, content, reason) => {
    expect(parseEvent('build.a.1.started', content)).toEqual({
      kind: 'malformed',
      reason: expect.stringContaining(reason),
    });
  });

  const key = fc.oneof(
    fc.string(),
    fc.constantFrom('build.a.1.started', 'build.a.1.finished', 'build.a.1.log_uploaded'),
  );
  const json = fc.oneof(
    fc.jsonValue(),
    fc.record({
      payload: fc.record(
        {
          build: fc.record(
            {
              number: fc.oneof(fc.integer(), fc.jsonValue()),
              slave: fc.jsonValue(),
              times: fc.oneof(fc.array(fc.oneof(fc.string(), fc.double(), fc.jsonValue())), fc.jsonValue()),
              properties: fc.oneof(
                fc.array(
                  fc.tuple(
                    fc.constantFrom('taskId', 'request_ids', 'log_url', 'x'),
                    fc.jsonValue(),
                    fc.oneof(fc.constant('postrun.py'), fc.jsonValue()),
                  ),
                ),
                fc.jsonValue(),
              ),
            },
            { requiredKeys: [] },
          ),
          request_ids: fc.jsonValue(),
        },
        { requiredKeys: [] },
      ),
      _meta: fc.oneof(fc.record({ master_name: fc.string() }), fc.jsonValue()),
    }),
  );

  it('never throws, and what is taken from it is bounded', () => {
    fc.assert(
      fc.property(key, json, (routingKey, value) => {
        tried('build events');
        const parsed = parseEvent(routingKey, Buffer.from(JSON.stringify(value)));
        if (parsed.kind !== 'event') {
          return;
        }
        expect(parsed.buildRequestIds.length).toBeLessThanOrEqual(1000);
        expect(parsed.buildRequestIds.every((id) => Number.isInteger(id) && id > 0 && id < 2 ** 31)).toBe(true);
        if (parsed.build) {
          const { startedAt, master, worker, logUrl } = parsed.build;
          expect(Number.isSafeInteger(startedAt)).toBe(true);
          expect(master.length).toBeLessThanOrEqual(255);
          expect((worker ?? '').length).toBeLessThanOrEqual(255);
          expect(logUrl === null || /^https?:/.test(logUrl)).toBe(true);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('never throws at bytes', () => {
    fc.assert(
      fc.property(key, fc.uint8Array(), (routingKey, bytes) => {
        tried('build events');
        expect(['event', 'other', 'malformed']).toContain(parseEvent(routingKey, Buffer.from(bytes)).kind);
      }),
    );
  });
});
