/** A master's own web pages: JSON, logs, sign-in and the buttons that stop and cancel; as seen on a real 0.8.12. */
import { randomBytes } from 'node:crypto';
import formBody from 'node:querystring';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { logsOf, type StepLog } from './builds.ts';
import type { ClassicMaster } from './master.ts';
import type { ClassicBuildbotOptions } from './options.ts';
import { builderJson, buildJson, withoutEmpty } from './web-json.ts';

const DAY_MS = 24 * 3600_000;
const NO_SUCH_RESOURCE =
  '\n<html>\n  <head><title>404 - No Such Resource</title></head>\n  <body>\n    <h1>No Such Resource</h1>\n    <p>No such child resource.</p>\n  </body>\n</html>\n';

const parameters = z.object({
  builder: z.string().default(''),
  number: z.coerce.number().int().catch(-1).default(-1),
  step: z.string().default(''),
  log: z.string().default(''),
});
const form = z.record(
  z.string(),
  z.union([z.string(), z.array(z.string())]).transform((value) => [value].flat()[0]),
);

export interface WebStatusOptions {
  readonly master: ClassicMaster;
  readonly settings: ClassicBuildbotOptions;
  readonly url: () => string;
  /** The unclaimed requests of a builder. */
  readonly pendingOf: (builder: string) => Promise<readonly number[]>;
}

export function registerWebStatus(app: FastifyInstance, { master, settings, url, pendingOf }: WebStatusOptions): void {
  const { clock, auth, builders, schema } = settings;
  const sessions = new Map<string, number>();
  const builderOf = (name: string) => builders.find((builder) => builder.name === name);
  const paramsOf = (request: FastifyRequest) => parameters.parse(request.params);
  const buildOf = (request: FastifyRequest) => master.find(paramsOf(request).builder, paramsOf(request).number);
  const logOf = (request: FastifyRequest): StepLog | undefined => {
    const build = buildOf(request);
    const { step, log } = paramsOf(request);
    return build && logsOf(build).find((one) => one.step === step && one.name === log);
  };

  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) =>
    done(null, formBody.parse(String(body))),
  );
  app.setNotFoundHandler((_request, reply) => missing(reply));

  function isAllowed(request: FastifyRequest): boolean {
    const [, session = ''] = /BuildBotSession=([^;]+)/.exec(request.headers.cookie ?? '') ?? [];
    return auth === undefined || (sessions.get(session) ?? 0) > clock.now();
  }

  const describe = async (name: string) => {
    const builder = builderOf(name);
    return builder && builderJson(builder, master, (await pendingOf(name)).length);
  };

  app.get('/json/builders', async (request, reply) => {
    const all: Record<string, unknown> = {};
    for (const name of builders.map((builder) => builder.name).sort()) {
      const json = (await describe(name)) ?? {};
      all[name] = queryOf(request).has('as_text') || queryOf(request).has('filter') ? withoutEmpty(json) : json;
    }
    return json(reply, all);
  });
  app.get('/json/builders/:builder', async (request, reply) => {
    const found = await describe(paramsOf(request).builder);
    return found ? json(reply, found) : missing(reply);
  });
  app.get('/json/builders/:builder/builds', async (request, reply) => {
    const { builder } = paramsOf(request);
    if (!builderOf(builder)) {
      return missing(reply);
    }
    const wanted = queryOf(request).getAll('select');
    // Without a choice it answers all that it has in memory.
    const numbers = wanted.length > 0 ? wanted : master.buildsOf(builder).map(({ number }) => number);
    const found = numbers.flatMap((number) => master.find(builder, Number(number)) ?? []);
    return json(reply, Object.fromEntries(found.map((build) => [build.number, buildJson(build, schema, url())])));
  });
  app.get('/json/builders/:builder/builds/:number', async (request, reply) => {
    const build = buildOf(request);
    return build ? json(reply, buildJson(build, schema, url())) : missing(reply);
  });
  app.get('/builders/:builder/builds/:number/steps/:step/logs/:log', async (request, reply) => {
    const found = logOf(request);
    if (found === undefined) {
      return missing(reply);
    }
    return reply.type('text/html; charset=utf-8').send(found.isHtml ? found.text : `<pre>${found.text}</pre>`);
  });
  app.get('/builders/:builder/builds/:number/steps/:step/logs/:log/text', async (request, reply) => {
    const found = logOf(request);
    // What is HTML has no other form: a child of it is not found (status/web/logs.py).
    return found === undefined || found.isHtml
      ? missing(reply)
      : reply.type('text/plain; charset=utf-8').send(found.text);
  });

  app.post('/builders/:builder/builds/:number/stop', async (request, reply) => {
    const build = buildOf(request);
    if (build === undefined) {
      return missing(reply);
    }
    if (!isAllowed(request)) {
      return redirect(reply, '../../../../authzfail');
    }
    void master.stopBuild(build.builder.name, build.number);
    return redirect(reply, `../../../../builders/${encodeURIComponent(build.builder.name)}`);
  });
  app.post('/builders/:builder/cancelbuild', async (request, reply) => {
    const { builder } = paramsOf(request);
    if (!builderOf(builder)) {
      return missing(reply);
    }
    const brid = Number(formOf(request).id);
    if (isAllowed(request) && (await pendingOf(builder)).includes(brid)) {
      await master.cancelRequest(brid);
    }
    // The same answer whether something was cancelled, nothing was there, or nobody may: only the database tells.
    return redirect(reply, `../../builders/${encodeURIComponent(builder)}`);
  });
  app.post('/login', async (request, reply) => {
    const { username, passwd } = formOf(request);
    if (auth === undefined || username !== auth.username || passwd !== auth.password) {
      return redirect(reply, './authfail');
    }
    const session = randomBytes(16).toString('hex');
    const expires = clock.now() + DAY_MS;
    sessions.set(session, expires);
    reply.header('set-cookie', `BuildBotSession=${session}; Expires=${cookieTime(expires)}; Path=/`);
    return redirect(reply, request.headers.referer ?? './');
  });
}

function queryOf(request: FastifyRequest): URLSearchParams {
  return new URL(request.url, 'http://x').searchParams;
}

function formOf(request: FastifyRequest): Readonly<Record<string, string | undefined>> {
  return form.safeParse(request.body ?? {}).data ?? {};
}

function json(reply: FastifyReply, value: unknown): FastifyReply {
  return reply.header('content-type', 'application/json').serializer(String).send(JSON.stringify(value));
}

function missing(reply: FastifyReply): FastifyReply {
  return reply.code(404).type('text/html; charset=utf-8').send(NO_SUCH_RESOURCE);
}

function redirect(reply: FastifyReply, location: string): FastifyReply {
  return reply.code(302).header('location', location).send();
}

/** Such as `Tue, 24-Nov-2026 21:59:10 GMT`. */
function cookieTime(ms: number): string {
  const [day = '', date = '', month = '', year = '', time = ''] = new Date(ms).toUTCString().split(' ');
  return `${day} ${date}-${month}-${year} ${time} GMT`;
}
