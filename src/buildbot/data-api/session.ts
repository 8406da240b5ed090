/** Signing in to a master. */
import got from 'got';
import { LegacyCiError, toError } from '../../errors.ts';
import { limited } from '../../foreign-answer.ts';
import type { InputCounter } from '../../ports.ts';
import type { Secret } from '../../secret.ts';
import { countIfUnreadable } from '../unreadable.ts';

export interface Session {
  readonly canSignIn: boolean;
  /** The headers of a call: none until the master has wanted a sign-in. */
  headers(): Promise<Record<string, string>>;
  /** Signs in (again); calls that come at the same time share one sign-in. @throws LegacyCiError */
  renew(): Promise<void>;
}

/** A master that speaks TLS itself has another name for it. */
const COOKIE = /^(TWISTED_(?:SECURE_)?SESSION[^=;]*=[^;]+)/;

/**
 * Reading is open on most masters, so nobody signs in before a call was refused. Basic credentials count on
 * `/auth/login` only, which answers 302 with two session cookies: the last one is the signed-in one.
 * @param url of the master's web server, without a slash at its end
 */
export function createSession(url: string, username?: string, password?: Secret, inputs?: InputCounter): Session {
  let cookie: string | undefined;
  let renewal: Promise<void> | undefined;

  async function signIn(user: string, secret: Secret): Promise<void> {
    const login = `${url}/auth/login`;
    let statusCode: number;
    let cookies: readonly string[];
    try {
      const request = got.get(login, {
        username: user,
        password: secret.reveal(),
        followRedirect: false,
        throwHttpErrors: false,
        retry: { limit: 1 },
        timeout: { request: 15_000 },
      });
      const response = await limited(request);
      statusCode = response.statusCode;
      cookies = response.headers['set-cookie'] ?? [];
    } catch (error) {
      countIfUnreadable(inputs, error);
      // Without the cause: it holds the request's options, and in them the password.
      const { message } = toError(error);
      throw new LegacyCiError('legacy-ci-unavailable', `no answer to the sign-in: ${message}`, { isTransient: true });
    }
    const given = cookies.flatMap((line) => COOKIE.exec(line)?.[1] ?? []).at(-1);
    if (statusCode === 401 || statusCode === 403) {
      throw new LegacyCiError(
        'legacy-ci-forbidden',
        'Buildbot does not take the user name and password: check legacyCi.dataApi.username and password',
        { context: { statusCode } },
      );
    }
    if (statusCode >= 400 || given === undefined) {
      // Of what stands before the master, such as a page that says that it is being maintained.
      const message = `the sign-in was answered with ${statusCode} and without a session, as by no master`;
      throw new LegacyCiError('legacy-ci-unavailable', message, { isTransient: true, context: { statusCode } });
    }
    cookie = given;
  }

  return {
    canSignIn: username !== undefined && password !== undefined,
    async headers() {
      return cookie === undefined ? {} : { cookie };
    },
    async renew() {
      if (username === undefined || password === undefined) {
        return;
      }
      renewal ??= signIn(username, password).finally(() => {
        renewal = undefined;
      });
      await renewal;
    },
  };
}
