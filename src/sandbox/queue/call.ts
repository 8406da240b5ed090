/** What a method's handler gets to see of a call. */
import type { FastifyReply } from 'fastify';
import type { ArtifactStore } from './artifacts.ts';
import type { Auth } from './auth.ts';
import type { BlobStore } from './blobs.ts';
import type { ScopeParams } from './scopes.ts';
import type { QueueState } from './state.ts';

/** One call of a method. */
export interface Call {
  /** From the URL. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, string>>;
  /** Parsed JSON; `{}` where there is none. */
  readonly body: unknown;
  /** UTC milliseconds. */
  readonly now: number;
  /** The JSON schema that the body has to follow, for error messages. */
  readonly schemaUrl: string;
  /** The caller's scopes, expanded. */
  readonly scopes: readonly string[];
  /** For answers that are not plain JSON with status 200. */
  readonly reply: FastifyReply;
  /**
   * Checks the method's scopes, with these values beside the URL's. Called for the handler where the URL says it all.
   * @throws ApiError
   */
  authorize(params: ScopeParams): void;
}

/** Answers the body, or the reply that was sent; at once, so that its messages are told from those of other calls. */
export type Handler = (call: Call) => unknown;
export type Handlers = Readonly<Record<string, Handler>>;

/** What handlers work on. */
export interface Context {
  readonly state: QueueState;
  readonly artifacts: ArtifactStore;
  readonly blobs: BlobStore;
  readonly auth: Auth;
  rootUrl(): string;
}

/** A parameter of the URL. */
export function param(call: Call, name: string): string {
  const value = call.params[name];
  if (value === undefined) {
    throw new Error(`the route has no parameter ${name}`);
  }
  return value;
}

/** The run that the URL names. */
export function runIdOf(call: Call): number {
  return Number(param(call, 'runId'));
}
