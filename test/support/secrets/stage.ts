/** A bridge's whole surroundings, each of which wants a secret of it, and all that the bridge leaves there. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import got from 'got';
import slugid from 'slugid';
import taskcluster, { type Queue } from 'taskcluster-client';
import { systemClock } from '../../../src/clock.ts';
import { ENVIRONMENT } from '../../../src/config/source.ts';
import { createFaults, type Faults } from '../../../src/sandbox/faults.ts';
import { createQueueEmulator, type QueueEmulator } from '../../../src/sandbox/queue/emulator.ts';
import { type Bbb, type BbbOptions, spawnBbb } from '../bbb.ts';
import { eventually } from '../eventually.ts';
import { startPulsePublisher } from '../pulse-publisher.ts';
import { rabbitmq } from '../services/index.ts';
import { BRIDGE_SCOPES, EXCHANGES, ROOT, taskDefinition } from '../world.ts';
import { type Credentials, permanent, temporary } from './credentials.ts';
import { allRows, createSecretDatabase, type DatabaseKind, type SecretDatabase, whole } from './databases.ts';
import { type LegacyKind, type SecretLegacy, startSecretLegacy } from './legacy.ts';
import { type Leak, leaksIn, type Planted, plant } from './marks.ts';
import { setIn, valueIn } from './tree.ts';

export interface SetUp {
  readonly legacy: LegacyKind;
  readonly mappings: DatabaseKind;
  readonly secretsIn: 'file' | 'environment';
  readonly credentials: 'permanent' | 'temporary';
}

export interface Stage {
  readonly queue: QueueEmulator;
  /** Of the queue. */
  readonly faults: Faults;
  /** The queue as a person uses it. */
  readonly person: Queue;
  readonly legacy: SecretLegacy;
  readonly mappings: SecretDatabase;
  readonly pulseUser: string;
  /** All of the bridge, with the secrets that are right. */
  readonly config: object;
  /** A command with this configuration, wherever its secrets are given. */
  spawn(args: readonly string[], config?: object, env?: Readonly<Record<string, string>>): Bbb;
  /** Makes a task; answers its id. */
  create(wish?: Parameters<typeof taskDefinition>[0]): Promise<string>;
  becomes(taskId: string, state: string): Promise<unknown>;
  /**
   * Looks at what is there for a moment only: the list of processes, and the health checks of one of them.
   * @throws {Error} if that one lives and is not in the list: nothing would be found there
   */
  look(bbb: Bbb): Promise<void>;
  /** Where secrets show, in all that was ever said, written or seen. */
  leaks(): Promise<readonly Leak[]>;
  stop(): Promise<void>;
}

