/** The WebSocket of the Data API against a master that sends what no master sends. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { constants, deflateRawSync } from 'node:zlib';
import { afterEach, describe, expect, it } from '@jest/globals';
import { WebSocketServer } from 'ws';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { startWatch } from '../../src/buildbot/data-api/watch.ts';
import { systemClock } from '../../src/clock.ts';
import { createLog } from '../../src/log.ts';
import { eventually } from '../support/eventually.ts';
import { tried } from '../support/hostile-input.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

/** A frame as RFC 6455 has it, of a server. */
function frame(opcode: number, payload: Buffer, { length = payload.length, isPacked = false } = {}): Buffer {
  const head = Buffer.alloc(10);
  head[0] = 0x80 | (isPacked ? 0x40 : 0) | opcode;
  head[1] = 127;
  head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}
const PING = Buffer.concat([Buffer.from([0x89, 125]), Buffer.alloc(125, 'p')]);

/** Takes WebSockets, and does with each what it is told. */
async function startMaster(
  does: (socket: Socket) => void,
  { isPacking = false, isAccepting = true, handshakeMs = 10_000 } = {},
) {
  const sockets = new Set<Socket>();
  const server = createServer();
  server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
    sockets.add(socket);
    // It says no goodbye, and hears none.
    socket.on('error', () => undefined);
    if (!isAccepting) {
      does(socket);
      return;
    }
    const key = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash('sha1').update(key).digest('base64');
    const packing = isPacking ? 'Sec-WebSocket-Extensions: permessage-deflate\r\n' : '';
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${packing}\r\n`,
    );
    does(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.push(async () => {
    for (const socket of sockets) {
      socket.destroy();
    }
    await new Promise((resolve) => server.close(resolve));
  });
  const lines: string[] = [];
  const hints: number[] = [];
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const watch = startWatch({
    ...{ url, session: createSession(url), clock: systemClock, handshakeMs },
    log: createLog({ level: 'debug', destination: { write: (line) => void lines.push(line) } }),
    onHint: (id) => void hints.push(id),
    onGap: () => undefined,
  });
  undo.push(() => watch.stop());
  return { lines, hints, connections: () => sockets.size };
}

/** Writes again and again, for as long as the client reads. @returns how many bytes so far */
function flood(socket: Socket, chunk: Buffer): () => number {
  let sent = 0;
  const more = () => {
    while (!socket.destroyed) {
      sent += chunk.length;
      if (!socket.write(chunk)) {
        return;
      }
    }
  };
  socket.on('drain', more);
  more();
  return () => sent;
}

describe('what is too large', () => {
  const event = JSON.stringify({ k: 'buildrequests/7/new', m: { pad: 'x'.repeat(100_000_000) } });
  it.each<[string, boolean, () => Buffer]>([
    ['a frame of 100 MB', false, () => frame(1, Buffer.from(event))],
    ['a frame that says it has 2^62 bytes', false, () => frame(1, Buffer.alloc(1000), { length: 2 ** 62 })],
    [
      'a frame of 100 MB that is small as long as it is packed',
      true,
      () =>
        frame(1, deflateRawSync(event, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4), { isPacked: true }),
    ],
  ])('%s ends the connection, and there is another', async (_what, isPacking, make) => {
    const master = await startMaster(
      (socket) => {
        tried('WebSocket frames');
        socket.resume().write(make());
      },
      { isPacking },
    );
    await eventually(() => master.connections() > 1, { timeoutMs: 8000 });
    expect(master.hints).toEqual([]);
    expect(master.lines.every((line) => line.length < 2000)).toBe(true);
    expect(master.lines.join()).toMatch(/Max payload size exceeded|payload length > 2\^53/);
  });
});

it('pings without end, whose answers nobody reads, end the connection', async () => {
  let sent = () => 0;
  const master = await startMaster((socket) => {
    socket.pause();
    if (sent() === 0) {
      sent = flood(socket, Buffer.concat(Array.from({ length: 500 }, () => PING)));
    }
  });
  await eventually(() => master.connections() > 1, { timeoutMs: 8000 });
  // With what lies in the buffers of both ends.
  expect(sent()).toBeLessThan(60_000_000);
  expect(master.lines.every((line) => line.length < 2000)).toBe(true);
});

it('a handshake that drips is given up when its time is over', async () => {
  const head = 'HTTP/1.1 101 Switching Protocols\r\nX: ';
  const drip = (socket: Socket) => {
    socket.write(head);
    const timer = setInterval(() => socket.write('x'), 20);
    socket.on('close', () => clearInterval(timer));
  };
  const master = await startMaster(drip, { isAccepting: false, handshakeMs: 100 });
  await eventually(() => master.connections() > 1, { timeoutMs: 8000 });
  expect(master.lines.join()).toContain('no WebSocket that can be listened to within 100 ms');
});

describe('a subscription', () => {
  /** Answers what is asked for, but the second subscription of the first connection as it is told. */
  async function subscribing(answer: (id: unknown) => object | undefined) {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    let connections = 0;
    server.on('connection', (socket) => {
      connections += 1;
      const isFirst = connections === 1;
      socket.on('message', (data) => {
        const { _id, path } = JSON.parse(String(data));
        const given = isFirst && path === 'builds/*/*' ? answer(_id) : { msg: 'OK', code: 200, _id };
        if (given !== undefined) {
          socket.send(JSON.stringify(given));
        }
      });
    });
    await once(server, 'listening');
    const lines: string[] = [];
    let gaps = 0;
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const watch = startWatch({
      ...{ url, session: createSession(url), clock: systemClock, handshakeMs: 500 },
      log: createLog({ level: 'debug', destination: { write: (line) => void lines.push(line) } }),
      onHint: () => undefined,
      onGap: () => {
        gaps += 1;
      },
    });
    undo.push(
      () => server.close(),
      () => watch.stop(),
    );
    await eventually(() => gaps > 0, { what: 'a connection that can be listened to' });
    expect(connections).toBe(2);
    return lines.map((line) => JSON.parse(line).err.message);
  }

  it('that is refused ends the connection, and there is another', async () => {
    const lines = await subscribing((_id) => ({ error: 'internal error', code: 500, _id }));
    expect(lines).toEqual([expect.stringMatching(/^Buildbot refuses to tell of builds\/\*\/\*: .*internal error/)]);
  });

  it('that is not answered does so, too', async () => {
    expect(await subscribing(() => undefined)).toEqual(['no WebSocket that can be listened to within 500 ms']);
  });
});
