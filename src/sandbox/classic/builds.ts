/** A build as its master remembers it (0.8 keeps them as files beside the database), and as it describes it. */
import type { Attempt, Properties } from '../buildbot/state.ts';
import { type ClassicBuilderOptions, directoryOf, type SchemaKind } from './options.ts';
import type { LoadedRequest, SourceStamp } from './requests.ts';

/** What a build is called when it is over, by its results. */
const WORDS = ['build', 'warnings', 'failed', 'skipped', 'exception', 'retry', 'cancelled'];
const RUNNING = null;
const EXCEPTION = 4;

/** Times are milliseconds. */
export interface ClassicBuild {
  readonly builder: ClassicBuilderOptions;
  readonly number: number;
  readonly requests: readonly LoadedRequest[];
  /** Of the rows in `builds`, one a request. */
  readonly rowIds: readonly number[];
  readonly worker: string;
  readonly attempt: Attempt;
  readonly startedAt: number;
  readonly properties: Properties;
  finishedAt: number | null;
  results: number | null;
  /** Whether somebody stopped it; its step says `interrupted` then, by the source of 0.8.12. */
  wasStopped?: boolean;
}

/** The properties of a build: what it was asked with (of several requests, the last one's win), and its own. */
export function buildProperties(build: Omit<ClassicBuild, 'properties'>, kind: SchemaKind, url: string): Properties {
  const stamp = build.requests[0]?.stamps[0];
  const folder = `/srv/buildbot/${build.worker}/${directoryOf(build.builder)}`;
  const own: Record<string, readonly [unknown, string]> = {
    branch: [stamp?.branch ?? null, 'Build'],
    buildername: [build.builder.name, 'Builder'],
    buildnumber: [build.number, 'Build'],
    project: [stamp?.project ?? '', 'Build'],
    repository: [stamp?.repository ?? '', 'Build'],
    revision: [stamp?.revision ?? null, 'Build'],
    slavename: [build.worker, 'BuildSlave'],
  };
  const ofKind: Record<string, readonly [unknown, string]> =
    kind === 'A'
      ? { basedir: [folder, 'slave'], master: [url, 'Build'] }
      : {
          builddir: [folder, 'slave'],
          codebase: [stamp?.codebase ?? '', 'Build'],
          workdir: [folder, 'slave (deprecated)'],
        };
  const set = Object.entries(build.attempt.properties ?? {}).map(([name, value]) => [
    name,
    [value, 'SetProperty Step'] as const,
  ]);
  return {
    ...Object.assign({}, ...build.requests.map(({ properties }) => properties)),
    ...own,
    ...ofKind,
    ...Object.fromEntries(set),
  };
}

/** Sorted by name, as every 0.8 shows them. */
export function propertyTriples(properties: Properties): readonly (readonly [string, unknown, string])[] {
  return Object.entries(properties)
    .map(([name, [value, source]]) => [name, value, source] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Of several requests, their different reasons. */
export function reasonOf({ requests }: ClassicBuild): string {
  return [...new Set(requests.map(({ reason }) => reason).filter((reason) => reason !== ''))].join(', ');
}

export function textOf({ results, attempt, wasStopped }: ClassicBuild): readonly string[] {
  if (results === RUNNING) {
    return [];
  }
  return results === 0
    ? ['build', 'successful']
    : [WORDS[results] ?? 'finished', wasStopped ? 'interrupted' : (stepsOf(attempt).at(-1)?.name ?? '')];
}

export function stepsOf(attempt: Attempt): readonly { readonly name: string; readonly log?: string }[] {
  return attempt.steps ?? [{ name: 'shell' }];
}

export interface StepLog {
  readonly step: string;
  readonly name: string;
  readonly text: string;
  readonly isHtml: boolean;
}

/** What steps wrote, and the traceback of one that broke in the master, as `failed` of 0.8's buildstep.py adds it. */
export function logsOf({ attempt, results, wasStopped }: ClassicBuild): readonly StepLog[] {
  const steps = stepsOf(attempt);
  const written = steps.flatMap(({ name: step, log }) =>
    log === undefined ? [] : [{ step, name: 'stdio', text: log, isHtml: false }],
  );
  const broken = results === EXCEPTION && !wasStopped ? steps.slice(-1) : [];
  const tracebacks = broken.flatMap(({ name: step }) => [
    { step, name: 'err.text', text: 'Traceback (most recent call last):\nexceptions.KeyError\n', isHtml: false },
    { step, name: 'err.html', text: '<html><body>exceptions.KeyError</body></html>', isHtml: true },
  ]);
  return [...written, ...tracebacks];
}

/** Steps, all but the last over, as a list of what JSON shows; times are float seconds. */
export function describeSteps(build: ClassicBuild, url: string): readonly Readonly<Record<string, unknown>>[] {
  const started = build.startedAt / 1000;
  const steps = stepsOf(build.attempt);
  const logs = logsOf(build);
  return steps.map(({ name }, number) => {
    const isLast = number === steps.length - 1;
    const isFinished = build.results !== RUNNING || !isLast;
    const finished = build.finishedAt !== null && isLast ? build.finishedAt / 1000 : started;
    return {
      eta: null,
      expectations: [],
      hidden: false,
      isFinished,
      isStarted: true,
      logs: logs.filter(({ step }) => step === name).map((log) => [log.name, logUrl(build, log, url)]),
      name,
      results: [isFinished ? (isLast ? build.results : 0) : null, []],
      statistics: {},
      step_number: number,
      text: [`'${name}'`, ...(build.wasStopped && isLast ? ['interrupted'] : [])],
      times: [started, isFinished ? finished : null],
      urls: {},
    };
  });
}

/** `url` is the web status's. */
export function logUrl(build: ClassicBuild, { step, name }: StepLog, url: string): string {
  const [builder, ...below] = [build.builder.name, step, name].map(encodeURIComponent);
  return `${url}/builders/${builder}/builds/${build.number}/steps/${below.join('/logs/')}`;
}

/** 0.8.2 shows one source, 0.8.12 a list of them, with their codebases. */
export function describeSources(build: ClassicBuild, kind: SchemaKind): Readonly<Record<string, unknown>> {
  const stamps = build.requests[0]?.stamps ?? [];
  const describe = ({ patchid: _, codebase, ...stamp }: SourceStamp) => ({ ...stamp, hasPatch: false, changes: [] });
  return kind === 'A'
    ? { sourceStamp: stamps.map(describe)[0] ?? null }
    : { sourceStamps: stamps.map((stamp) => ({ ...describe(stamp), codebase: stamp.codebase })) };
}
