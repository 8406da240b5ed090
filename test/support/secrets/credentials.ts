/** Taskcluster credentials that are planted. */
import taskcluster from 'taskcluster-client';
import { z } from 'zod';
import { type Planted, plant } from './marks.ts';

export interface Credentials {
  /** As the bridge is given them. */
  readonly given: { readonly clientId: string; readonly accessToken: string; readonly certificate?: string };
  /** Whom the queue has to know. */
  readonly client: { readonly clientId: string; readonly accessToken: string };
  readonly secrets: readonly Planted[];
}

const CLIENT_ID = 'project/bridge';

export function permanent(): Credentials {
  const token = plant('access-token');
  const client = { clientId: CLIENT_ID, accessToken: token.value };
  return { given: client, client, secrets: [token] };
}

/** Such as somebody makes for the bridge out of their own ones, which it never sees. */
export function temporary(scopes: readonly string[]): Credentials {
  const client = { clientId: CLIENT_ID, accessToken: plant('issuer').value };
  const { accessToken, certificate } = taskcluster.createTemporaryCredentials({
    ...{ start: new Date(Date.now() - 60_000), expiry: new Date(Date.now() + 3_600_000), scopes },
    credentials: client,
  });
  const { seed, signature } = z.object({ seed: z.string(), signature: z.string() }).parse(JSON.parse(certificate));
  return {
    given: { clientId: CLIENT_ID, accessToken, certificate },
    client,
    secrets: [
      { name: 'access token', value: accessToken, mark: accessToken },
      { name: 'certificate', value: certificate, mark: seed },
      { name: 'signature', value: signature, mark: signature },
    ],
  };
}
