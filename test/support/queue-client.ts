/** The bridge's own queue client on an emulated queue, and a plain HTTP server for answers that no queue gives. */
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TaskQueue } from '../../src/ports.ts';
import { createQueueClient, type QueueClientOptions } from '../../src/taskcluster/queue-client.ts';
import { createManualClock, ROOT_CLIENT } from './queue-emulator.ts';

export const WORKER = { workerGroup: 'buildbot-bridge', workerId: 'buildbot-bridge' };

/** A client for `buildbot/bridge` with the rights of root. */
export function clientOf(rootUrl: string, changes: Partial<QueueClientOptions> = {}): TaskQueue {
  const { clientId, accessToken } = ROOT_CLIENT;
  return createQueueClient({
    rootUrl,
    credentials: { clientId, accessToken },
    provisionerId: 'buildbot',
    workerType: 'bridge',
    ...WORKER,
    clock: createManualClock(0),
    ...changes,
  });
}

/** What a fake server was asked. */
export interface FakeRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** JSON unless it is a string. */
export interface FakeAnswer {
  readonly status?: number;
  readonly body?: unknown;
  readonly contentType?: string;
}

export interface FakeServer {
  readonly url: string;
  readonly requests: FakeRequest[];
  /** Connections made so far. */
  connections(): number;
  stop(): Promise<void>;
}

/** Answers as it is told; `undefined` is no answer at all. */
export async function startFakeServer(
  answer: (request: FakeRequest) => FakeAnswer | undefined | Promise<FakeAnswer | undefined>,
): Promise<FakeServer> {
  const requests: FakeRequest[] = [];
  let connections = 0;
  const server: Server = createServer(async (incoming, outgoing) => {
    const parts: Buffer[] = [];
    for await (const part of incoming) {
      parts.push(part);
    }
    const { method = '', url = '', headers } = incoming;
    const request = { method, url, headers, body: Buffer.concat(parts) };
    requests.push(request);
    const given = await answer(request);
    if (given === undefined) {
      return;
    }
    const { status = 200, body = {}, contentType } = given;
    outgoing
      .writeHead(status, { 'content-type': contentType ?? 'application/json' })
      .end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  server.on('connection', () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    connections: () => connections,
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