export async function startStage(setUp: SetUp): Promise<Stage> {
  const [pulsePassword, databasePassword] = [plant('pulse'), plant('database')];
  const rabbit = await rabbitmq().createVhost();
  const vhost = new URL(rabbit.url).pathname.slice(1);
  const pulse = await startPulsePublisher(rabbit.adminUrl, EXCHANGES);
  const pulseUser = `bridge-${pulsePassword.mark.slice(0, 8)}`;
  await rabbitmq().ctl('add_user', pulseUser, pulsePassword.value);
  await rabbitmq().ctl('set_permissions', '-p', vhost, pulseUser, '.*', '.*', '.*');
  const pulseUrl = new URL(rabbit.url);
  [pulseUrl.username, pulseUrl.password] = [pulseUser, encodeURIComponent(pulsePassword.value)];

  const mappings = await createSecretDatabase(setUp.mappings, databasePassword);
  const legacy = await startSecretLegacy(setUp.legacy, rabbit.adminUrl);
  const credentials: Credentials = setUp.credentials === 'permanent' ? permanent() : temporary(BRIDGE_SCOPES);
  const client = { ...credentials.client, scopes: BRIDGE_SCOPES };
  const faults = createFaults();
  const queue = createQueueEmulator({
    ...{ clock: systemClock, clients: [ROOT, client], faults, publish: pulse.publish },
  });
  await queue.start();
  const person = new taskcluster.Queue({ rootUrl: queue.rootUrl, credentials: ROOT });

  const secrets: readonly Planted[] = [
    ...[pulsePassword, ...(setUp.mappings === 'sqlite' ? [] : [databasePassword])],
    ...[...legacy.secrets, ...credentials.secrets],
  ];
  const config = {
    taskcluster: { rootUrl: queue.rootUrl, credentials: credentials.given },
    pulse: { url: pulseUrl.href, namespace: 'bridge' },
    database: { url: mappings.url },
    legacyCi: legacy.legacyCi,
    reflector: { schedule: '* * * * * *', recheck: '1s' },
    bridge: { lease: '3s' },
    http: { port: 0 },
    log: { level: 'trace' },
  };
  const temporaryFolder = mkdtempSync(path.join(tmpdir(), 'bbb-left-'));
  const commands: Bbb[] = [];
  const processes: string[] = [];
  const health: string[] = [];

  return {
    ...{ queue, faults, person, legacy, mappings, pulseUser, config },
    spawn(args, wanted = config, env = {}) {
      const given = setUp.secretsIn === 'file' ? { config: wanted, env: {} } : toEnvironment(wanted);
      const bbb = spawnBbb(args, { ...given, env: { ...given.env, TMPDIR: temporaryFolder, ...env } });
      commands.push(bbb);
      return bbb;
    },
    async create(wish = {}) {
      const taskId = slugid.nice();
      await person.createTask(taskId, taskDefinition(wish));
      return taskId;
    },
    becomes: (taskId, state) =>
      eventually(() => queue.tasks.get(taskId)?.status.runs.at(-1)?.state === state, {
        timeoutMs: 60_000,
        what: `${taskId} to be ${state}`,
      }),
    async look(bbb) {
      const lines = commandLines();
      processes.push(...lines.values());
      if (!lines.get(String(bbb.pid))?.includes('cli.js')) {
        await eventually(() => !bbb.isAlive(), {
          what: `process ${bbb.pid} to be seen with its command line, or to end`,
        });
      }
      const address = /"address":"([^"]+)"/.exec(bbb.stdout())?.[1];
      for (const page of address === undefined ? [] : ['livez', 'readyz', 'metrics']) {
        // It may have ended by itself.
        const answer = await got.get(`${address}/${page}`, { throwHttpErrors: false }).text().catch(String);
        health.push(`${page}: ${answer}`);
      }
    },
    async leaks() {
      const texts = {
        stdout: commands.map((bbb) => bbb.stdout()).join('\n'),
        stderr: commands.map((bbb) => bbb.stderr()).join('\n'),
        'the mapping database': await allRows(mappings.adminUrl),
        Buildbot: await legacy.records(),
        'the queue': queueRecords(queue),
        Pulse: await pulseRecords(vhost),
        processes: processes.join('\n'),
        health: health.join('\n'),
        'the temporary folder': contentsOf(temporaryFolder),
      };
      const empty = Object.entries(texts).filter(([where, text]) => text === '' && !MAY_BE_EMPTY.has(where));
      if (empty.length > 0) {
        throw new Error(`nothing to search in ${empty.map(([where]) => where).join(', ')}`);
      }
      return leaksIn(texts, secrets);
    },
    async stop() {
      await Promise.all(commands.map((bbb) => bbb.kill('SIGKILL')));
      await queue.stop();
      await legacy.stop();
      await mappings.drop();
      await pulse.close();
      await rabbitmq().ctl('delete_user', pulseUser);
      await rabbit.drop();
      rmSync(temporaryFolder, { recursive: true, force: true });
    },
  };
}

const MAY_BE_EMPTY = new Set(['stderr', 'the temporary folder']);

/** The same configuration with all that the environment can give in the environment. */
function toEnvironment(config: object): Required<Pick<BbbOptions, 'env'>> & { readonly config: object } {
  let rest: object = config;
  const env: Record<string, string> = {};
  for (const [variable, keys] of Object.entries(ENVIRONMENT)) {
    const value = valueIn(config, keys);
    if (typeof value === 'string') {
      env[variable] = value;
      rest = setIn(rest, keys, undefined);
    }
  }
  return { config: rest, env };
}

/** Every process's command line, by its id, and nothing else of it: an environment is private. */
function commandLines(): ReadonlyMap<string, string> {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return new Map(pids.map((pid) => [pid, commandLine(pid)]));
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    // It has ended since.
    return '';
  }
}

/** Tasks with their runs, and artifacts with their contents and where they lead to. */
function queueRecords(queue: QueueEmulator): string {
  const tasks = queue.tasks.list();
  const contents = tasks.flatMap(({ artifacts }) => artifacts.map((one) => one.content()?.toString() ?? ''));
  return [whole(tasks), ...contents].join('\n');
}

/** Names and arguments of queues, who listens on them, and what the connections say of themselves. */
async function pulseRecords(vhost: string): Promise<string> {
  const { ctl } = rabbitmq();
  return [
    await ctl('list_queues', '-p', vhost, 'name', 'arguments'),
    await ctl('list_consumers', '-p', vhost),
    await ctl('list_connections', 'user', 'client_properties'),
  ].join('\n');
}

function contentsOf(folder: string): string {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.name}\n${readFileSync(path.join(entry.parentPath, entry.name), 'latin1')}`)
    .join('\n');
}
