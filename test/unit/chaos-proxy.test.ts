/** The bad network of the chaos: what it says that it broke, it broke. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, it } from '@jest/globals';
import { type ChaosProxy, startChaosProxy } from '../support/chaos-proxy.ts';
import { eventually } from '../support/eventually.ts';

let server: Server;
let proxy: ChaosProxy;
let clients: Socket[];
beforeEach(async () => {
  clients = [];
  server = createServer((socket) => {
    socket.on('error', () => undefined).pipe(socket);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  proxy = await startChaosProxy(new URL(`tcp://127.0.0.1:${port}`));
});
afterEach(async () => {
  for (const client of clients) {
    client.destroy();
  }
  await proxy.stop();
  await new Promise((resolve) => server.close(resolve));
});

/** A connection on which something came back. */
async function open(): Promise<Socket> {
  const client = connect(proxy.port, '127.0.0.1').on('error', () => undefined);
  clients.push(client);
  await echoed(client);
  return client;
}

async function echoed(client: Socket): Promise<void> {
  client.write('?');
  await once(client, 'data');
}

it('has hit nothing where nothing was under way', async () => {
  proxy.cut();
  proxy.swallow(true);
  proxy.swallow(false);
  proxy.cut();
  proxy.delay(10);
  proxy.delay(0);
  await echoed(await open());
  expect(proxy.hits()).toEqual({ cut: 0, delayed: 0, swallowed: 0 });
});

it('counts each connection that it cuts, once', async () => {
  const closed = [await open(), await open()].map((client) => once(client, 'close'));
  proxy.cut();
  proxy.cut();
  await Promise.all(closed);
  expect(proxy.hits().cut).toBe(2);
});

it('counts packets that come late, there and back', async () => {
  const client = await open();
  proxy.delay(1);
  await echoed(client);
  expect(proxy.hits()).toEqual({ cut: 0, delayed: 2, swallowed: 0 });
});

it('counts packets that vanish, and cuts what they are missing from when the next one comes', async () => {
  const client = await open();
  proxy.swallow(true);
  client.write('?');
  await eventually(() => proxy.hits().swallowed === 1, { what: 'the packet to vanish' });
  proxy.swallow(false);
  client.write('?');
  await once(client, 'close');
  expect(proxy.hits().swallowed).toBe(1);
});
