/** What an operator's tooling asks a bridge process: is it alive, is it ready, what does it see. Read-only. */
import fastify, { type FastifyInstance } from 'fastify';

/** One dependency, as it looks from here. */
export interface Check {
  readonly name: string;
  readonly isOk: boolean;
  /** In words, without secrets. */
  readonly detail: string;
}

export interface HttpOptions {
  readonly host: string;
  /** 0 for any free port. */
  readonly port: number;
  /** Whether the process does its work; a supervisor restarts it if not. */
  readonly live: () => readonly Check[];
  /** Whether its dependencies can be reached; nothing is gained by a restart if not. */
  readonly ready: () => Promise<readonly Check[]>;
}

export interface HttpServer {
  /** Resolves with the address, such as `http://127.0.0.1:8080`. */
  start(): Promise<string>;
  stop(): Promise<void>;
}

/** `GET /livez` and `GET /readyz`: 200 or 503, with every check as JSON. */
export function createHttpServer({ host, port, live, ready }: HttpOptions): HttpServer {
  const app: FastifyInstance = fastify({ logger: false, forceCloseConnections: true });
  const answer = (checks: readonly Check[]) => ({
    status: checks.every(({ isOk }) => isOk) ? 200 : 503,
    body: { ok: checks.every(({ isOk }) => isOk), checks },
  });
  app.get('/livez', async (_request, reply) => {
    const { status, body } = answer(live());
    return reply.code(status).send(body);
  });
  app.get('/readyz', async (_request, reply) => {
    const { status, body } = answer(await ready());
    return reply.code(status).send(body);
  });
  return {
    start: () => app.listen({ host, port }),
    stop: () => app.close(),
  };
}
