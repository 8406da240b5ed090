/** A small proxy in front of a server, where a test decides what becomes of a call: held before it or after it, or answered otherwise. */
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';

export interface HttpGate {
  readonly url: string;
  /** The next call that matches is held: before it reaches the server, or its answer before it reaches the caller. */
  hold(match: RegExp, when: 'request' | 'answer'): { readonly reached: Promise<void> };
  /** The answer to the next call that matches is this one, though the call takes effect. */
  replace(match: RegExp, body: string): void;
  /** Nothing passes any more, and what is open is cut off. */
  cut(): void;
  /** Everything held is cut off, and all calls pass again. */
  release(): void;
  stop(): Promise<void>;
}

interface Hold {
  readonly match: RegExp;
  readonly when: 'request' | 'answer';
  reached: () => void;
}

export async function startHttpGate(target: string): Promise<HttpGate> {
  const { hostname, port } = new URL(target);
  let holds: Hold[] = [];
  const replacements: { readonly match: RegExp; readonly body: string }[] = [];
  const held = new Set<ServerResponse>();
  let isCut = false;

  function take(line: string, when: Hold['when']): Hold | undefined {
    const found = holds.find((hold) => hold.when === when && hold.match.test(line));
    holds = holds.filter((hold) => hold !== found);
    return found;
  }

  function pass(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const line = `${incoming.method} ${incoming.url}`;
    const before = take(line, 'request');
    if (before) {
      held.add(outgoing);
      before.reached();
      return;
    }
    const upstream = request(
      { hostname, port, method: incoming.method, path: incoming.url, headers: incoming.headers },
      (answer) => {
        const after = take(line, 'answer');
        if (after) {
          held.add(outgoing);
          answer.resume().on('end', after.reached);
          return;
        }
        const at = replacements.findIndex(({ match }) => match.test(line));
        const [replacement] = at < 0 ? [] : replacements.splice(at, 1);
        if (replacement) {
          answer.resume();
          outgoing.writeHead(200, { 'content-type': 'application/json' }).end(replacement.body);
          return;
        }
        outgoing.writeHead(answer.statusCode ?? 500, answer.rawHeaders);
        answer.pipe(outgoing);
      },
    );
    upstream.on('error', () => outgoing.destroy());
    incoming.pipe(upstream);
  }

  const server = createServer(pass);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    if (isCut) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.on('upgrade', (incoming, socket, head) => {
    const upstream = connect(Number(port), hostname, () => {
      const headers = incoming.rawHeaders.flatMap((value, i, all) => (i % 2 === 0 ? [`${value}: ${all[i + 1]}`] : []));
      upstream.write(`${incoming.method} ${incoming.url} HTTP/1.1\r\n${headers.join('\r\n')}\r\n\r\n`);
      upstream.write(head);
      upstream.pipe(socket);
      socket.pipe(upstream);
    });
    upstream.on('error', () => socket.destroy());
    socket.on('error', () => upstream.destroy());
    upstream.on('close', () => socket.destroy());
    socket.on('close', () => upstream.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port: own } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${own}`,
    hold(match, when) {
      let reached: () => void = () => undefined;
      const promise = new Promise<void>((resolve) => {
        reached = resolve;
      });
      holds.push({ match, when, reached });
      return { reached: promise };
    },
    replace(match, body) {
      replacements.push({ match, body });
    },
    cut() {
      isCut = true;
      for (const socket of sockets) {
        socket.destroy();
      }
    },
    release() {
      isCut = false;
      holds = [];
      for (const response of held) {
        response.destroy();
      }
      held.clear();
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
