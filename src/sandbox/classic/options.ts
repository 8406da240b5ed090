/** What a classic Buildbot is told: by a test, by the demo, or by its own `master.cfg`. */
import type { Clock } from '../../ports.ts';
import type { BuilderOptions } from '../buildbot/state.ts';
import type { Faults } from '../faults.ts';

/** `A` is Mozilla's fork of 0.8.2, `B` a stock 0.8.12: they claim, merge and link sources differently. */
export type SchemaKind = 'A' | 'B';

/** Only Mozilla's site has Pulse events and Self-serve, and only its fork knows the result CANCELLED. */
export type Flavour = 'mozilla' | 'stock';

/** A builder; `collapse` is of later Buildbots and means nothing here. */
export interface ClassicBuilderOptions extends BuilderOptions {
  /** Its directory on the master, by which events call it; made from the name if absent. */
  readonly directory?: string;
  /** Whether the master may build several pending requests at once; Mozilla's release builders said no. */
  readonly isMergeable?: boolean;
  /** How many requests one build may be of; for Mozilla's masters 8 if absent, else any number. */
  readonly maxMerged?: number;
}

/** As a message leaves the publisher. */
export interface BuildMessage {
  readonly exchange: string;
  readonly routingKey: string;
  /** All of its body, `_meta` and the inner `payload`, before it is JSON. */
  readonly payload: unknown;
}

/** Durations are milliseconds. */
export interface ClassicBuildbotOptions {
  readonly clock: Clock;
  readonly faults: Faults;
  /** A MariaDB or MySQL database: empty, or already with Buildbot's tables from another master. */
  readonly databaseUrl: string;
  readonly schema: SchemaKind;
  readonly flavour: Flavour;
  /** `<host>:<absolute basedir>`, as claims and events name it. */
  readonly masterName: string;
  readonly builders: readonly ClassicBuilderOptions[];
  /** `db_poll_interval`. */
  readonly pollIntervalMs: number;
  /** How often claims are refreshed; ten minutes if absent, as in every 0.8. */
  readonly claimRefreshMs?: number;
  /** Mozilla only. */
  readonly publish?: (message: BuildMessage) => void;
  /** How long `started` and `finished` wait in the master; Mozilla's waited 10 s, this one does not if absent. */
  readonly eventDelayMs?: number;
  /** How much later than `finished` the log is uploaded. */
  readonly logUploadDelayMs?: number;
  /** Who may stop builds and cancel requests on the web status; anybody, if absent. */
  readonly auth?: { readonly username: string; readonly password: string };
  /** Self-serve's branches by short name; a request of any other branch is never found. */
  readonly branches?: Readonly<Record<string, unknown>>;
  /** How an uploaded log is served: as gzip-encoded text, or as a gzip file that is not said to be text. */
  readonly logsAs?: 'encoded' | 'file';
}

/** Where a builder lives on the master, as Buildbot makes it from the name. */
export function directoryOf(builder: ClassicBuilderOptions): string {
  return builder.directory ?? builder.name.replace(/[\t !#$%&'()*+,./:;<=>?@[\\\]^{|}~]/g, '_');
}
