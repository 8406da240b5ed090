/** A small proxy in front of a database, where a test decides what becomes of a statement: held before it, or after it. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface TcpGate {
  readonly port: number;
  /** The next packet that matches is held: before it reaches the server, or what the server says to it. */
  hold(match: RegExp, when: 'request' | 'answer'): { readonly reached: Promise<void> };
  /** Nothing passes any more, and what is open is cut off. */
  cut(): void;
  /** Everything vanishes without a word, also what new connections say; what was open stays so, and is never of use again. */
  swallow(): void;
  /** Everything held is cut off, and all that is new passes again. */
  release(): void;
  stop(): Promise<void>;
}

interface Hold {
  readonly match: RegExp;
  readonly when: 'request' | 'answer';
  reached: () => void;
}

export async function startTcpGate(host: string, port: number): Promise<TcpGate> {
  let holds: Hold[] = [];
  let isCut = false;
  let isSwallowing = false;
  const pairs = new Set<readonly [Socket, Socket]>();
  const held = new Set<readonly [Socket, Socket]>();

  function pass(client: Socket): void {
    if (isCut) {
      client.destroy();
      return;
    }
    const server = connect(port, host);
    const pair = [client, server] as const;
    pairs.add(pair);
    let silenced: Hold | undefined;
    // Once something is missing, the rest makes no sense.
    let isLost = false;
    const isSwallowed = () => {
      isLost ||= isSwallowing;
      return isLost;
    };
    client.on('data', (chunk) => {
      if (isSwallowed()) {
        return;
      }
      const found = holds.find(({ match }) => match.test(chunk.toString('latin1')));
      holds = holds.filter((hold) => hold !== found);
      if (found !== undefined) {
        held.add(pair);
      }
      if (found?.when === 'request') {
        found.reached();
        return;
      }
      silenced ??= found;
      server.write(chunk);
    });
    server.on('data', (chunk) => {
      if (isSwallowed()) {
        return;
      }
      if (silenced === undefined) {
        client.write(chunk);
      } else {
        silenced.reached();
      }
    });
    const end = () => {
      client.destroy();
      server.destroy();
      pairs.delete(pair);
      held.delete(pair);
    };
    for (const socket of pair) {
      socket.on('error', end).on('close', end);
    }
  }

  const listener = createServer(pass);
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const destroy = (some: Iterable<readonly [Socket, Socket]>) => {
    for (const pair of [...some]) {
      for (const socket of pair) {
        socket.destroy();
      }
    }
  };
  return {
    port: (listener.address() as AddressInfo).port,
    hold(match, when) {
      let reached: () => void = () => undefined;
      const promise = new Promise<void>((resolve) => {
        reached = resolve;
      });
      holds.push({ match, when, reached });
      return { reached: promise };
    },
    cut() {
      isCut = true;
      destroy(pairs);
    },
    swallow() {
      isSwallowing = true;
    },
    release() {
      isCut = false;
      isSwallowing = false;
      holds = [];
      destroy(held);
    },
    async stop() {
      destroy(pairs);
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}
