/** A private RabbitMQ node with the users and rights that Pulse has. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { freePort, OWNER, run, startDaemon, stopDaemon, waitForDaemon } from './process.mjs';

const BIN = '/usr/lib/rabbitmq/bin';

export async function prepareRabbitmq(base) {
  const folder = path.join(base, 'rabbitmq');
  mkdirSync(folder, { recursive: true });
  const [port, dist, epmd] = [await freePort(), await freePort(), await freePort()];
  const config = path.join(folder, 'rabbitmq.conf');
  writeFileSync(
    config,
    'loopback_users = none\ndisk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 1GB\n',
  );
  writeFileSync(path.join(folder, 'enabled_plugins'), '[].\n');
  const env = {
    // The port mapper outlives its nodes; by this it is found in the end.
    [OWNER]: base,
    HOME: folder,
    PATH: process.env.PATH,
    LANG: 'C.UTF-8',
    RABBITMQ_NODENAME: `bbb-${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(dist),
    ERL_EPMD_PORT: String(epmd),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ENABLED_PLUGINS_FILE: path.join(folder, 'enabled_plugins'),
    RABBITMQ_MNESIA_BASE: path.join(folder, 'mnesia'),
    RABBITMQ_LOG_BASE: path.join(folder, 'log'),
    RABBITMQ_LOGS: path.join(folder, 'log/rabbit.log'),
    RABBITMQ_PID_FILE: path.join(folder, 'mnesia/pid'),
  };
  return {
    folder,
    env,
    url: `amqp://bridge:bridge-pass@127.0.0.1:${port}/`,
    adminUrl: `amqp://taskcluster:taskcluster-pass@127.0.0.1:${port}/`,
  };
}

export async function startRabbitmq(facts) {
  startDaemon(facts.folder, 'rabbitmq', path.join(BIN, 'rabbitmq-server'), [], { env: facts.env });
  await waitForDaemon(facts.folder, 'rabbitmq', () =>
    rabbitmqctl(facts, ['await_startup', '--timeout', '30']).then(() => true),
  );
}

/** Users and rights as on Pulse: `bridge` has its own queues and reads exchanges; `taskcluster` may do everything. */
export async function addPulseUsers(facts) {
  const ctl = (...args) => rabbitmqctl(facts, args);
  await ctl('add_user', 'taskcluster', 'taskcluster-pass');
  await ctl('set_permissions', 'taskcluster', '.*', '.*', '.*');
  await ctl('add_user', 'bridge', 'bridge-pass');
  const own = '^(queue/bridge/.*|exchange/bridge/.*)$';
  await ctl('set_permissions', 'bridge', own, own, '^(queue/bridge/.*|exchange/.*)$');
}

export const stopRabbitmq = (facts, signal) => stopDaemon(facts.folder, 'rabbitmq', signal, 30_000);

function rabbitmqctl(facts, args) {
  return run(path.join(BIN, 'rabbitmqctl'), ['-q', '-n', facts.env.RABBITMQ_NODENAME, ...args], { env: facts.env });
}
