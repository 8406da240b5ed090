/** A proxy in front of a server that makes its network bad: connections cut, slow, or swallowed without a word. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** What a proxy has broken so far. */
export interface ChaosProxyHits {
  /** Connections that were open when they were cut. */
  readonly cut: number;
  /** Packets that came late. */
  readonly delayed: number;
  /** Packets that vanished. */
  readonly swallowed: number;
}

export interface ChaosProxy {
  readonly port: number;
  hits(): ChaosProxyHits;
  /** Connections that are open end; new ones are fine. */
  cut(): void;
  /** Every packet takes this much longer, until it is 0 again. */
  delay(ms: number): void;
  /** Packets vanish, in both directions, and connections stay open; until `false`. */
  swallow(isOn: boolean): void;
  stop(): Promise<void>;
}

export async function startChaosProxy(target: URL): Promise<ChaosProxy> {
  const pairs = new Set<readonly [client: Socket, upstream: Socket]>();
  const hits = { cut: 0, delayed: 0, swallowed: 0 };
  let delayMs = 0;
  let isSwallowing = false;

  /** What was swallowed is missing for good: the connection is of no use any more, as in a real partition that heals. */
  function pipe(from: Socket, to: Socket): void {
    let isBroken = false;
    let queue = Promise.resolve();
    from.on('data', (chunk) => {
      isBroken ||= isSwallowing;
      if (isBroken) {
        if (isSwallowing) {
          hits.swallowed += 1;
        } else {
          from.destroy();
        }
        return;
      }
      if (delayMs === 0) {
        queue = queue.then(() => void to.write(chunk));
      } else {
        const ms = delayMs;
        hits.delayed += 1;
        queue = queue.then(() => delay(ms)).then(() => void to.write(chunk));
      }
    });
    from.on('error', () => undefined);
    from.on('close', () => to.destroy());
  }

  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname);
    const pair = [client, upstream] as const;
    pairs.add(pair);
    client.on('close', () => pairs.delete(pair));
    for (const socket of pair) {
      socket.setNoDelay(true);
    }
    pipe(client, upstream);
    pipe(upstream, client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const [client, upstream] of pairs) {
      hits.cut += 1;
      client.destroy();
      upstream.destroy();
    }
    // Each is cut once, though it is only told of its end in a moment.
    pairs.clear();
  };
  return {
    port: (server.address() as AddressInfo).port,
    hits: () => ({ ...hits }),
    cut,
    delay(ms) {
      delayMs = ms;
    },
    swallow(isOn) {
      isSwallowing = isOn;
    },
    async stop() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The same URL, through the proxy. */
export function through(url: string, { port }: ChaosProxy): string {
  const changed = new URL(url);
  changed.hostname = '127.0.0.1';
  changed.port = String(port);
  return changed.href;
}
