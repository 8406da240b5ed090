/** The emulated REST API: reads with filters, and control calls. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { describeScheduler, ForceError, type ForceSchedulerOptions, toForceRequest } from './force.ts';
import type { Master } from './master.ts';
import type { BuildbotVersion } from './state.ts';

export interface RoutesOptions {
  readonly master: Master;
  readonly schedulers: readonly ForceSchedulerOptions[];
  readonly version: BuildbotVersion;
  /** Whether the call may control; control calls of others are 403. */
  readonly mayControl: (request: FastifyRequest) => boolean;
}

type Row = Readonly<Record<string, unknown>>;

const rpc = z.object({
  id: z.union([z.int(), z.string()]),
  method: z.string(),
  params: z.record(z.string(), z.unknown()).default({}),
});
const idParameter = z.object({ id: z.coerce.number().int() });
const nameParameter = z.object({ name: z.string() });

export function registerRoutes(app: FastifyInstance, options: RoutesOptions): void {
  const { master, schedulers } = options;
  const { state } = master;
  const hasPriority = options.version === '4.3';
  const idOf = (request: FastifyRequest) => idParameter.parse(request.params).id;

  const builders = () =>
    master.builders().map(({ builderid, name }) => ({ builderid, description: null, masterids: [1], name, tags: [] }));
  const workers = () =>
    master.workers().map(({ workerid, name, isConnected }) => ({
      workerid,
      name,
      connected_to: isConnected ? [{ masterid: 1 }] : [],
      configured_on: [],
      paused: false,
      graceful: false,
      workerinfo: {},
    }));
  const withProperties = (request: FastifyRequest, row: Row, found: object | undefined): Row =>
    String(request.query && new URL(request.url, 'http://x').searchParams.get('property')) === 'null'
      ? row
      : { ...row, properties: pick(found ?? {}, new URL(request.url, 'http://x').searchParams.getAll('property')) };

  const collection = (path: string, key: string, rows: (request: FastifyRequest) => readonly Row[]) =>
    app.get(path, async (request, reply) => {
      const query = new URL(request.url, 'http://x').searchParams;
      const unknown = [...query.keys()].find((name) => !isFilterKnown(name, options.version));
      if (unknown !== undefined && options.version === '2.5') {
        return plain(reply.code(400), { error: `unrecognized query parameter '${unknown}'` });
      }
      if (unknown !== undefined) {
        // Read in its source: dropped without a word.
        query.delete(unknown);
      }
      if (key === 'builds' && query.getAll('buildrequestid__eq').length > 1) {
        // As recorded: of several the builds' endpoint drops all, and answers every build.
        query.delete('buildrequestid__eq');
      }
      const selected = select(rows(request), query);
      return plain(reply, { [key]: selected, meta: { total: selected.length } });
    });
  const single = (path: string, key: string, find: (id: number) => Row | undefined) =>
    app.get(path, async (request, reply) => {
      const row = find(idOf(request));
      return row === undefined
        ? plain(reply.code(404), { error: `Invalid path: ${request.url}` })
        : plain(reply, { [key]: [row], meta: {} });
    });
  const requestRows = (request: FastifyRequest) =>
    state.requests.map((row) => withProperties(request, { ...row }, state.buildsetProperties.get(row.buildsetid)));
  const buildRows = (request: FastifyRequest) =>
    state.builds.map((row) => withProperties(request, { ...row }, state.buildProperties.get(row.buildid)));

  collection('/api/v2/buildrequests', 'buildrequests', requestRows);
  collection('/api/v2/builds', 'builds', buildRows);
  collection('/api/v2/buildsets', 'buildsets', () => state.buildsets.map((row) => ({ ...row })));
  collection('/api/v2/builders', 'builders', builders);
  collection('/api/v2/workers', 'workers', workers);
  collection('/api/v2/masters', 'masters', () => [
    { active: true, last_active: 0, masterid: 1, name: 'sandbox:/srv/buildbot/master' },
  ]);
  app.get('/api/v2/forceschedulers', async (_request, reply) => {
    const forceschedulers = schedulers.map((scheduler) => describeScheduler(scheduler, hasPriority));
    return plain(reply, { forceschedulers, meta: { total: forceschedulers.length } });
  });
  single('/api/v2/buildrequests/:id', 'buildrequests', (id) => asRow(state.requests[id - 1]));
  single('/api/v2/builds/:id', 'builds', (id) => asRow(state.builds[id - 1]));
  single('/api/v2/buildsets/:id', 'buildsets', (id) => asRow(state.buildsets[id - 1]));
  single('/api/v2/builders/:id', 'builders', (id) => builders()[id - 1]);
  collection('/api/v2/buildrequests/:id/builds', 'builds', (request) =>
    buildRows(request).filter((row) => row.buildrequestid === idOf(request)),
  );
  collection('/api/v2/builds/:id/steps', 'steps', (request) =>
    state.steps.filter(({ buildid }) => buildid === idOf(request)).map((row) => ({ ...row })),
  );
  collection('/api/v2/steps/:id/logs', 'logs', (request) =>
    state.logs.filter(({ stepid }) => stepid === idOf(request)).map((row) => ({ ...row })),
  );
  collection('/api/v2/builds/:id/properties', 'properties', (request) => [
    state.buildProperties.get(idOf(request)) ?? {},
  ]);
  app.get('/api/v2/logs/:id/raw', async (request, reply) => {
    const text = state.logTexts.get(idOf(request));
    return text === undefined ? reply.code(404).send('Invalid path') : reply.type('text/plain').send(text);
  });

  app.get('/api/v2/logs/:id/contents', async (request, reply) => {
    const log = state.logs.find(({ logid }) => logid === idOf(request));
    if (log === undefined) {
      return plain(reply.code(404), { error: `Invalid path: ${request.url}` });
    }
    const text = state.logTexts.get(log.logid) ?? '';
    // Each line of a command's says which of its outputs it came by.
    const content = log.type === 's' ? text.replace(/^(?=.)/gm, 'o') : text;
    return plain(reply, { logchunks: [{ logid: log.logid, firstline: 0, content }], meta: {} });
  });

  const control = (path: string, work: (request: FastifyRequest, method: string, params: Row) => unknown) =>
    app.post(path, async (request, reply) => {
      const call = rpc.safeParse(request.body);
      if (!call.success) {
        return plain(reply.code(400), {
          jsonrpc: '2.0',
          id: null,
          error: { code: -32600, message: 'invalid request' },
        });
      }
      const { id, method, params } = call.data;
      if (!options.mayControl(request)) {
        const message = "you need to have role 'admins'";
        return plain(reply.code(403), { jsonrpc: '2.0', id, error: { code: -32600, message } });
      }
      try {
        return plain(reply, { id, jsonrpc: '2.0', result: work(request, method, params) ?? null });
      } catch (error) {
        if (error instanceof ForceError) {
          const code = error.status === 400 ? -32602 : -32603;
          return plain(reply.code(error.status), { jsonrpc: '2.0', id, error: { code, message: error.rpcMessage } });
        }
        throw error;
      }
    });
  control('/api/v2/forceschedulers/:name', (request, _method, params) => {
    const { name } = nameParameter.parse(request.params);
    const wish = toForceRequest(
      schedulers.find((scheduler) => scheduler.name === name),
      params,
    );
    const made = master.force(hasPriority ? wish : { ...wish, priority: 0 });
    return [made.bsid, { [made.builderid]: made.buildrequestid }];
  });
  control('/api/v2/buildrequests/:id', (request, method, params) => {
    if (method === 'cancel') {
      master.cancelRequest(idOf(request), reasonOf(params));
    }
    return null;
  });
  control('/api/v2/builds/:id', (request, method, params) => {
    if (method === 'stop') {
      master.stopBuild(idOf(request), reasonOf(params));
    }
    return null;
  });
}

