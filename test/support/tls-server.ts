/** A server with a certificate that nobody has reason to trust, and what it hears in spite of that. */
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import path from 'node:path';
import { createSecureContext, TLSSocket } from 'node:tls';

/** Made for these tests and good for nothing else: `localhost` is right about its name, `other` is not. */
const fixture = (name: string) =>
  readFileSync(
    path.join(import.meta.dirname, '../fixtures', `self-signed${name === 'other' ? '-other' : ''}.pem`),
    'utf8',
  );

export const certificateOf = (name: 'localhost' | 'other') =>
  fixture(name).slice(fixture(name).indexOf('-----BEGIN CERT'));

export interface TlsServer {
  readonly port: number;
  /** What came over TLS: nothing, if clients verify what they are shown. */
  heard(): string;
  /** Connections so far. */
  connections(): number;
  stop(): Promise<void>;
}

/** A MySQL server's first words: version 10 of the protocol, with TLS among what it can do. */
const MYSQL_GREETING = (() => {
  const flags = 0x0008_0a08 | 0x0200 | 0x8000;
  const low = Buffer.alloc(2);
  low.writeUInt16LE(flags & 0xffff);
  const high = Buffer.alloc(2);
  high.writeUInt16LE(flags >>> 16);
  const body = Buffer.concat([
    Buffer.from('\x0a8.0.0\0\x01\0\0\0abcdefgh\0', 'latin1'),
    low,
    Buffer.from([45, 2, 0]),
    high,
    Buffer.from([21]),
    Buffer.alloc(10),
    Buffer.from('abcdefghijkl\0mysql_native_password\0', 'latin1'),
  ]);
  return Buffer.concat([Buffer.from([body.length, 0, 0, 0]), body]);
})();

/** Takes a socket to where TLS begins. */
const PREFACES = {
  none: async () => undefined,
  mysql: async (socket: Socket) => {
    socket.write(MYSQL_GREETING);
    await bytes(socket, 36);
  },
  postgres: async (socket: Socket) => {
    await bytes(socket, 8);
    socket.write('S');
  },
} as const;

/** Takes so many from the socket, and leaves the rest, which is TLS already. */
const bytes = (socket: Socket, count: number) =>
  new Promise<void>((resolve) => {
    const look = () => {
      if (socket.read(count) !== null) {
        socket.off('readable', look);
        resolve();
      }
    };
    socket.on('readable', look);
  });

export async function startTlsServer(
  preface: keyof typeof PREFACES = 'none',
  name: 'localhost' | 'other' = 'localhost',
): Promise<TlsServer> {
  const pem = fixture(name);
  const secureContext = createSecureContext({ key: pem, cert: pem });
  const sockets = new Set<Socket>();
  let heard = '';
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on('error', () => undefined);
    void PREFACES[preface](socket).then(() => {
      const secure = new TLSSocket(socket, { isServer: true, secureContext });
      secure.on('error', () => undefined);
      secure.on('data', (data: Buffer) => {
        heard += data.toString('latin1');
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, resolve));
  return {
    port: (server.address() as AddressInfo).port,
    heard: () => heard,
    connections: () => connections,
    async stop() {
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
