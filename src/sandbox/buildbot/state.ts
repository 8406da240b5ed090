/** What a master remembers, as its API shows it. Times are whole seconds, as everywhere in Buildbot. */

/** 2.5 and 3.3 stand for what is before 2.6 and before 3.4: neither has filters `in`, nor says why a build was cancelled. */
export type BuildbotVersion = '2.5' | '3.3' | '3.7' | '4.3';

export interface BuildsetRecord {
  readonly bsid: number;
  readonly external_idstring: null;
  readonly reason: string;
  readonly submitted_at: number;
  complete: boolean;
  complete_at: number | null;
  results: number | null;
  readonly sourcestamps: readonly SourcestampRecord[];
  readonly parent_buildid: null;
  readonly parent_relationship: null;
}

export interface SourcestampRecord {
  readonly ssid: number;
  readonly branch: string | null;
  readonly revision: string | null;
  readonly project: string;
  readonly repository: string;
  readonly codebase: string;
  readonly created_at: number;
  readonly patch: null;
}

export interface RequestRecord {
  readonly buildrequestid: number;
  readonly buildsetid: number;
  readonly builderid: number;
  readonly priority: number;
  claimed: boolean;
  claimed_at: number | null;
  claimed_by_masterid: number | null;
  complete: boolean;
  /** -1 while open. */
  results: number;
  readonly submitted_at: number;
  complete_at: number | null;
  readonly waited_for: boolean;
  readonly properties: null;
}

export interface BuildRecord {
  readonly buildid: number;
  readonly number: number;
  readonly builderid: number;
  readonly buildrequestid: number;
  readonly workerid: number;
  readonly masterid: number;
  readonly started_at: number;
  complete_at: number | null;
  complete: boolean;
  state_string: string;
  results: number | null;
  readonly properties: Readonly<Record<string, never>>;
}

export interface StepRecord {
  readonly stepid: number;
  readonly buildid: number;
  readonly number: number;
  readonly name: string;
  readonly started_at: number;
  complete_at: number | null;
  complete: boolean;
  state_string: string;
  results: number | null;
  readonly hidden: boolean;
  readonly urls: readonly never[];
}

export interface LogRecord {
  readonly logid: number;
  readonly stepid: number;
  readonly name: string;
  readonly slug: string;
  /** Of a command, or a text. */
  readonly type: 's' | 't';
  complete: boolean;
  num_lines: number;
}

/** `[value, source]`, by name. */
export type Properties = Record<string, readonly [unknown, string]>;

/** Everything that survives a restart of the master. */
export interface MasterState {
  readonly buildsets: BuildsetRecord[];
  readonly requests: RequestRecord[];
  readonly builds: BuildRecord[];
  readonly steps: StepRecord[];
  readonly logs: LogRecord[];
  readonly logTexts: Map<number, string>;
  /** Of buildsets, by bsid. */
  readonly buildsetProperties: Map<number, Properties>;
  /** Of builds, by buildid. */
  readonly buildProperties: Map<number, Properties>;
}

export function createState(): MasterState {
  return {
    buildsets: [],
    requests: [],
    builds: [],
    steps: [],
    logs: [],
    logTexts: new Map(),
    buildsetProperties: new Map(),
    buildProperties: new Map(),
  };
}

/** What each build of a request does. */
export interface Attempt {
  /** Buildbot's code. */
  readonly results: number;
  /** Milliseconds, or until `finishBuild`. */
  readonly durationMs: number | 'wait';
  readonly steps?: readonly { readonly name: string; readonly log?: string }[];
  /** Set by the build, beside those of its request. */
  readonly properties?: Readonly<Record<string, unknown>>;
}

export interface BuilderOptions {
  readonly name: string;
  /** Names; without any, requests stay pending. */
  readonly workers: readonly string[];
  /** Whether a new request completes older unclaimed ones of the same sourcestamp; on by default, as in Buildbot. */
  readonly collapse?: boolean;
  /** The first for a request's first build, and so on; the last is repeated. */
  readonly attempts: readonly Attempt[];
}
