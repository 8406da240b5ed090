import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Message, SubscriptionOptions } from '../../src/ports.ts';
import { createInProcessBroker, type InProcessBroker, matchesTopic } from '../../src/sandbox/broker.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { eventually } from '../support/eventually.ts';

/** Starts a consumer of `#` on the exchange `e`; `heard` are the payloads, in order. */
async function listen(broker: InProcessBroker, wishes: Partial<SubscriptionOptions> = {}) {
  const heard: unknown[] = [];
  const messages: Message[] = [];
  const subscription = broker.subscribe({
    name: 'q',
    bindings: [{ exchange: 'e', pattern: '#' }],
    prefetch: 10,
    onMessage: async (message) => {
      messages.push(message);
      heard.push(JSON.parse(message.body.toString()));
    },
    onGap: () => undefined,
    ...wishes,
  });
  await subscription.start();
  return { subscription, heard, messages };
}

const say = (broker: InProcessBroker, ...payloads: unknown[]) =>
  payloads.forEach((payload) => void broker.publish({ exchange: 'e', routingKey: 'k', payload }));

/** A promise and the means to fulfil it. */
function gate() {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

describe('the in-process broker', () => {
  it('delivers in order, with the exchange and the routing key', async () => {
    const broker = createInProcessBroker();
    const { heard, messages } = await listen(broker);
    say(broker, 1, 2, 3);
    expect(heard).toEqual([]); // Never within the publisher's own call.
    await eventually(() => heard.length === 3);
    expect(heard).toEqual([1, 2, 3]);
    expect(messages[0]).toMatchObject({ exchange: 'e', routingKey: 'k', isRedelivered: false });
  });

  it('keeps messages for a queue that nobody consumes just now', async () => {
    const broker = createInProcessBroker();
    const first = await listen(broker);
    await first.subscription.stop();
    say(broker, 'kept');
    const second = await listen(broker);
    await eventually(() => second.heard.length === 1);
    expect(first.heard).toEqual([]);
  });

  it('gives a message once to each queue', async () => {
    const broker = createInProcessBroker();
    const bindings = [
      { exchange: 'e', pattern: '#' },
      { exchange: 'e', pattern: 'k' },
    ];
    const [one, other] = [await listen(broker, { bindings }), await listen(broker, { name: 'another' })];
    say(broker, 1);
    await eventually(() => one.heard.length > 0 && other.heard.length > 0);
    expect([one.heard, other.heard]).toEqual([[1], [1]]);
  });

  it('shares a queue among its consumers, and goes on when one of them stops', async () => {
    const broker = createInProcessBroker();
    const [one, other] = [await listen(broker), await listen(broker)];
    say(broker, 1, 2, 3, 4);
    await eventually(() => one.heard.length + other.heard.length === 4);
    expect(one.heard.length).toBe(2);
    await other.subscription.stop();
    say(broker, 5);
    await eventually(() => one.heard.includes(5));
  });

  it('delivers again what was rejected, and the others meanwhile', async () => {
    const broker = createInProcessBroker();
    const seen: [unknown, boolean][] = [];
    await listen(broker, {
      prefetch: 2,
      onMessage: async ({ body, isRedelivered }) => {
        seen.push([JSON.parse(body.toString()), isRedelivered]);
        if (body.toString() === '"bad"' && !isRedelivered) {
          throw new Error('not now');
        }
      },
    });
    say(broker, 'bad', 'good');
    await eventually(() => seen.length === 3);
    expect(seen).toEqual([
      ['bad', false],
      ['good', false],
      ['bad', true],
    ]);
  });

  it('hands what a stopped consumer gave back to another', async () => {
    const broker = createInProcessBroker();
    const begun = gate();
    const leaving = gate();
    const first = await listen(broker, {
      onMessage: async () => {
        begun.open();
        await leaving.opened;
        throw new Error('stopping');
      },
    });
    say(broker, 1);
    await begun.opened;
    const second = await listen(broker);
    const stopped = first.subscription.stop();
    leaving.open();
    await stopped;
    await eventually(() => second.messages[0]?.isRedelivered);
  });

  it('has no more than `prefetch` messages under way, and stops when they are done', async () => {
    const broker = createInProcessBroker();
    const done = gate();
    let begun = 0;
    const { subscription } = await listen(broker, {
      prefetch: 2,
      onMessage: async () => {
        begun += 1;
        await done.opened;
      },
    });
    say(broker, 1, 2, 3);
    await eventually(() => begun === 2);
    let isStopped = false;
    const stopping = subscription.stop().then(() => {
      isStopped = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect({ begun, isStopped }).toEqual({ begun: 2, isStopped: false });
    done.open();
    await stopping;
    expect(begun).toBe(2);
  });

  it.each([
    ['drop', ['b', 'c']],
    ['repeat', ['a', 'a', 'b', 'c']],
    ['reorder', ['b', 'a', 'c']],
    ['delay', ['b', 'c', 'a']],
  ] as const)('%ss a message', async (kind, expected) => {
    const faults = createFaults();
    faults.messages.push({ times: 1, key: /^e k$/, outcome: kind === 'delay' ? { kind, ms: 30 } : { kind } });
    const broker = createInProcessBroker(faults);
    const { heard } = await listen(broker);
    say(broker, 'a', 'b', 'c');
    await eventually(() => heard.length >= expected.length);
    expect(heard).toEqual(expected);
  });

  it('delivers nothing after it was closed', async () => {
    const broker = createInProcessBroker();
    const { subscription, heard } = await listen(broker);
    await broker.close();
    say(broker, 1);
    await subscription.stop();
    expect(heard).toEqual([]);
  });
});

describe('matchesTopic', () => {
  it.each([
    ['a.b', 'a.b', true],
    ['a.b', 'a.c', false],
    ['a.b', 'a.b.c', false],
    ['a.*', 'a.b', true],
    ['a.*', 'a', false],
    ['a.*', 'a.b.c', false],
    ['#', '', true],
    ['*', '', false],
    ['', '', true],
    ['a.#', 'a', true],
    ['a.#.z', 'a.z', true],
    ['a.#.z', 'a.b.c.z', true],
    ['a.#.z', 'a.b.c', false],
    ['#.b.#', 'a.b.c', true],
    ['*.#', '', false],
  ])('%p on %p: %p', (pattern, key, expected) => {
    expect(matchesTopic(pattern, key)).toBe(expected);
  });

  it('agrees with the same pattern written as a regular expression', () => {
    const wildcards = new Map([
      ['*', '[^.]+\\.'],
      ['#', '([^.]+\\.)*'],
    ]);
    const word = fc.constantFrom('a', 'b', '_');
    const pattern = fc.array(fc.oneof(word, fc.constantFrom('*', '#')), { maxLength: 5 });
    fc.assert(
      fc.property(pattern, fc.array(word, { maxLength: 6 }), (parts, key) => {
        const source = parts.map((part) => wildcards.get(part) ?? `${part}\\.`).join('');
        const text = key.map((part) => `${part}.`).join('');
        expect(matchesTopic(parts.join('.'), key.join('.'))).toBe(new RegExp(`^${source}$`).test(text));
      }),
    );
  });
});
