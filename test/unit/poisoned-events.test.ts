/** Build events that cannot be kept. */
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { startEvents } from '../../src/buildbot/scheduler-db/events.ts';
import { StoreError } from '../../src/errors.ts';
import type { Message, SubscriptionOptions } from '../../src/ports.ts';
import { TASK_ID } from '../support/builders.ts';
import { countInputs } from '../support/count-inputs.ts';
import { eventually } from '../support/eventually.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aBroker } from '../support/stubs.ts';

const MINUTE = 60_000;
const AWAY = new StoreError('store-unavailable', 'the database failed at keep', { isTransient: true });

let clock: ReturnType<typeof createManualClock>;
let inputs: ReturnType<typeof countInputs>;
let lines: Record<string, unknown>[];
let hints: number[];
let kept: number[];
let isRefused: (buildRequestId: number) => boolean;
let subscription: SubscriptionOptions;
let stop: () => Promise<void>;

beforeEach(async () => {
  clock = createManualClock(Date.UTC(2026, 0, 5, 8));
  inputs = countInputs();
  [lines, hints, kept] = [[], [], []];
  const events = await startEvents({
    broker: aBroker((options) => {
      subscription = options;
    }),
    exchange: 'exchange/build/',
    kept: {
      async keep(builds) {
        for (const { buildRequestId } of builds) {
          if (isRefused(buildRequestId)) {
            throw AWAY;
          }
          kept.push(buildRequestId);
        }
      },
      of: async () => [],
      whole: async () => undefined,
      prune: async () => 0,
    },
    ownRequests: async (named) => named,
    onHint: (id) => hints.push(id),
    onGap: () => undefined,
    ...{ clock, inputs, retentionMs: 1 },
    log: pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) }),
  });
  stop = events.stop;
});
afterEach(() => stop());

/** Resolves when it is acknowledged, and rejects when it is given back. */
function hear(buildRequestId: number): Promise<void> {
  const build = { number: 1, properties: [['taskId', TASK_ID, 's']], times: [1, 2] };
  const body = Buffer.from(JSON.stringify({ payload: { build, request_ids: [buildRequestId] } }));
  const message: Message = {
    ...{ exchange: 'exchange/build/', routingKey: 'build.b.1.finished', isRedelivered: false },
    body,
  };
  return subscription.onMessage(message);
}

/** Lets so much time go by, whoever waits for however short a time. @param meanwhile is done before each step */
async function wait(
  ms: number,
  isOver: () => boolean = () => false,
  meanwhile: () => Promise<void> = async () => undefined,
): Promise<void> {
  for (let waited = 0; waited < ms && !isOver(); waited += 30_000) {
    await eventually(() => isOver() || clock.sleepers() > 0);
    await meanwhile();
    clock.advance(30_000);
  }
}

it('one that never can be is given up when others are kept, with its reason, and its request is looked at', async () => {
  isRefused = (id) => id === 13;
  let isDone = false;
  const poisoned = hear(13).then(() => {
    isDone = true;
  });
  await wait(
    10 * MINUTE,
    () => isDone,
    async () => {
      clock.advance(1);
      await hear(14);
    },
  );
  await poisoned;
  expect([isDone, hints.includes(13), kept.includes(13)]).toEqual([true, true, false]);
  expect(kept.length).toBeGreaterThanOrEqual(10);
  expect(lines).toMatchObject([{ level: 50, buildRequestIds: [13], err: { message: AWAY.message } }]);
  expect(inputs.counts).toEqual({ 'received build-event': kept.length + 1, 'rejected build-event': 1 });
});

it('one that comes right before the database is away is not taken for one that never can be', async () => {
  let isAway = false;
  isRefused = (id) => isAway || id === 13;
  const late = hear(13);
  clock.advance(1);
  await hear(14);
  isAway = true;
  await wait(15 * MINUTE);
  expect([hints, lines]).toEqual([[14], []]);
  isRefused = () => false;
  await wait(MINUTE, () => kept.length === 2);
  await late;
  expect(kept).toEqual([14, 13]);
});

it('are waited with while none can be, and kept when the database is back', async () => {
  let isAway = true;
  isRefused = () => isAway;
  const both = Promise.all([hear(13), hear(14)]);
  await wait(15 * MINUTE);
  isAway = false;
  await wait(MINUTE, () => kept.length === 2);
  await both;
  expect([...kept].sort()).toEqual([13, 14]);
  expect(lines).toEqual([]);
});

it('go back to the broker before it loses patience', async () => {
  isRefused = () => true;
  let thrown: unknown;
  const heard = hear(13).catch((error: unknown) => {
    thrown = error;
  });
  await wait(25 * MINUTE, () => thrown !== undefined);
  await heard;
  expect([thrown, hints, kept]).toEqual([AWAY, [], []]);
});

it('go back to the broker at a stop', async () => {
  isRefused = () => true;
  const heard = expect(hear(13)).rejects.toBe(AWAY);
  await eventually(() => clock.sleepers() > 0);
  await stop();
  await heard;
  expect(kept).toEqual([]);
});
