/** Host names: of each, one lookup is under way at a time. */
import dns, { type LookupOptions } from 'node:dns';
import { connect, createServer } from 'node:net';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { shareLookups } from '../../src/lookups.ts';

type Done = (error: unknown, ...found: unknown[]) => void;
type Lookup = (hostname: string, options: LookupOptions | number | Done, done?: Done) => void;

let asked: [hostname: string, options: unknown, done: Done][];
let names: { lookup: Lookup };
beforeEach(() => {
  asked = [];
  names = { lookup: (hostname, options, done) => void asked.push([hostname, options, done as Done]) };
  shareLookups(names);
});

/** What a lookup came to, in words. */
function look(hostname: string, options: LookupOptions | number = {}): { said: string } {
  const answer = { said: 'nothing yet' };
  names.lookup(hostname, options, (error, address) => {
    answer.said = error instanceof Error ? error.message : String(address);
  });
  return answer;
}

describe('a name that is being looked up', () => {
  it('is not looked up once more meanwhile, and everybody hears what it is', () => {
    const answers = [1, 2, 3].map(() => look('buildbot.example.com', { all: true }));
    expect(asked).toHaveLength(1);
    asked[0]?.[2](null, '10.0.0.1');
    expect(answers.map(({ said }) => said)).toEqual(['10.0.0.1', '10.0.0.1', '10.0.0.1']);
  });

  it('keeps no other from being looked up, nor the same in another way', () => {
    look('buildbot.example.com');
    look('queue.example.com');
    look('buildbot.example.com', 6);
    expect(asked.map(([hostname, options]) => [hostname, options])).toEqual([
      ['buildbot.example.com', {}],
      ['queue.example.com', {}],
      ['buildbot.example.com', { family: 6 }],
    ]);
  });

  it('is looked up anew once that has failed', () => {
    const first = [look('h'), look('h')];
    asked[0]?.[2](new Error('ENOTFOUND'));
    expect(first.map(({ said }) => said)).toEqual(['ENOTFOUND', 'ENOTFOUND']);
    const second = look('h');
    expect(asked).toHaveLength(2);
    asked[1]?.[2](null, '::1');
    expect(second.said).toBe('::1');
  });

  it('that is none is said to be so, and asked for again', () => {
    const bad = {
      lookup(): void {
        throw new TypeError('no name');
      },
    };
    shareLookups(bad);
    const ask: Lookup = bad.lookup;
    expect(() => ask('\0', () => undefined)).toThrow('no name');
    expect(() => ask('\0', () => undefined)).toThrow('no name');
  });
});

it('a lookup that is a promise answers as it did', async () => {
  const own = { lookup: dns.lookup };
  shareLookups(own);
  expect(await promisify(own.lookup)('127.0.0.1')).toEqual(await promisify(dns.lookup)('127.0.0.1'));
});

describe('Node.js', () => {
  const { lookup } = dns;
  afterEach(() => {
    dns.lookup = lookup;
  });

  it('asks so for each connection', async () => {
    const hosts: string[] = [];
    dns.lookup = Object.assign((hostname: string, ...rest: [never, never]) => {
      hosts.push(hostname);
      lookup(hostname, ...rest);
    }, lookup) as typeof lookup;
    shareLookups(dns);
    const server = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    const reach = () =>
      new Promise((resolve) => connect({ host: 'localhost', port }).on('close', resolve).on('error', resolve).resume());
    await Promise.all([reach(), reach(), reach()]);
    expect(hosts.filter((host) => host === 'localhost')).toHaveLength(1);
    await new Promise((resolve) => server.close(resolve));
  });
});
