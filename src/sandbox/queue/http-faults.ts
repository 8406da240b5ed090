/** Makes HTTP calls go wrong as the fault rules say. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { Clock } from '../../ports.ts';
import type { Faults } from '../faults.ts';

type Outcome = Exclude<ReturnType<Faults['pickHttp']>, undefined>;

function faultBody(status: number): string {
  return JSON.stringify({ code: 'InternalServerError', message: `${status} by a fault rule` });
}

/** Installs the rules for all routes of `app`; `stopping` ends calls that hang or are slow. */
export function registerHttpFaults(
  app: FastifyInstance,
  options: { readonly faults: Faults; readonly clock: Clock; readonly stopping: AbortSignal },
): void {
  const { faults, clock, stopping } = options;
  const late = new WeakMap<FastifyReply, Outcome>();

  /** Answers whether the call is over. */
  function breakOff(outcome: Outcome, reply: FastifyReply): boolean {
    if (outcome.kind === 'reset' || outcome.kind === 'hang') {
      reply.hijack();
      if (outcome.kind === 'reset') {
        reply.raw.destroy();
      }
      return true;
    }
    return false;
  }

  app.addHook('onRequest', async (request, reply) => {
    const outcome = faults.pickHttp(request.method, request.url);
    if (outcome?.takesEffect) {
      late.set(reply, outcome);
      return;
    }
    if (!outcome || breakOff(outcome, reply)) {
      return;
    }
    if (outcome.kind === 'status') {
      await reply.code(outcome.status).type('application/json').send(faultBody(outcome.status));
    }
  });

  app.addHook('onSend', async (_request, reply, payload) => {
    const outcome = late.get(reply);
    late.delete(reply);
    if (outcome?.kind === 'slow') {
      await clock.sleep(outcome.ms, stopping);
    }
    if (outcome?.kind === 'status') {
      reply.code(outcome.status).type('application/json').removeHeader('content-length');
      return faultBody(outcome.status);
    }
    if (outcome && breakOff(outcome, reply)) {
      // The answer is never sent: with the connection gone, or left open, there is nothing more to do.
      return new Promise<never>(() => {});
    }
    return payload;
  });
}
