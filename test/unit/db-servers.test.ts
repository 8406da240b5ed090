/** Connections to a database server that goes silent, or that takes them and answers nothing with sense. */
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import type { Knex } from 'knex';
import { connect } from '../../src/db/connection.ts';
import { eventually } from '../support/eventually.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

/** What the server does with a statement. */
type Answer = 'ok' | 'error' | 'nothing';

/** A server's side of either protocol, as far as a pool needs it. */
interface Protocol {
  readonly scheme: 'mysql' | 'postgres';
  greet(socket: Socket): void;
  /** Answers the sign-in, and then each statement. */
  take(socket: Socket, data: Buffer, isSignedIn: boolean, answer: Answer): void;
}

function packet(sequence: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUIntLE(payload.length, 0, 3);
  head[3] = sequence;
  return Buffer.concat([head, payload]);
}

const MYSQL_OK = Buffer.from([0, 0, 0, 2, 0, 0, 0]);
const MYSQL_ERROR = Buffer.from('\xff\x29\x23#HY000away', 'latin1');
const MYSQL_STATEMENT = 3;

const mysql: Protocol = {
  scheme: 'mysql',
  greet(socket) {
    const version = Buffer.from('\x0a5.7.30\0\x01\0\0\x0012345678\0', 'latin1');
    // Protocol 4.1, plain passwords by plugin, and the character set.
    const abilities = Buffer.from([0x0b, 0xa2, 33, 2, 0, 0x0b, 0, 21]);
    const rest = Buffer.from(`${'\0'.repeat(10)}123456789012\0mysql_native_password\0`, 'latin1');
    socket.write(packet(0, Buffer.concat([version, abilities, rest])));
  },
  take(socket, data, isSignedIn, answer) {
    if (!isSignedIn) {
      socket.write(packet((data[3] ?? 0) + 1, MYSQL_OK));
    } else if (data[4] === MYSQL_STATEMENT && answer !== 'nothing') {
      socket.write(packet(1, answer === 'ok' ? MYSQL_OK : MYSQL_ERROR));
    }
  },
};

const message = (type: string, body: Buffer) => {
  const head = Buffer.alloc(5);
  head.write(type, 0, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const POSTGRES_READY = message('Z', Buffer.from('I'));
const POSTGRES_ERROR = message('E', Buffer.from('SFATAL\0C08006\0Maway\0\0'));

const postgres: Protocol = {
  scheme: 'postgres',
  greet: () => undefined,
  take(socket, data, isSignedIn, answer) {
    if (!isSignedIn) {
      socket.write(Buffer.concat([message('R', Buffer.alloc(4)), POSTGRES_READY]));
    } else if (data.toString('latin1', 0, 1) === 'Q' && answer !== 'nothing') {
      const told = answer === 'ok' ? message('C', Buffer.from('SET\0')) : POSTGRES_ERROR;
      socket.write(Buffer.concat([told, POSTGRES_READY]));
    }
  },
};

interface Server {
  readonly db: Knex;
  answer: Answer;
  made: number;
  open: number;
}

async function serve(protocol: Protocol): Promise<Server> {
  const sockets = new Set<Socket>();
  // As a proxy that has hung: that nothing more comes makes it end nothing.
  const listener = createServer({ allowHalfOpen: true }, (socket) => {
    let isSignedIn = false;
    sockets.add(socket);
    server.made += 1;
    server.open += 1;
    socket.on('error', () => undefined);
    socket.on('end', () => server.answer === 'nothing' || socket.end());
    socket.on('close', () => {
      server.open -= 1;
      sockets.delete(socket);
    });
    socket.on('data', (data) => {
      protocol.take(socket, data, isSignedIn, server.answer);
      isSignedIn = true;
    });
    protocol.greet(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const db = connect(`${protocol.scheme}://u:p@127.0.0.1:${port}/d`);
  const server: Server = { db, answer: 'ok', made: 0, open: 0 };
  undo.push(
    () => new Promise((resolve) => listener.close(resolve)),
    () => sockets.forEach((socket) => void socket.destroy()),
    () => db.destroy(),
  );
  return server;
}

const failure = (work: Promise<unknown>) => work.then(() => undefined, String);

describe.each([mysql, postgres])('$scheme', (protocol) => {
  it('is spoken to', async () => {
    const { db } = await serve(protocol);
    expect(await failure(db.raw('SELECT 1').then())).toBeUndefined();
  });

  it('that answers each statement with an error keeps no connection', async () => {
    const server = await serve(protocol);
    server.answer = 'error';
    for (let time = 0; time < 15; time += 1) {
      expect(await failure(server.db.raw('SELECT 1').then())).toContain('away');
    }
    expect(server.made).toBeGreaterThanOrEqual(15);
    await eventually(() => server.open === 0);
  });

  it('that takes connections and says no more keeps none, and is used when it answers again', async () => {
    const server = await serve(protocol);
    server.answer = 'nothing';
    const asked = [1, 2, 3].map(() => failure(server.db.raw('SELECT 1').then()));
    expect((await Promise.all(asked)).every((error) => error !== undefined)).toBe(true);
    expect(server.made).toBeGreaterThanOrEqual(3);
    // The server's own ends stay open.
    const sockets = () => process.getActiveResourcesInfo().filter((one) => one === 'TCPSocketWrap').length;
    await eventually(() => sockets() === server.open, { timeoutMs: 20_000 });
    server.answer = 'ok';
    expect(await failure(server.db.raw('SELECT 1').then())).toBeUndefined();
  }, 40_000);
});

it('a connection to MySQL that was let go, and of whose end nothing is ever heard, ends no process', async () => {
  const { db } = await serve(mysql);
  const connection: NodeJS.EventEmitter = await db.client.acquireRawConnection();
  await db.client.destroyRawConnection(connection);
  // knex takes its listeners away a moment later.
  await new Promise((resolve) => setTimeout(resolve, 50));
  // As the system has it when it gives up.
  expect(() => connection.emit('error', new Error('read ETIMEDOUT'))).not.toThrow();
});
