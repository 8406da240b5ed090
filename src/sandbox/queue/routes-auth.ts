/** What there is of the auth service. */
import { z } from 'zod';
import type { Context, Handlers } from './call.ts';
import { scope } from './formats.ts';
import { parseInput } from './task-input.ts';

const scopeset = z.strictObject({ scopes: z.array(scope) });

/** Handlers by method name. */
export function authHandlers({ auth }: Context): Handlers {
  return {
    expandScopes: (call) => ({ scopes: auth.expand(parseInput(scopeset, call.body, call.schemaUrl).scopes) }),
    currentScopes: (call) => ({ scopes: call.scopes }),
  };
}
