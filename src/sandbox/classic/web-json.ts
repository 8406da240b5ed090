/** What the web status says as JSON, as a real 0.8.12 was seen to say it. */
import {
  type ClassicBuild,
  describeSources,
  describeSteps,
  logsOf,
  logUrl,
  propertyTriples,
  reasonOf,
  textOf,
} from './builds.ts';
import type { ClassicMaster } from './master.ts';
import { type ClassicBuilderOptions, directoryOf, type SchemaKind } from './options.ts';

type Json = Readonly<Record<string, unknown>>;

/** A build; a 0.8.12 leaves out the results of one that runs. Keys come sorted, as Python was told to sort them. */
export function buildJson(build: ClassicBuild, schema: SchemaKind, url: string): Json {
  const steps = describeSteps(build, url);
  return sorted({
    blame: [],
    builderName: build.builder.name,
    currentStep: build.results === null ? (steps.at(-1) ?? null) : null,
    eta: null,
    ...(schema === 'B' ? { logs: logsOf(build).map((log) => [log.name, logUrl(build, log, url)]) } : {}),
    number: build.number,
    properties: propertyTriples(build.properties),
    reason: reasonOf(build),
    ...(build.results === null && schema === 'B' ? {} : { results: build.results }),
    slave: build.worker,
    ...describeSources(build, schema),
    steps,
    text: textOf(build),
    times: [build.startedAt / 1000, build.finishedAt === null ? null : build.finishedAt / 1000],
  });
}

/** @param pending how many of its requests nobody has claimed */
export function builderJson(builder: ClassicBuilderOptions, master: ClassicMaster, pending: number): Json {
  const own = master.buildsOf(builder.name);
  const current = own.filter((build) => master.isRunning(build));
  const isOnline = builder.workers.some((name) => master.isConnected(name));
  return {
    basedir: directoryOf(builder),
    cachedBuilds: own.map(({ number }) => number),
    currentBuilds: current.map(({ number }) => number),
    pendingBuilds: pending,
    schedulers: [],
    slaves: builder.workers,
    state: current.length > 0 ? 'building' : isOnline ? 'idle' : 'offline',
    tags: null,
  };
}

/** With `as_text` or `filter`, whatever is empty is left out. */
export function withoutEmpty(json: Json): Json {
  return Object.fromEntries(
    Object.entries(json).filter(
      ([, value]) => !(value === null || value === 0 || value === '' || (Array.isArray(value) && value.length === 0)),
    ),
  );
}

function sorted(json: Json): Json {
  return Object.fromEntries(Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1)));
}
