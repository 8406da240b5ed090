/** An emulated Buildbot: the REST API, control calls, sign-in and the WebSocket of a master, on 127.0.0.1. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type FastifyInstance, type FastifyRequest, fastify } from 'fastify';
import { WebSocket, WebSocketServer } from 'ws';
import { z } from 'zod';
import type { Clock } from '../../ports.ts';
import type { Faults } from '../faults.ts';
import { registerHttpFaults } from '../queue/http-faults.ts';
import type { ForceSchedulerOptions } from './force.ts';
import { createMaster, type Master } from './master.ts';
import { registerRoutes } from './routes.ts';
import type { BuildbotVersion, BuilderOptions } from './state.ts';

export interface BuildbotEmulatorOptions {
  readonly clock: Clock;
  /** A free one if absent. */
  readonly port?: number;
  readonly version: BuildbotVersion;
  readonly builders: readonly BuilderOptions[];
  readonly forceSchedulers: readonly ForceSchedulerOptions[];
  /** Names and passwords; with any, control calls need a session. */
  readonly users?: Readonly<Record<string, string>>;
  readonly faults: Faults;
}

export interface BuildbotEmulator {
  /** Known once started. */
  readonly url: string;
  /** For tests and the demo: what a person, a worker or a power cut would do. */
  readonly master: Master;
  /** Sends whatever text, as it is, to all who listen. */
  say(text: string): void;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Takes the master down and brings it back on the same port. */
  restartMaster(kind: 'shutdown' | 'kill', downMs?: number): Promise<void>;
}

const command = z.object({ cmd: z.string(), path: z.string().optional(), _id: z.unknown().optional() });

export function createBuildbotEmulator(options: BuildbotEmulatorOptions): BuildbotEmulator {
  const { clock, faults, users = {} } = options;
  const sessions = new Set<string>();
  const consumers = new Map<WebSocket, Set<string>>();
  let stopping = new AbortController();
  let app: FastifyInstance | undefined;
  let port = options.port ?? 0;
  let heldBack: (() => void)[] = [];

  const master = createMaster({ clock, builders: options.builders, version: options.version, emit });

  function emit(key: string, message: unknown): void {
    const released = heldBack;
    heldBack = [];
    const fault = faults.pickMessage(key);
    const deliver = () => broadcast(key, message);
    switch (fault?.kind) {
      case undefined:
        deliver();
        break;
      case 'drop':
        break;
      case 'repeat':
        deliver();
        deliver();
        break;
      case 'delay':
        void clock.sleep(fault.ms).then(deliver);
        break;
      case 'reorder':
        heldBack.push(deliver);
        break;
      default:
        fault satisfies never;
    }
    for (const late of released) {
      late();
    }
  }

  function broadcast(key: string, message: unknown): void {
    const text = JSON.stringify({ k: key, m: message });
    for (const [socket, paths] of consumers) {
      if ([...paths].some((path) => matchesPath(path, key)) && socket.readyState === WebSocket.OPEN) {
        socket.send(text);
      }
    }
  }

  function mayControl(request: FastifyRequest): boolean {
    const cookie = request.headers.cookie ?? '';
    return (
      Object.keys(users).length === 0 || [...sessions].some((session) => cookie.includes(`TWISTED_SESSION=${session}`))
    );
  }

  function createServer(): FastifyInstance {
    const server = fastify({ forceCloseConnections: true });
    registerHttpFaults(server, { faults, clock, stopping: stopping.signal });
    registerRoutes(server, { master, schedulers: options.forceSchedulers, version: options.version, mayControl });
    server.get('/auth/login', async (request, reply) => {
      const [name, password] = basicCredentials(request.raw);
      if (name === undefined || users[name] === undefined || users[name] !== password) {
        return reply.code(401).send('Unauthorized');
      }
      const session = randomBytes(16).toString('hex');
      sessions.add(session);
      // Two cookies, of which only the last is signed in.
      reply.header('set-cookie', [
        `TWISTED_SESSION=${randomBytes(16).toString('hex')}; Path=/`,
        `TWISTED_SESSION=${session}; Path=/`,
      ]);
      return reply.code(302).header('location', '/').send();
    });
    const sockets = new WebSocketServer({ noServer: true });
    server.server.on('upgrade', (request, socket, head) => {
      if (request.url !== '/ws') {
        socket.destroy();
        return;
      }
      sockets.handleUpgrade(request, socket, head, serve);
    });
    return server;
  }

  function serve(socket: WebSocket): void {
    const paths = new Set<string>();
    consumers.set(socket, paths);
    socket.on('close', () => consumers.delete(socket));
    socket.on('error', () => socket.terminate());
    socket.on('message', (data) => {
      const parsed = command.safeParse(JSON.parse(data.toString()));
      if (!parsed.success) {
        return;
      }
      const { cmd, path, _id } = parsed.data;
      const answer = (msg: string, code: number) => socket.send(JSON.stringify({ msg, code, _id }));
      if (cmd === 'ping') {
        answer('pong', 200);
      } else if (cmd === 'startConsuming' && path !== undefined) {
        paths.add(path);
        answer('OK', 200);
      } else if (cmd === 'stopConsuming' && path !== undefined) {
        paths.delete(path);
        answer('OK', 200);
      } else {
        answer(`no such command '${cmd}'`, 404);
      }
    });
  }

  async function listen(): Promise<void> {
    stopping = new AbortController();
    app = createServer();
    const address = await app.listen({ host: '127.0.0.1', port });
    port = Number(new URL(address).port);
  }

  async function shut(): Promise<void> {
    stopping.abort();
    for (const socket of consumers.keys()) {
      socket.terminate();
    }
    consumers.clear();
    await app?.close();
  }

  return {
    say(text) {
      for (const socket of consumers.keys()) {
        socket.send(text);
      }
    },
    get url() {
      return `http://127.0.0.1:${port}`;
    },
    master,
    start: listen,
    stop: shut,
    async restartMaster(kind, downMs = 200) {
      if (kind === 'shutdown') {
        master.shutdown();
      } else {
        master.kill();
      }
      await shut();
      await clock.sleep(downMs);
      await listen();
      master.resume();
    },
  };
}

function basicCredentials(request: IncomingMessage): readonly [string?, string?] {
  const [scheme, value = ''] = (request.headers.authorization ?? '').split(' ');
  if (scheme !== 'Basic') {
    return [];
  }
  const text = Buffer.from(value, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon === -1 ? [] : [text.slice(0, colon), text.slice(colon + 1)];
}

// A path such as builds/*/* consumes builds/7/finished.
function matchesPath(path: string, key: string): boolean {
  const wanted = path.split('/');
  const words = key.split('/');
  return wanted.length === words.length && wanted.every((part, index) => part === '*' || part === words[index]);
}
