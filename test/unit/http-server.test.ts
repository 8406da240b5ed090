import { Server } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import got from 'got';
import { ConfigError } from '../../src/errors.ts';
import { type Check, createHttpServer, type HttpServer } from '../../src/http/server.ts';

let checks: Check[];
let server: HttpServer;
let address: string;
beforeEach(async () => {
  checks = [{ name: 'database', isOk: true, detail: 'fine' }];
  const metrics = async () => ({ contentType: 'text/plain; version=0.0.4', body: 'bbb_x 1\n' });
  server = createHttpServer({ host: '127.0.0.1', port: 0, live: () => [], ready: async () => checks, metrics });
  address = await server.start();
});
afterEach(() => server.stop());

const ask = (path: string, method: 'GET' | 'POST' = 'GET') =>
  got(`${address}${path}`, { method, throwHttpErrors: false, retry: { limit: 0 } });

describe('the health checks', () => {
  it('say that all is well', async () => {
    expect((await ask('/livez')).statusCode).toBe(200);
    const ready = await ask('/readyz?verbose');
    expect(ready.statusCode).toBe(200);
    expect(JSON.parse(ready.body)).toEqual({ ok: true, checks });
  });

  it('go on where connections cannot be taken for a while', async () => {
    const listen = jest.spyOn(Server.prototype, 'listen');
    const other = createHttpServer({
      ...{ host: '127.0.0.1', port: 0, live: () => [], ready: async () => checks },
      metrics: async () => ({ contentType: 'text/plain', body: '' }),
    });
    const at = await other.start();
    const [inner] = listen.mock.contexts;
    listen.mockRestore();
    for (const code of ['EMFILE', 'EMFILE']) {
      (inner as Server).emit('error', Object.assign(new Error(code), { code }));
    }
    expect((await got(`${at}/livez`)).statusCode).toBe(200);
    await other.stop();
  });

  it('say what is not', async () => {
    checks = [...checks, { name: 'pulse', isOk: false, detail: 'connecting' }];
    const ready = await ask('/readyz');
    expect(ready.statusCode).toBe(503);
    expect(JSON.parse(ready.body)).toEqual({ ok: false, checks });
  });

  it('have metrics beside them', async () => {
    const metrics = await ask('/metrics');
    expect([metrics.statusCode, metrics.body]).toEqual([200, 'bbb_x 1\n']);
    expect(metrics.headers['content-type']).toBe('text/plain; version=0.0.4');
  });

  it('know nothing else', async () => {
    expect((await ask('/')).statusCode).toBe(404);
    expect((await ask('/livez', 'POST')).statusCode).toBe(405);
  });

  it('say when the port is taken', async () => {
    const { port } = new URL(address);
    const second = createHttpServer({
      ...{ host: '127.0.0.1', port: Number(port), live: () => [], ready: async () => [] },
      metrics: async () => ({ contentType: '', body: '' }),
    });
    await expect(second.start()).rejects.toThrow('EADDRINUSE');
  });

  it('say that the configuration is wrong where their host does not exist', async () => {
    const nowhere = createHttpServer({
      ...{ host: 'a..b', port: 0, live: () => [], ready: async () => [] },
      metrics: async () => ({ contentType: '', body: '' }),
    });
    const refused = nowhere.start();
    await expect(refused).rejects.toBeInstanceOf(ConfigError);
    await expect(refused).rejects.toThrow('http.host: there is no host "a..b"');
  });
});
