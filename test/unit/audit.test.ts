/** `npm run audit`, against registries that know something, know nothing, and do not say. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import process from 'node:process';
import { gunzipSync } from 'node:zlib';
import { afterEach, expect, it } from '@jest/globals';

const ROOT = path.resolve(import.meta.dirname, '../..');
const ADVISORY = {
  ...{ id: 1, url: 'https://example.com/advisories/1', title: 'Sockets that bite', severity: 'low' },
  ...{ vulnerable_versions: '<1000.0.0', cwe: [], cvss: { score: 1, vectorString: null } },
};

let server: Server;
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

/** @returns the registry's address, and the packages that it was asked about */
async function aRegistry(status: number, advisories: Readonly<Record<string, unknown>>) {
  const asked: string[] = [];
  server = createServer(async (request, response) => {
    const body: Buffer[] = [];
    for await (const chunk of request) {
      body.push(chunk);
    }
    const isAudit = request.method === 'POST' && request.url?.endsWith('/advisories/bulk');
    if (isAudit) {
      const raw = Buffer.concat(body);
      const text = request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw;
      asked.push(...Object.keys(JSON.parse(text.toString())));
    }
    response.writeHead(isAudit ? status : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(isAudit ? advisories : {}));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, asked };
}

function audit(registry: string, ...options: string[]): Promise<{ code: number; out: string }> {
  const env = { ...process.env, npm_config_registry: registry, npm_config_fetch_retries: '0' };
  return new Promise((resolve) => {
    const script = [path.join(ROOT, 'scripts/audit.mjs'), ...options];
    const child = execFile(process.execPath, script, { env, timeout: 60_000 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, out: `${stdout}${stderr}` }),
    );
  });
}

it('says that nothing is known of any production dependency', async () => {
  const { url, asked } = await aRegistry(200, {});
  const { code, out } = await audit(url);
  expect(out).toMatch(/\d{2,} production dependencies, 0 with known vulnerabilities/);
  expect(code).toBe(0);
  expect(asked).toEqual(expect.arrayContaining(['amqplib', 'knex', 'got', 'fastify']));
  expect(asked).not.toContain('jest');
}, 90_000);

it('fails for the least that is known, and says what', async () => {
  const { url } = await aRegistry(200, { ws: [ADVISORY] });
  const { code, out } = await audit(url);
  expect(out).toContain('low: ws');
  expect(out).toContain('Sockets that bite (https://example.com/advisories/1)');
  expect(out).toContain(' 1 with known vulnerabilities');
  expect(code).toBe(1);
}, 90_000);

it('does not take a registry that does not say for one that knows nothing', async () => {
  const { url } = await aRegistry(405, {});
  const { code, out } = await audit(url);
  expect(out).toMatch(/not audited: .*405/);
  expect(code).toBe(69);
  expect(await audit(url, '--if-possible')).toMatchObject({ code: 0, out: expect.stringContaining('not audited') });
}, 90_000);
