/** An emulated queue for tests: a clock of their own, a client, and all messages that were published. */
import slugid from 'slugid';
import type { Clock } from '../../src/ports.ts';
import { createFaults, type Faults } from '../../src/sandbox/faults.ts';
import {
  createQueueEmulator,
  type QueueEmulator,
  type QueueEmulatorOptions,
} from '../../src/sandbox/queue/emulator.ts';
import type { QueueMessage } from '../../src/sandbox/queue/messages.ts';

/** A clock that stands still until it is moved; who sleeps is woken when it is. */
export interface ManualClock extends Clock {
  /** UTC milliseconds. */
  set(time: number): void;
  advance(ms: number): void;
  /** How many sleep. */
  sleepers(): number;
}

export function createManualClock(start: number): ManualClock {
  let now = start;
  const sleepers = new Set<{ readonly until: number; wake(): void }>();
  function set(time: number): void {
    now = time;
    for (const sleeper of [...sleepers].filter(({ until }) => until <= now)) {
      sleepers.delete(sleeper);
      sleeper.wake();
    }
  }
  return {
    now: () => now,
    uptime: () => now,
    set,
    advance: (ms) => set(now + ms),
    sleepers: () => sleepers.size,
    sleep: (ms, signal) =>
      new Promise((wake) => {
        if (signal?.aborted) {
          wake();
          return;
        }
        sleepers.add({ until: now + ms, wake });
        signal?.addEventListener('abort', () => wake(), { once: true });
      }),
  };
}

type Method = (...args: readonly unknown[]) => Promise<unknown>;
type ClientClass = new (options: object) => Readonly<Record<string, Method>>;

interface ClientModule {
  readonly default: {
    readonly Queue: ClientClass;
    readonly Auth: ClientClass;
    createClient(reference: object, name: string): ClientClass;
  };
}

/** Methods that a queue has as of version 106, and the client library does not. */
const LATER = {
  ...{ serviceName: 'queue', apiVersion: 'v1' },
  entries: [
    ['changeTaskPriority', '/task/<taskId>/priority', 'taskId'],
    ['changeTaskGroupPriority', '/task-group/<taskGroupId>/priority', 'taskGroupId'],
  ].map(([name, route, arg]) => ({
    ...{ type: 'function', method: 'post', name, route, args: [arg], query: [] },
    input: 'v1/change-task-priority-request.json#',
  })),
};

export interface Credentials {
  readonly clientId: string;
  readonly accessToken: string;
  readonly certificate?: string;
}

export const ROOT_CLIENT = { clientId: 'root', accessToken: 'root-access-token-for-tests', scopes: ['*'] };

/** What a call came to: its answer, or the error's status, code and body. */
export type CallResult =
  | { readonly ok: true; readonly answer: unknown }
  | { readonly ok: false; readonly status: number; readonly code: string; readonly message: string };

export interface QueueFixture {
  readonly emulator: QueueEmulator;
  readonly clock: ManualClock;
  readonly faults: Faults;
  readonly messages: QueueMessage[];
  /** While it is down nothing can be published. */
  readonly pulse: { isDown: boolean };
  /** Messages as `task-pending <taskId> <runId>`, for short. */
  brief(): string[];
  /** Calls through the real client, which does not retry. `credentials`: undefined for root, null for none. */
  call(method: string, args: readonly unknown[], credentials?: Credentials | null): Promise<CallResult>;
  /** The same, for calls that must succeed. */
  ok(method: string, ...args: readonly unknown[]): Promise<unknown>;
  auth(method: string, ...args: readonly unknown[]): Promise<unknown>;
  stop(): Promise<void>;
}

// The client ships without types; the name in a variable keeps the compiler from looking for some.
const CLIENT_PACKAGE: string = 'taskcluster-client';

async function loadClient(): Promise<ClientModule['default']> {
  const module: ClientModule = await import(CLIENT_PACKAGE);
  return module.default;
}

/** The real client, as root. */
export async function connect(rootUrl: string): Promise<Readonly<Record<string, Method>>> {
  const { Queue } = await loadClient();
  return new Queue({ rootUrl, credentials: ROOT_CLIENT });
}

function toResult(error: unknown): CallResult {
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') {
    const body = 'body' in error && typeof error.body === 'object' && error.body !== null ? error.body : {};
    const code = 'code' in body ? String(body.code) : '';
    const message = 'message' in body ? String(body.message) : '';
    return { ok: false, status: error.statusCode, code, message };
  }
  throw error;
}

/** A started emulator; stop it. */
export async function startQueue(
  options: Partial<Omit<QueueEmulatorOptions, 'clock' | 'publish' | 'faults'>> & { readonly at?: number } = {},
): Promise<QueueFixture> {
  const client = await loadClient();
  const clock = createManualClock(options.at ?? Date.parse('2026-11-23T21:00:00.000Z'));
  const faults = createFaults();
  const messages: QueueMessage[] = [];
  const pulse = { isDown: false };
  const publish = (message: QueueMessage) => {
    if (pulse.isDown) {
      throw new Error('Pulse is down');
    }
    messages.push(message);
  };
  const emulator = createQueueEmulator({ clients: [ROOT_CLIENT], ...options, clock, faults, publish });
  await emulator.start();

  async function call(
    method: string,
    args: readonly unknown[],
    credentials: Credentials | null = ROOT_CLIENT,
  ): Promise<CallResult> {
    const isLater = LATER.entries.some(({ name }) => name === method);
    const Client = isLater ? client.createClient(LATER, 'Queue') : client.Queue;
    const queue = new Client({ rootUrl: emulator.rootUrl, credentials: credentials ?? {}, retries: 0 });
    try {
      return { ok: true, answer: await queue[method]?.(...args) };
    } catch (error) {
      return toResult(error);
    }
  }
  return {
    emulator,
    clock,
    faults,
    messages,
    pulse,
    brief: () =>
      messages.map(({ exchange, routingKey }) => {
        const [, taskId, runId] = routingKey.split('.');
        return [exchange.split('/').at(-1), taskId, runId].join(' ');
      }),
    call,
    async ok(method, ...args) {
      const result = await call(method, args);
      if (!result.ok) {
        throw new Error(`${method}: ${result.status} ${result.message}`);
      }
      return result.answer;
    },
    auth: async (method, ...args) =>
      await new client.Auth({ rootUrl: emulator.rootUrl, credentials: ROOT_CLIENT, retries: 0 })[method]?.(...args),
    stop: () => emulator.stop(),
  };
}

/** A task definition that the queue takes at `now` (UTC milliseconds). */
export function taskAt(now: number, changes: Readonly<Record<string, unknown>> = {}) {
  return {
    taskQueueId: 'buildbot/bridge',
    schedulerId: 'test-sched',
    created: new Date(now).toJSON(),
    deadline: new Date(now + 3_600_000).toJSON(),
    expires: new Date(now + 86_400_000).toJSON(),
    payload: { buildername: 'runtests' },
    metadata: { name: 't', description: 'd', owner: 'a@example.com', source: 'https://example.com' },
    ...changes,
  };
}

export const newTaskId = (): string => slugid.nice();
