/** What the scenarios need of a legacy CI, whichever it is; each back end implements it on its own servers. */

export interface LegacyRequest {
  readonly buildRequestId: number;
  readonly isComplete: boolean;
}

export interface LegacyBuild {
  /** Buildbot's code; null while the build runs. */
  readonly results: number | null;
}

export interface LegacySide {
  readonly kind: 'data-api' | 'mozilla' | 'stock';
  /** What is different from one legacy CI to the next, where a scenario has to know. */
  readonly ways: LegacyWays;
  /** The server that its `legacyCi` section leads to, and all that it says of its address. */
  readonly url: string;
  /** The daemon's `legacyCi` section. */
  readonly config: object;
  /** Where that leads to beside the server: Self-serve and the list of builders of Mozilla's site. */
  readonly site?: { readonly selfServeUrl: string; readonly buildersUrl: string };
  /** All build requests of a task, oldest first. */
  requests(taskId: string): Promise<readonly LegacyRequest[]>;
  /** All builds of a task, oldest first. */
  builds(taskId: string): Promise<readonly LegacyBuild[]>;
  /** Waits until so many `slow` builds of a task have begun, and the last of them can be interrupted. */
  begun(taskId: string, count: number): Promise<void>;
  /** Lets the `slow` build of a task end well. */
  finish(taskId: string): Promise<void>;
  /** As a person does it, on Buildbot's page. */
  cancelRequest(taskId: string): Promise<void>;
  stopBuild(taskId: string): Promise<void>;
  /** As an operator stops it. */
  stopMaster(): Promise<void>;
  killMaster(): Promise<void>;
  startMaster(): Promise<void>;
  /** The build that it was at is lost. */
  killWorker(): Promise<void>;
  startWorker(): Promise<void>;
  /**
   * Holds the daemon's next submission: before the legacy CI gets it, or after it took effect and before the daemon
   * hears of it.
   */
  holdSubmission(when: 'request' | 'answer'): { readonly reached: Promise<void> };
  /** The daemon can no longer reach the legacy CI. */
  cut(): void;
  /** What is held is cut off, and everything passes again. */
  release(): void;
  stop(): Promise<void>;
}

/** Which of the bridge's services run. */
export interface LegacyCast {
  /** Whether the legacy listener does. */
  readonly hasListener: boolean;
  /** Of the broker, with all rights. */
  readonly pulseUrl: string;
}

export interface LegacyWays {
  /** The code of a running build that was stopped. */
  readonly stopped: number;
  /** What a master that is stopped in good order makes of a running build, and how many requests the task then has. */
  readonly masterStopped: { readonly results: number; readonly requests: number };
  /** Every artifact of a run that was built. */
  readonly artifacts: readonly string[];
  /** The source of properties that the bridge has set. */
  readonly source: string;
  /** Where the log of a build is: stored with the task, or elsewhere, where the task leads to; or nobody knows. */
  readonly log: 'stored' | 'elsewhere' | 'none';
  /** Payloads that only this legacy CI refuses, and words of the task's log. */
  readonly refused: readonly (readonly [unknown, string])[];
}
