/** Self-serve (BuildAPI): the web application by which everybody at Mozilla cancelled requests and builds. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Job, JobResult, SelfServeSwitches } from './self-serve-agent.ts';
import type { SelfServeReads } from './self-serve-reads.ts';

/** Below the server's address. */
export const SELF_SERVE = '/buildapi/self-serve';

const parameters = z.object({ branch: z.string().default(''), id: z.string().default('') });

export interface SelfServeOptions {
  readonly branches: Readonly<Record<string, unknown>>;
  readonly reads: SelfServeReads;
  readonly work: (job: Job) => Promise<JobResult | undefined>;
  readonly switches: SelfServeSwitches;
  /** In seconds. */
  readonly now: () => number;
}

interface JobRow {
  readonly action: string;
  readonly who: string;
  readonly when: number;
  readonly what: Readonly<Record<string, number>>;
  completed_at: number | null;
  complete_data: { readonly request_id: number; readonly body: JobResult } | null;
}

/** A refusal, with the status it is answered with. */
class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export function registerSelfServe(
  app: FastifyInstance,
  { branches, reads, work, switches, now }: SelfServeOptions,
): void {
  const jobs: JobRow[] = [];

  /** Answers what `look` finds, as the GET calls do; DELETE calls look first, too. */
  async function found(
    request: FastifyRequest,
    what: 'Request' | 'Build',
    look: (branch: string, id: number) => Promise<object | undefined>,
  ): Promise<object> {
    const { branch, id } = parameters.parse(request.params);
    if (!Object.hasOwn(branches, branch)) {
      throw new Refusal(404, `Branch ${branch} not found`);
    }
    if (!/^-?\d+$/.test(id)) {
      throw new Refusal(request.method === 'DELETE' ? 400 : 404, `Non-integer ${what.toLowerCase()}_id`);
    }
    const isMissed = switches.missNext > 0;
    if (isMissed) {
      switches.missNext -= 1;
    }
    const seen = isMissed ? undefined : await look(branch, Number(id));
    if (seen === undefined) {
      throw new Refusal(404, `${what} ${id} not found on branch ${branch}`);
    }
    return seen;
  }

  function enqueue(job: Job): number {
    const what = { [job.action === 'cancel_request' ? 'brid' : 'bid']: job.id };
    const row: JobRow = { ...job, what, when: now(), completed_at: null, complete_data: null };
    const jobId = jobs.push(row);
    void work(job).then((body) => {
      if (body !== undefined) {
        row.completed_at = now();
        row.complete_data = { request_id: jobId, body };
      }
    });
    return jobId;
  }

  function route(method: 'GET' | 'DELETE', path: string, handle: (r: FastifyRequest) => Promise<object>): void {
    app.route({
      method,
      url: `${SELF_SERVE}${path}`,
      async handler(request, reply) {
        try {
          const answer = await handle(request);
          if (method === 'DELETE' && !wantsJson(request) && 'request_id' in answer) {
            return reply.code(302).header('location', `${SELF_SERVE}/jobs/${answer.request_id}`).send();
          }
          return show(request, reply.code(method === 'DELETE' ? 202 : 200), answer);
        } catch (error) {
          if (error instanceof Refusal) {
            return show(request, reply.code(error.status), { msg: error.message, status: 'FAILED' });
          }
          throw error;
        }
      },
    });
  }

  route('GET', '/branches', async () => branches);
  route('GET', '/jobs/:id', async (request) => {
    const { id } = parameters.parse(request.params);
    const job = jobs[Number(id) - 1];
    if (job === undefined) {
      throw new Refusal(404, `Job ${id} not found`);
    }
    const { action, who, when, completed_at, complete_data, what } = job;
    return { action, who, when, completed_at, complete_data, what };
  });
  route('GET', '/:branch/request/:id', (request) => found(request, 'Request', reads.request));
  route('GET', '/:branch/build/:id', (request) => found(request, 'Build', reads.build));
  route('DELETE', '/:branch/request/:id', (request) => cancel(request, 'cancel_request'));
  route('DELETE', '/:branch/build/:id', (request) => cancel(request, 'cancel_build'));

  async function cancel(request: FastifyRequest, action: Job['action']): Promise<object> {
    const who = request.headers['x-remote-user'];
    if (typeof who !== 'string' || who === '') {
      throw new Refusal(403, 'ACCESS DENIED!');
    }
    const isRequest = action === 'cancel_request';
    await found(request, isRequest ? 'Request' : 'Build', isRequest ? reads.request : reads.build);
    const jobId = enqueue({ action, who, id: Number(parameters.parse(request.params).id) });
    return { status: 'OK', request_id: jobId };
  }

  // Which the first bridge's client followed without knowing.
  app.addHook('onRequest', async (request, reply) => {
    const [path = '', query] = request.url.split('?');
    if (path.startsWith(SELF_SERVE) && path.endsWith('/')) {
      await reply
        .code(301)
        .header('location', path.slice(0, -1) + (query === undefined ? '' : `?${query}`))
        .send();
    }
  });
}

function wantsJson(request: FastifyRequest): boolean {
  const format = new URL(request.url, 'http://x').searchParams.get('format');
  return format === 'json' || (format === null && (request.headers.accept ?? '').includes('application/json'));
}

/** People get the same in HTML. */
function show(request: FastifyRequest, reply: FastifyReply, answer: object): FastifyReply {
  return wantsJson(request)
    ? reply.type('application/json').send(answer)
    : reply.type('text/html; charset=utf-8').send(`<pre>${JSON.stringify(answer, null, 2)}</pre>`);
}
