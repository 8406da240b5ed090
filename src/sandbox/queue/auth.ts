/** Who calls, and what they may do: Hawk signatures, temporary credentials of tasks, scopes. */
import { createHmac, randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import * as hawk from 'hawk';
import { removeGivenScopes, satisfiesExpression } from 'taskcluster-lib-scopes';
import { z } from 'zod';
import { ApiError } from './errors.ts';
import type { ScopeTemplate } from './reference.ts';
import type { Roles, ScopeParams } from './scopes.ts';
import { expandScopes, renderTemplate } from './scopes.ts';

/** A client as auth knows it; its scopes may be patterns (`*`) and roles (`assume:`). */
export interface Client {
  readonly clientId: string;
  readonly accessToken: string;
  readonly scopes: readonly string[];
}

/** Who makes a call. Where the credentials are no good, that is said only when scopes are needed, as in the real queue. */
export type Caller =
  /** `clientId` is absent for a call without credentials, which has the role `anonymous`. */
  | { readonly kind: 'known'; readonly clientId?: string; readonly scopes: string[] }
  | { readonly kind: 'refused'; readonly why: string };

/** A claim that gets its own credentials. */
export interface ClaimedRun {
  readonly taskId: string;
  readonly runId: number;
  readonly workerGroup: string;
  readonly workerId: string;
  readonly takenUntil: number;
}

/** Auth, as far as the queue needs it. */
export interface Auth {
  authenticate(request: IncomingMessage): Promise<Caller>;
  /** The temporary credentials that a worker gets with a claim. */
  taskCredentials(claim: ClaimedRun): { clientId: string; accessToken: string; certificate: string };
  expand(scopes: readonly string[]): string[];
  setScopes(clientId: string, scopes: readonly string[]): void;
}

const extSchema = z.object({ authorizedScopes: z.array(z.string()).optional() });

/** Scopes that a request limits itself to, from Hawk's `ext`. */
function authorizedScopes(ext: string | undefined): readonly string[] | undefined {
  if (!ext) {
    return undefined;
  }
  return extSchema.parse(JSON.parse(Buffer.from(ext, 'base64').toString('utf8'))).authorizedScopes;
}

const TASK_CLIENT = /^task-client\/([\w-]{22})\/(\d+)\/on\/.*\/until\/(\d+)$/;

/**
 * @param options.taskScopes the scopes of a task, for its temporary credentials
 * @param options.now UTC milliseconds, to tell when temporary credentials are over
 */
export function createAuth(options: {
  readonly clients: readonly Client[];
  readonly roles: Roles;
  taskScopes(taskId: string): readonly string[];
  now(): number;
}): Auth {
  const clients = new Map(options.clients.map((client) => [client.clientId, client]));
  const secret = randomBytes(32);

  const tokenOf = (clientId: string) => createHmac('sha256', secret).update(clientId).digest('base64url');
  const expand = (scopes: readonly string[]) => expandScopes(scopes, options.roles);

  /** Task clients are not stored: all there is to know is in their id, and the token is derived from it. */
  function taskClient(clientId: string): Client | undefined {
    const [, taskId, runId, until] = TASK_CLIENT.exec(clientId) ?? [];
    if (taskId === undefined || Number(until) < options.now()) {
      return undefined;
    }
    const own = ['reclaim-task', 'resolve-task', 'create-artifact'].map((verb) => `queue:${verb}:${taskId}/${runId}`);
    return { clientId, accessToken: tokenOf(clientId), scopes: [...own, ...options.taskScopes(taskId)] };
  }

  const find = (clientId: string) => clients.get(clientId) ?? taskClient(clientId);

  async function lookup(clientId: string) {
    const client = find(clientId);
    if (!client) {
      throw new Error('No such clientId');
    }
    return { key: client.accessToken, algorithm: 'sha256' as const };
  }

  function scopesOf(client: Client, ext: string | undefined): Caller {
    const scopes = expand([...client.scopes, `assume:client-id:${client.clientId}`, 'assume:anonymous']);
    const limited = authorizedScopes(ext);
    if (!limited) {
      return { kind: 'known', clientId: client.clientId, scopes };
    }
    if (!satisfiesExpression(scopes, { AllOf: [...limited] })) {
      return { kind: 'refused', why: 'ext.authorizedScopes oversteps your scopes' };
    }
    return { kind: 'known', clientId: client.clientId, scopes: expand([...limited, 'assume:anonymous']) };
  }

  return {
    expand,
    async authenticate(request) {
      const hasBewit = /[?&]bewit=/.test(request.url ?? '');
      if (request.headers.authorization === undefined && !hasBewit) {
        return { kind: 'known', scopes: expand(['assume:anonymous']) };
      }
      try {
        const { artifacts, attributes } = hasBewit
          ? await hawk.server.authenticateBewit(request, lookup)
          : await hawk.server.authenticate(request, lookup);
        // Hawk calls them attributes in a signed URL, artifacts in a header.
        const { id = '', ext } = artifacts ?? attributes ?? {};
        const client = find(id);
        return client ? scopesOf(client, ext) : { kind: 'refused', why: 'No such clientId' };
      } catch (error) {
        return { kind: 'refused', why: error instanceof Error ? error.message : String(error) };
      }
    },
    taskCredentials({ taskId, runId, workerGroup, workerId, takenUntil }) {
      const clientId = `task-client/${taskId}/${runId}/on/${workerGroup}/${workerId}/until/${takenUntil}`;
      // Clients send the certificate along unread; the emulator needs no more than the id.
      const certificate = JSON.stringify({ version: 1, expiry: takenUntil, issuer: 'queue' });
      return { clientId, accessToken: tokenOf(clientId), certificate };
    },
    setScopes(clientId, scopes) {
      const client = clients.get(clientId);
      if (!client) {
        throw new Error(`no client ${clientId}`);
      }
      clients.set(clientId, { ...client, scopes });
    },
  };
}

/**
 * Lets the call pass or refuses it.
 * @throws ApiError `AuthenticationFailed` or `InsufficientScopes`
 */
export function authorize(caller: Caller, template: ScopeTemplate, params: ScopeParams): void {
  if (caller.kind === 'refused') {
    throw new ApiError('AuthenticationFailed', caller.why);
  }
  const required = renderTemplate(template, params);
  if (satisfiesExpression(caller.scopes, required)) {
    return;
  }
  const show = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));
  throw new ApiError(
    'InsufficientScopes',
    `Client ID ${caller.clientId} does not have sufficient scopes and is missing the following scopes:\n\n` +
      `\`\`\`\n${show(removeGivenScopes(caller.scopes, required))}\n\`\`\`\n\n` +
      `This request requires the client to satisfy the following scope expression:\n\n\`\`\`\n${show(required)}\n\`\`\``,
  );
}
