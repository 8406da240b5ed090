/** A web server that answers as no honest one does. */
import { createServer, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { createGzip } from 'node:zlib';
import { type Edge, tried } from './hostile-input.ts';

/** What it does with a call. */
export type Misbehaviour =
  /** The text, with this status. */
  | {
      readonly kind: 'says';
      readonly status?: number;
      readonly body: string;
      readonly headers?: Record<string, string>;
    }
  /** Bytes without end. */
  | { readonly kind: 'endless'; readonly status?: number }
  /** Small on the line, without end when unpacked. */
  | { readonly kind: 'bomb' }
  /** These bytes in place of an answer, and then these again and again: headers without end, or interim answers. */
  | { readonly kind: 'floods'; readonly head: string; readonly chunk: string }
  /** A blank now and then, without end unless it is said how many, and what comes then. */
  | {
      readonly kind: 'drips';
      readonly everyMs: number;
      readonly status?: number;
      readonly times?: number;
      readonly end?: string;
    }
  /** Promises more than it sends, and hangs up. */
  | { readonly kind: 'cut' }
  /** Nothing at all. */
  | { readonly kind: 'silent' };

export interface HostileServer {
  readonly url: string;
  does: (line: string) => Misbehaviour;
  /** Calls so far, such as `GET /x`. */
  readonly calls: string[];
  /** Bytes that it could send so far. */
  sent(): number;
  stop(): Promise<void>;
}

const CHUNK = Buffer.alloc(1 << 18, 'x');

/**
 * @param edge what its answers count as
 * @param does unless given, it says nothing, well
 */
export async function startHostileServer(
  edge: Edge,
  does: (line: string) => Misbehaviour = () => ({ kind: 'says', body: '' }),
): Promise<HostileServer> {
  const calls: string[] = [];
  let sent = 0;
  const server = createServer((request, response) => {
    const line = `${request.method} ${request.url}`;
    calls.push(line);
    request.resume();
    tried(edge);
    misbehave(own.does(line), response, (bytes) => {
      sent += bytes;
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const own: HostileServer = {
    url: `http://127.0.0.1:${port}`,
    does,
    calls,
    sent: () => sent,
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return own;
}

function misbehave(what: Misbehaviour, response: ServerResponse, onSent: (bytes: number) => void): void {
  switch (what.kind) {
    case 'says':
      response.writeHead(what.status ?? 200, what.headers ?? { 'content-type': 'application/json' }).end(what.body);
      return;
    case 'endless':
      response.writeHead(what.status ?? 200, { 'content-type': 'application/json' });
      pump(response, onSent);
      return;
    case 'bomb': {
      response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
      const gzip = createGzip();
      gzip.pipe(response);
      response.on('close', () => gzip.destroy());
      pump(gzip, onSent);
      return;
    }
    case 'floods': {
      const { socket } = response;
      socket?.write(what.head);
      if (socket) {
        pump(socket, onSent, Buffer.from(what.chunk.repeat(1000)));
      }
      return;
    }
    case 'drips': {
      response.writeHead(what.status ?? 200, { 'content-type': 'application/json' });
      response.flushHeaders();
      let left = what.times ?? Number.POSITIVE_INFINITY;
      const timer = setInterval(() => {
        response.write(' ');
        left -= 1;
        if (left <= 0) {
          response.end(what.end);
        }
      }, what.everyMs);
      response.on('close', () => clearInterval(timer));
      return;
    }
    case 'cut':
      response.writeHead(200, { 'content-length': '1000' });
      response.write('{"a":', () => response.destroy());
      return;
    case 'silent':
      return;
    default:
      what satisfies never;
  }
}

/** Writes for as long as somebody reads. */
function pump(
  sink: NodeJS.WritableStream & { readonly destroyed?: boolean },
  onSent: (bytes: number) => void,
  chunk: Buffer = CHUNK,
): void {
  const more = () => {
    for (let goesOn = true; goesOn && !sink.destroyed; ) {
      onSent(chunk.length);
      goesOn = sink.write(chunk);
    }
  };
  sink.on('drain', more);
  sink.on('error', () => undefined);
  more();
}

/** Takes connections and says nothing, not even HTTP. */
export async function startHalfOpenServer(): Promise<{ readonly url: string; stop(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createTcpServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).resume();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    async stop() {
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
