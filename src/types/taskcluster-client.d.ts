/** What the bridge uses of taskcluster-client, which ships without types. Answers are parsed, so they are `unknown`. */
declare module 'taskcluster-client' {
  export interface ClientOptions {
    readonly rootUrl: string;
    readonly credentials?: { clientId?: string; accessToken?: string; certificate?: string };
    /** Repeats after the first try; network errors and 5xx only. */
    readonly retries?: number;
  }
  interface Page {
    readonly continuationToken?: string;
    readonly limit?: number;
  }
  export interface Queue {
    task(taskId: string): Promise<unknown>;
    status(taskId: string): Promise<unknown>;
    statuses(payload: { taskIds: string[] }, page?: Page): Promise<unknown>;
    claimTask(taskId: string, runId: number, payload: { workerGroup: string; workerId: string }): Promise<unknown>;
    reclaimTask(taskId: string, runId: number): Promise<unknown>;
    reportCompleted(taskId: string, runId: number): Promise<unknown>;
    reportFailed(taskId: string, runId: number): Promise<unknown>;
    reportException(taskId: string, runId: number, payload: { reason: string }): Promise<unknown>;
    cancelTask(taskId: string): Promise<unknown>;
    rerunTask(taskId: string): Promise<unknown>;
    createArtifact(taskId: string, runId: number, name: string, payload: object): Promise<unknown>;
    listPendingTasks(taskQueueId: string, page?: Page): Promise<unknown>;
    listClaimedTasks(taskQueueId: string, page?: Page): Promise<unknown>;
    createTask(taskId: string, payload: object): Promise<unknown>;
    getLatestArtifact(taskId: string, name: string): Promise<unknown>;
    listArtifacts(taskId: string, runId: number): Promise<unknown>;
    listLatestArtifacts(taskId: string): Promise<unknown>;
    listTaskGroup(taskGroupId: string, page?: Page): Promise<unknown>;
    quarantineWorker(
      provisionerId: string,
      workerType: string,
      workerGroup: string,
      workerId: string,
      payload: { quarantineUntil: string },
    ): Promise<unknown>;
    ping(): Promise<unknown>;
    /** Where a method of this object is: its arguments, and what of them goes into the query. */
    buildUrl(method: unknown, ...parameters: readonly (string | number | Page)[]): string;
  }
  export interface Auth {
    buildUrl(method: unknown, ...parameters: readonly (string | number)[]): string;
    expandScopes(payload: { scopes: string[] }): Promise<unknown>;
    currentScopes(): Promise<unknown>;
  }
  interface TemporaryCredentialsOptions {
    /** A name of their own; else they go by that of the client that issues them. */
    readonly clientId?: string;
    readonly start: Date;
    readonly expiry: Date;
    readonly scopes: readonly string[];
    readonly credentials: { readonly clientId: string; readonly accessToken: string };
  }
  const client: {
    createTemporaryCredentials(options: TemporaryCredentialsOptions): {
      clientId: string;
      accessToken: string;
      certificate: string;
    };
    readonly Queue: new (options: ClientOptions) => Queue;
    readonly Auth: new (options: ClientOptions) => Auth;
  };
  // biome-ignore lint/style/noDefaultExport: it is how that module exports them
  export default client;
}
