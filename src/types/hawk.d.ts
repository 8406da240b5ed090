/** What is used of hawk, which ships without types: the bridge signs, and the emulated queue checks. */
declare module 'hawk' {
  import type { IncomingMessage } from 'node:http';

  interface Credentials {
    readonly key: string;
    readonly algorithm: 'sha256';
  }
  type Lookup = (id: string) => Promise<Credentials | null>;
  export const client: {
    /**
     * Signs a request.
     * @param options.timestamp seconds; the machine's time unless given
     * @param options.ext what the service is told beside, such as a certificate
     */
    header(
      uri: string,
      method: string,
      options: {
        readonly credentials: Credentials & { readonly id: string };
        readonly timestamp?: number;
        readonly ext?: string;
      },
    ): { readonly header: string };
  };
  export const server: {
    authenticate(request: IncomingMessage, lookup: Lookup, options?: object): Promise<unknown>;
    authenticateBewit(request: IncomingMessage, lookup: Lookup, options?: object): Promise<unknown>;
  };
}
