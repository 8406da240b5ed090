/** The real servers that adapters and scenarios are tested against. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import knex from 'knex';
import { moveServer, readFacts } from './facts.ts';

export { type Buildbot, startBuildbot } from './buildbot.ts';

export interface Rabbitmq {
  /** As the bridge's Pulse user. */
  readonly url: string;
  /** As Taskcluster. */
  readonly adminUrl: string;
  /** Runs rabbitmqctl; answers what it prints. */
  ctl(...args: string[]): Promise<string>;
  /** A part of the broker of the test's own, with the same users and rights. */
  createVhost(): Promise<{ readonly url: string; readonly adminUrl: string; drop(): Promise<void> }>;
  /** In good order. */
  stop(): Promise<void>;
  /** Beware of a queue declared a moment before: RabbitMQ 3.10 may never find a leader for it again. */
  kill(): Promise<void>;
  start(): Promise<void>;
}

export function rabbitmq(): Rabbitmq {
  const { rabbitmq: facts } = readFacts();

  async function ctl(...args: string[]): Promise<string> {
    const node = facts.env.RABBITMQ_NODENAME ?? '';
    const { stdout } = await promisify(execFile)('/usr/lib/rabbitmq/bin/rabbitmqctl', ['-q', '-n', node, ...args], {
      env: facts.env,
    });
    return stdout;
  }

  return {
    url: facts.url,
    adminUrl: facts.adminUrl,
    ctl,
    async createVhost() {
      const name = `test-${randomBytes(6).toString('hex')}`;
      await ctl('add_vhost', name);
      const own = '^(queue/bridge/.*|exchange/bridge/.*)$';
      await ctl('set_permissions', '-p', name, 'bridge', own, own, '^(queue/bridge/.*|exchange/.*)$');
      await ctl('set_permissions', '-p', name, 'taskcluster', '.*', '.*', '.*');
      return {
        url: `${facts.url}${name}`,
        adminUrl: `${facts.adminUrl}${name}`,
        drop: async () => void (await ctl('delete_vhost', name)),
      };
    },
    stop: () => moveServer('stop', 'rabbitmq'),
    kill: () => moveServer('kill', 'rabbitmq'),
    start: () => moveServer('start', 'rabbitmq'),
  };
}

export interface DatabaseServer {
  /** An empty database of the test's own. */
  createDatabase(): Promise<{ readonly url: string; drop(): Promise<void> }>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

export const mariadb = (): DatabaseServer => server('mariadb', 'mysql2', '');
export const postgres = (): DatabaseServer => server('postgres', 'pg', 'postgres');

function server(name: 'mariadb' | 'postgres', client: string, base: string): DatabaseServer {
  const { url } = readFacts()[name];
  async function execute(sql: string): Promise<void> {
    const db = knex({ client, connection: `${url}${base}` });
    try {
      await db.raw(sql);
    } finally {
      await db.destroy();
    }
  }
  return {
    async createDatabase() {
      const database = `bbb_${randomBytes(6).toString('hex')}`;
      await execute(`CREATE DATABASE ${database}`);
      return { url: `${url}${database}`, drop: () => execute(`DROP DATABASE ${database}`) };
    },
    stop: () => moveServer('stop', name),
    start: () => moveServer('start', name),
  };
}
