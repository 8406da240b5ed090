/** Build events as Mozilla's masters published them; by 75 recorded messages of 2013 to 2017. */
import {
  type ClassicBuild,
  describeSources,
  describeSteps,
  logsOf,
  propertyTriples,
  reasonOf,
  textOf,
} from './builds.ts';
import { directoryOf, type SchemaKind } from './options.ts';

/** No more request ids than this are told; further ones of a merged build get no event. */
const MAX_REQUEST_IDS = 100;
const EXCHANGE = 'exchange/build/';

export type EventKind = 'started' | 'finished' | 'log_uploaded';

/** Since 2017 events say whose build it is: with no ids where they could not be looked up. Older masters did not. */
export type RequestIds = 'known' | 'empty' | 'absent';

/** What of a message comes from the master rather than from the build. */
export interface Origin {
  readonly requestIds: RequestIds;
  readonly schema: SchemaKind;
  readonly masterName: string;
  readonly incarnation: string;
  readonly url: string;
  /** A counter of the master's, or the status database's id. Not unique. */
  readonly messageId: number;
  readonly sentAt: number;
}

/** What postrun.py learns when it has uploaded the log and written the status database. */
export interface Upload {
  readonly logUrl: string;
  readonly statusDbId: number;
}

export interface BuildEvent {
  readonly exchange: string;
  readonly routingKey: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** `started` or `finished`; of a build still running, its results are null. */
export function buildEvent(kind: 'started' | 'finished', build: ClassicBuild, origin: Origin): BuildEvent {
  // Dots and spaces of the directory would be words of the routing key, and are replaced; but only here.
  const directory = directoryOf(build.builder).replace(/[. ]/g, '_');
  return envelope(`build.${directory}.${build.number}.${kind}`, origin, {
    build: describe(build, build.builder.name, origin, []),
    ...(origin.requestIds === 'absent' ? {} : { request_ids: requestIds(build, origin) }),
    ...(kind === 'finished' ? { results: build.results } : {}),
  });
}

/** `log_uploaded`: by the directory's name, dots and all; the request ids are a property here. */
export function logUploadedEvent(build: ClassicBuild, origin: Origin, { logUrl, statusDbId }: Upload): BuildEvent {
  const directory = directoryOf(build.builder);
  const times = build.requests.slice(0, MAX_REQUEST_IDS).map(({ brid, submittedAt }) => [brid, submittedAt] as const);
  const added: Readonly<Record<string, unknown>> = {
    log_url: logUrl,
    request_ids: requestIds(build, origin),
    request_times: Object.fromEntries(times),
    statusdb_id: statusDbId,
  };
  return envelope(`build.${directory}.${build.number}.log_uploaded`, origin, {
    build: describe(build, directory, origin, Object.entries(added)),
  });
}

function requestIds({ requests }: ClassicBuild, origin: Origin): readonly number[] {
  return origin.requestIds === 'empty' ? [] : requests.slice(0, MAX_REQUEST_IDS).map(({ brid }) => brid);
}

function describe(
  build: ClassicBuild,
  builderName: string,
  { schema, url }: Origin,
  added: readonly (readonly [string, unknown])[],
): Readonly<Record<string, unknown>> {
  const extra = added.map(([name, value]) => [name, [value, 'postrun.py'] as const]);
  return {
    ...{ builderName, number: build.number, results: build.results, reason: reasonOf(build), slave: build.worker },
    ...{ text: textOf(build), blame: [], eta: null, currentStep: null },
    // A build is told of as soon as it starts: it has no steps then.
    steps: build.results === null ? [] : describeSteps(build, url),
    times: [toTime(build.startedAt), build.finishedAt === null ? null : toTime(build.finishedAt)],
    ...describeSources(build, schema),
    properties: propertyTriples({ ...build.properties, ...Object.fromEntries(extra) }),
    ...(schema === 'B' ? { logs: logsOf(build).map(({ name, step }) => [name, step]) } : {}),
  };
}

function envelope(routingKey: string, origin: Origin, payload: Readonly<Record<string, unknown>>): BuildEvent {
  const { masterName, incarnation, messageId, sentAt } = origin;
  return {
    exchange: EXCHANGE,
    routingKey,
    payload: {
      payload,
      _meta: {
        ...{ exchange: EXCHANGE, routing_key: routingKey, serializer: 'json', message_id: messageId },
        ...{ master_name: masterName, master_incarnation: incarnation },
        sent: `${new Date(sentAt).toISOString().slice(0, 19)}+00:00`,
      },
    },
  };
}

/** Such as `2017-06-01T10:02:11+0000`. */
function toTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}+0000`;
}
