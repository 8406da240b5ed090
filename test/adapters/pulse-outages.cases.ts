import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createServer } from 'node:tls';
import { promisify } from 'node:util';
import { describe, expect, it } from '@jest/globals';
import { eventually } from '../support/eventually.ts';
import { rabbitmq } from '../support/services/index.ts';
import { aBroker, asTaskcluster, consume, gate, logged, publish, setUp, undo, waiting } from './pulse-support.ts';

/** Everything that can happen to a connection. */
export function describeOutages(): void {
  describe('when the connection is lost', () => {
    it('hears the message under way again, and acknowledges once', async () => {
      const { queue, exchange, proxy, broker, listen } = await setUp();
      const firstTry = gate();
      const heard = await listen((_text, { isRedelivered }) => (isRedelivered ? Promise.resolve() : firstTry.opened));
      await publish(exchange, 'one');
      await eventually(() => heard.texts.length === 1);
      proxy.cut();
      await eventually(() => !broker.status().isConnected);
      expect(broker.status()).toMatchObject({ isConsuming: false, reconnects: 1, lastError: expect.any(String) });
      await eventually(() => heard.texts.length === 2);
      firstTry.open(); // Its channel is gone: nothing comes of its acknowledgement.
      expect(heard).toMatchObject({ gaps: 2, texts: ['one', 'one'] });
      expect(broker.status()).toMatchObject({ isConnected: true, isConsuming: true, lastError: null });
      await publish(exchange, 'two');
      await eventually(() => heard.texts.length === 3);
      await heard.subscription.stop();
      expect(await waiting(queue)).toBe(0);
    });

    it('comes back when the broker closes it', async () => {
      const { exchange, broker, listen } = await setUp();
      const heard = await listen();
      await rabbitmq().ctl('close_all_user_connections', 'bridge', 'a test');
      await eventually(() => heard.gaps === 2);
      expect(broker.status().reconnects).toBe(1);
      await publish(exchange, 'one');
      await eventually(() => heard.texts.length === 1);
    });

    it('notices by the heartbeat when nothing comes through any more', async () => {
      const { exchange, proxy, broker, listen } = await setUp({ heartbeatS: 1 });
      const heard = await listen();
      proxy.swallow();
      await publish(exchange, 'one');
      await eventually(() => heard.texts.length === 1, { timeoutMs: 20_000, what: 'a heartbeat that was missed' });
      expect(broker.status()).toMatchObject({ isConnected: true, reconnects: 1 });
      expect(heard.gaps).toBe(2);
    });

    it('takes the heartbeat of the URL', async () => {
      const { proxy, listen, broker } = await setUp();
      const other = aBroker({ url: `${proxy.url}?heartbeat=1`, heartbeatS: 600 });
      undo.push(() => other.close());
      await listen();
      const heard = await consume(other, await setUp());
      undo.push(() => heard.subscription.stop());
      await eventually(() => other.status().isConsuming);
      proxy.swallow();
      await eventually(() => other.status().reconnects === 1, { timeoutMs: 20_000 });
      expect(broker.status().reconnects).toBe(0);
    });

    it('stops and closes in a few seconds when nothing comes through any more', async () => {
      const { exchange, proxy, broker, listen } = await setUp();
      const heard = await listen();
      await publish(exchange, 'one');
      await eventually(() => heard.texts.length === 1);
      proxy.swallow();
      const began = Date.now();
      await heard.subscription.stop();
      await broker.close();
      expect(Date.now() - began).toBeLessThan(6000);
    });

    it('says so when the set-up gets no answer, and tries again', async () => {
      const { broker, queue, exchange, ...own } = await setUp({ setUpTimeoutMs: 500 });
      await asTaskcluster((channel) =>
        channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } }),
      );
      const member = `whereis(list_to_atom("%2F_${queue}"))`;
      await rabbitmq().ctl('eval', `sys:suspend(${member}).`);
      const heard = await consume(broker, { queue, exchange, ...own });
      undo.push(() => heard.subscription.stop());
      await eventually(() => broker.status().lastError !== null);
      expect(broker.status()).toMatchObject({ isConnected: true, isConsuming: false });
      expect(broker.status().lastError).toContain('no answer for 500 ms');
      await rabbitmq().ctl('eval', `sys:resume(${member}).`);
      await eventually(() => broker.status().isConsuming, { timeoutMs: 20_000 });
      await publish(exchange, 'one');
      await eventually(() => heard.texts.length > 0);
      expect(broker.status()).toMatchObject({ lastError: null, reconnects: 0 });
    });

    it('waits for a broker that is away at the start, and stops without it', async () => {
      const { exchange, proxy, broker, ...own } = await setUp();
      await proxy.listen(false);
      const heard = await consume(broker, { exchange, ...own });
      undo.push(() => heard.subscription.stop());
      await eventually(() => broker.status().lastError !== null);
      expect(broker.status()).toMatchObject({ isConnected: false, reconnects: 0 });
      expect(broker.status().lastError).toContain('Pulse cannot be reached');
      await proxy.listen(true);
      await eventually(() => heard.gaps === 1);

      await proxy.listen(false);
      await eventually(() => !broker.status().isConnected);
      const began = Date.now();
      await heard.subscription.stop();
      await broker.close();
      expect(Date.now() - began).toBeLessThan(6000);
      const connections = proxy.count();
      await proxy.listen(true);
      await publish(exchange, 'one');
      expect(proxy.count()).toBe(connections);
      expect(heard.texts).toEqual([]);
    });

    it('hears the message under way again when the broker was killed', async () => {
      const { queue, exchange, listen } = await setUp();
      const firstTry = gate();
      const heard = await listen((_text, { isRedelivered }) => (isRedelivered ? Promise.resolve() : firstTry.opened));
      await publish(exchange, 'one');
      await eventually(() => heard.texts.length === 1);
      // RabbitMQ writes what its quorum queues know of their elections only every few seconds; a queue that was declared
      // just before the node is killed would come back without a leader, for good (rabbitmq-server issue 10070).
      await rabbitmq().ctl('eval', '[ok = dets:sync(Table) || Table <- dets:all()].');
      await rabbitmq().kill();
      firstTry.open();
      await rabbitmq().start();
      await eventually(() => heard.texts.length === 2, { timeoutMs: 40_000 });
      await publish(exchange, 'two');
      await eventually(() => heard.texts.length === 3);
      expect(heard.messages.map(({ isRedelivered }) => isRedelivered)).toEqual([false, true, false]);
      await heard.subscription.stop();
      expect(await waiting(queue)).toBe(0);
    });
  });

  describe('a connection that cannot be made', () => {
    it('says that the password is wrong, and does not show it', async () => {
      const { broker, ...own } = await setUp({ url: rabbitmq().url.replace('bridge-pass', 'hunter2') });
      const heard = await consume(broker, own);
      undo.push(() => heard.subscription.stop());
      await eventually(() => broker.status().lastError !== null);
      expect(broker.status().lastError).toContain('Pulse refuses the user or the password');
      expect(broker.status().lastError).not.toContain('hunter2');
    });

    it('is tried again more and more slowly', async () => {
      const { broker, proxy, listen } = await setUp();
      await listen();
      for (let round = 1; round <= 3; round += 1) {
        proxy.cut();
        await eventually(() => broker.status().reconnects === round);
        await eventually(() => broker.status().isConsuming);
      }
      const began = Date.now();
      proxy.cut();
      await eventually(() => broker.status().reconnects === 4);
      await eventually(() => broker.status().isConsuming, { timeoutMs: 20_000 });
      expect(Date.now() - began).toBeGreaterThan(2000);
    });

    it('does not trust a certificate that nobody vouches for', async () => {
      const port = await startTls();
      const { broker, ...own } = await setUp({ url: `amqps://bridge:bridge-pass@127.0.0.1:${port}/` });
      const heard = await consume(broker, own);
      undo.push(() => heard.subscription.stop());
      await eventually(() => broker.status().lastError !== null);
      expect(broker.status().lastError).toMatch(/self[- ]signed certificate/);
      expect(logged.at(-1)).toContain('not connected to Pulse');
    });
  });
}

/** RabbitMQ behind TLS with a certificate of its own making; answers the port. */
async function startTls(): Promise<number> {
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-tls-'));
  undo.push(async () => rmSync(folder, { recursive: true }));
  const [key, cert] = [path.join(folder, 'key.pem'), path.join(folder, 'cert.pem')];
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'],
    ...['-keyout', key, '-out', cert, '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'],
  ]);
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (near) => {
    const far = connect(Number(new URL(rabbitmq().url).port), '127.0.0.1');
    near.pipe(far).pipe(near);
    near.on('error', () => far.destroy());
    far.on('error', () => near.destroy());
  });
  // A client that does not trust it hangs up.
  server.on('tlsClientError', () => undefined);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  undo.push(async () => server.close());
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}
