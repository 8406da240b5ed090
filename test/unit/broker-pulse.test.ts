import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { pino } from 'pino';
import { systemClock } from '../../src/clock.ts';
import { reconnectDelay, redeliveryDelay } from '../../src/delays.ts';
import { createPulseBroker } from '../../src/listeners/pulse-broker.ts';
import { toConnectionError, toConsumerError } from '../../src/listeners/pulse-errors.ts';

const log = pino({ level: 'silent' });

describe('the wait before the next try', () => {
  it('doubles up to half a minute', () => {
    const longest = [1, 2, 3, 4, 5, 6, 7, 8, 1000].map((attempt) => reconnectDelay(attempt, () => 1));
    expect(longest).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  });

  it('is spread over the upper half', () => {
    expect(reconnectDelay(3, () => 0)).toBe(1000);
    expect(reconnectDelay(3, () => 1)).toBe(2000);
  });

  it('grows with the deliveries that a quorum queue has counted', () => {
    expect([0, 1, 2, 3, 50].map((count) => redeliveryDelay(count, () => 1))).toEqual([500, 1000, 2000, 4000, 30_000]);
  });

  it('is within its bounds, whatever stands in the header', () => {
    fc.assert(
      fc.property(fc.anything(), fc.double({ min: 0, max: 1, noNaN: true }), (count, random) => {
        const delay = redeliveryDelay(count, () => random);
        expect(delay).toBeGreaterThanOrEqual(250);
        expect(delay).toBeLessThanOrEqual(30_000);
      }),
    );
  });
});

describe('what RabbitMQ says', () => {
  it.each([
    ["ACCESS_REFUSED - access to queue 'queue/other/x' in vhost '/' refused", 'pulse-forbidden', false],
    ["NOT_FOUND - no exchange 'exchange/a' in vhost '/'", 'pulse-topology', false],
    ["NOT_FOUND - no queue 'queue/u/x' in vhost '/'", 'pulse-unavailable', true],
    ["PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'queue/u/x'", 'pulse-topology', false],
    ['PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out', 'pulse-unavailable', true],
    ['Channel closed', 'pulse-unavailable', true],
  ])('%s', (text, code, isTransient) => {
    const cause = new Error(`Operation failed: QueueDeclare; 400 with message "${text}"`);
    expect(toConsumerError('queue/u/x', cause)).toMatchObject({ code, isTransient, cause });
  });

  it('tells wrong credentials from a broker that is away', () => {
    const refused = new Error('Handshake terminated by server: 403 (ACCESS-REFUSED) with message "ACCESS_REFUSED"');
    expect(toConnectionError(refused).code).toBe('pulse-forbidden');
    expect(toConnectionError(new Error('connect ECONNREFUSED 127.0.0.1:5672')).code).toBe('pulse-unavailable');
  });
});

describe('createPulseBroker', () => {
  it.each(['', 'not a URL', 'http://user:hunter2@pulse/', 'amqp://user:hunter%@pulse/'])(
    'refuses %p without showing it',
    (url) => {
      let thrown: unknown;
      try {
        createPulseBroker({ url, namespace: 'u', clock: systemClock, log });
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toMatchObject({ code: 'config', message: expect.stringContaining('pulse.url') });
      expect(String(thrown)).not.toContain('hunter');
    },
  );

  it('is closed without ever having been opened', async () => {
    const broker = createPulseBroker({ url: 'amqp://u:p@127.0.0.1:1/', namespace: 'u', clock: systemClock, log });
    await broker.close();
    expect(broker.status()).toMatchObject({ isConnected: false, reconnects: 0 });
  });
});
