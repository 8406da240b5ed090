/** What messages told of builds goes when it is old, however much of it there is. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { startEvents } from '../../src/buildbot/scheduler-db/events.ts';
import type { SubscriptionOptions } from '../../src/ports.ts';
import { TASK_ID } from '../support/builders.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aBroker } from '../support/stubs.ts';

const HOUR = 3_600_000;
const NOW = Date.UTC(2026, 0, 5, 8);

let clock: ReturnType<typeof createManualClock>;
/** How many builds are old, and how many were asked to be removed, from one statement to the next. */
let old: number;
let removed: number[];
let onPrune: () => void;
let subscription: SubscriptionOptions;
let stop: () => Promise<void>;

beforeEach(async () => {
  clock = createManualClock(NOW);
  [old, removed, onPrune] = [0, [], () => undefined];
  const events = await startEvents({
    broker: aBroker((options) => {
      subscription = options;
    }),
    exchange: 'exchange/build/',
    kept: {
      keep: async () => undefined,
      of: async () => [],
      whole: async () => undefined,
      async prune(before, limit) {
        expect(before).toBe(clock.now() - HOUR);
        const count = Math.min(limit, old);
        old -= count;
        removed.push(count);
        onPrune();
        return count;
      },
    },
    ownRequests: async (named) => named,
    onHint: () => undefined,
    onGap: () => undefined,
    ...{ clock, retentionMs: HOUR, log: undefined },
  });
  stop = events.stop;
});
afterEach(() => stop());

async function hear(): Promise<void> {
  const build = { number: 1, properties: [['taskId', TASK_ID, 's']], times: [1, 2] };
  const body = Buffer.from(JSON.stringify({ payload: { build, request_ids: [17] } }));
  await subscription.onMessage({
    ...{ exchange: 'exchange/build/', routingKey: 'build.b.1.finished', isRedelivered: false },
    body,
  });
}

it('all that is old goes, in several statements, once an hour', async () => {
  old = 2500;
  await hear();
  expect(removed).toEqual([]);
  clock.advance(HOUR);
  await hear();
  await hear();
  expect(removed).toEqual([1000, 1000, 500]);
  clock.advance(HOUR);
  await hear();
  expect(removed).toEqual([1000, 1000, 500, 0]);
});

it('no more of it goes once the bridge stops', async () => {
  old = 2500;
  onPrune = () => void stop();
  clock.advance(HOUR);
  await hear();
  expect(removed).toEqual([1000]);
});
