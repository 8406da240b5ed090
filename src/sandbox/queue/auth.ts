/** Who calls, and what they may do: Hawk signatures, temporary credentials, scopes. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import * as hawk from 'hawk';
import taskcluster from 'taskcluster-client';
import { removeGivenScopes, satisfiesExpression } from 'taskcluster-lib-scopes';
import { checkCertificate, type Ext, parseExt } from './certificates.ts';
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

/** The queue's own client, which issues the credentials of claims. */
const QUEUE_CLIENT = 'static/taskcluster/queue';

/** Hawk's `ext`, of the header or of a signed URL. */
function extOf(request: IncomingMessage): string | undefined {
  const [, bewit] = /[?&]bewit=([^&]*)/.exec(request.url ?? '') ?? [];
  return bewit === undefined
    ? /ext="([^"]*)"/.exec(request.headers.authorization ?? '')?.[1]
    : Buffer.from(bewit, 'base64url').toString('utf8').split('\\')[3];
}

/** @param options.now UTC milliseconds, to tell when temporary credentials are over */
export function createAuth(options: {
  readonly clients: readonly Client[];
  readonly roles: Roles;
  /** Those of a task, for its temporary credentials. */
  taskScopes(taskId: string): readonly string[];
  now(): number;
}): Auth {
  const own: Client = { clientId: QUEUE_CLIENT, accessToken: randomBytes(32).toString('base64url'), scopes: ['*'] };
  const clients = new Map([own, ...options.clients].map((client) => [client.clientId, client]));
  const expand = (scopes: readonly string[]) => expandScopes(scopes, options.roles);

  /** Throws, in words for the caller, where the credentials are no good. */
  function load(clientId: string, ext: Ext): { readonly accessToken: string; readonly scopes: string[] } {
    const { certificate, authorizedScopes } = ext;
    const issuerId = certificate?.issuer ?? clientId;
    const client = clients.get(issuerId);
    if (!client) {
      throw new Error(`Client with clientId '${issuerId}' not found`);
    }
    const issuer = { ...client, scopes: expand([...client.scopes, `assume:client-id:${issuerId}`]) };
    const accessToken = certificate
      ? checkCertificate(certificate, clientId, issuer, options.now())
      : client.accessToken;
    const scopes = expand([...(certificate?.scopes ?? issuer.scopes), 'assume:anonymous']);
    if (!authorizedScopes) {
      return { accessToken, scopes };
    }
    if (!satisfiesExpression(scopes, { AllOf: [...authorizedScopes] })) {
      throw new Error('Supplied credentials do not satisfy authorizedScopes');
    }
    return { accessToken, scopes: expand([...authorizedScopes, 'assume:anonymous']) };
  }

  return {
    expand,
    async authenticate(request) {
      const hasBewit = /[?&]bewit=/.test(request.url ?? '');
      if (request.headers.authorization === undefined && !hasBewit) {
        return { kind: 'known', scopes: expand(['assume:anonymous']) };
      }
      let caller: Caller = { kind: 'refused', why: 'Unauthorized' };
      const lookup = async (clientId: string) => {
        const { accessToken, scopes } = load(clientId, parseExt(extOf(request)));
        caller = { kind: 'known', clientId, scopes };
        return { key: accessToken, algorithm: 'sha256' as const };
      };
      try {
        // As much as Taskcluster allows for clients' clocks.
        const rules = { timestampSkewSec: 15 * 60 };
        await (hasBewit
          ? hawk.server.authenticateBewit(request, lookup)
          : hawk.server.authenticate(request, lookup, rules));
        return caller;
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        const isHawks = error instanceof Error && 'isBoom' in error;
        return { kind: 'refused', why: isHawks ? `Unauthorized: ${text}` : text };
      }
    },
    taskCredentials({ taskId, runId, workerGroup, workerId, takenUntil }) {
      const verbs = ['reclaim-task', 'resolve-task', 'create-artifact'];
      return taskcluster.createTemporaryCredentials({
        clientId: `task-client/${taskId}/${runId}/on/${workerGroup}/${workerId}/until/${takenUntil / 1000}`,
        start: new Date(options.now()),
        expiry: new Date(takenUntil),
        scopes: [...verbs.map((verb) => `queue:${verb}:${taskId}/${runId}`), ...options.taskScopes(taskId)],
        credentials: { clientId: own.clientId, accessToken: own.accessToken },
      });
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
  // Of a caller without credentials it is not said what is missing.
  const show = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));
  if (caller.clientId === undefined) {
    throw new ApiError(
      'InsufficientScopes',
      `This request requires Taskcluster credentials that satisfy the following scope expression:\n\n` +
        `\`\`\`\n${show(required)}\n\`\`\``,
    );
  }
  throw new ApiError(
    'InsufficientScopes',
    `Client ID ${caller.clientId} does not have sufficient scopes and is missing the following scopes:\n\n` +
      `\`\`\`\n${show(removeGivenScopes(caller.scopes, required))}\n\`\`\`\n\n` +
      `This request requires the client to satisfy the following scope expression:\n\n\`\`\`\n${show(required)}\n\`\`\``,
  );
}
