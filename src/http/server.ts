/** What an operator's tooling asks a bridge process: is it alive, is it ready, what does it see. Read-only. */
import { createServer, type ServerResponse } from 'node:http';
import { ConfigError, codeOf } from '../errors.ts';

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
  /** What the process counts, in whatever format it says. */
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
}

export interface HttpServer {
  /**
   * Resolves with the address, such as `http://127.0.0.1:8080`; rejects when the port cannot be had, with a ConfigError
   * when there is no such host.
   */
  start(): Promise<string>;
  stop(): Promise<void>;
}

/**
 * `GET /livez` and `GET /readyz`: 200 or 503, with every check as JSON; `GET /metrics`. Three routes want no framework,
 * whose memory the bridge would pay for in every process.
 */
export function createHttpServer({ host, port, live, ready, metrics }: HttpOptions): HttpServer {
  const server = createServer((request, response) => {
    route(request.method ?? '', request.url ?? '', response).catch(() => {
      // A check that throws is a bug, and no reason for the process to end.
      response.destroy();
    });
  });

  async function route(method: string, url: string, response: ServerResponse): Promise<void> {
    const [path] = url.split('?');
    if (method !== 'GET' && method !== 'HEAD') {
      answer(response, 405, { error: 'only GET' });
    } else if (path === '/livez') {
      answerChecks(response, live());
    } else if (path === '/readyz') {
      answerChecks(response, await ready());
    } else if (path === '/metrics') {
      const { contentType, body } = await metrics();
      response.writeHead(200, { 'content-type': contentType }).end(body);
    } else {
      answer(response, 404, { error: 'there are /livez, /readyz and /metrics' });
    }
  }

  return {
    start: () =>
      new Promise((resolve, reject) => {
        // Later ones, such as of a connection that cannot be taken, are no reason for the process to end.
        server.on('error', (error) => {
          const isNowhere = codeOf(error) === 'ENOTFOUND';
          const message = `http.host: there is no host ${JSON.stringify(host)}`;
          reject(isNowhere ? new ConfigError(message, { cause: error }) : error);
        });
        server.listen(port, host, () => {
          const address = server.address();
          resolve(`http://${host}:${typeof address === 'object' && address !== null ? address.port : port}`);
        });
      }),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answerChecks(response: ServerResponse, checks: readonly Check[]): void {
  const isOk = checks.every((check) => check.isOk);
  answer(response, isOk ? 200 : 503, { ok: isOk, checks });
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}