function isFilterKnown(name: string, version: BuildbotVersion): boolean {
  return !name.endsWith('__in') || version === '3.7' || version === '4.3';
}

function reasonOf(params: Row): string {
  return typeof params.reason === 'string' ? params.reason : 'no reason';
}

function asRow(record: object | undefined): Row | undefined {
  return record === undefined ? undefined : { ...record };
}

/** Buildbot calls its JSON text. */
function plain(reply: FastifyReply, value: unknown): FastifyReply {
  return reply.type('text/plain; charset=utf-8').send(JSON.stringify(value));
}

function pick(properties: object, names: readonly string[]): object {
  return names.includes('*')
    ? properties
    : Object.fromEntries(Object.entries(properties).filter(([name]) => names.includes(name)));
}

/** Buildbot's query language, as far as the bridge and its users need it. */
export function select(rows: readonly Row[], query: URLSearchParams): readonly Row[] {
  const order = query.get('order');
  const filtered = rows.filter((row) =>
    [...new Set(query.keys())].every((key) => matches(row, key, query.getAll(key))),
  );
  const sorted = order === null ? filtered : sortBy(filtered, order);
  const offset = Number(query.get('offset') ?? 0);
  const limit = Number(query.get('limit') ?? sorted.length);
  return sorted.slice(offset, offset + limit);
}

function matches(row: Row, key: string, wanted: readonly string[]): boolean {
  if (['order', 'limit', 'offset', 'property', 'field'].includes(key)) {
    return true;
  }
  const [field = '', operator = 'eq'] = key.split('__');
  const value = row[field];
  switch (operator) {
    case 'eq':
    case 'in':
      return wanted.some((text) => asFilter(value) === text);
    case 'contains':
      return wanted.some((text) => String(value).includes(text));
    default:
      return true;
  }
}

function asFilter(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function sortBy(rows: readonly Row[], order: string): readonly Row[] {
  const isDescending = order.startsWith('-');
  const field = isDescending ? order.slice(1) : order;
  return [...rows].sort((a, b) => (Number(a[field]) - Number(b[field])) * (isDescending ? -1 : 1));
}
