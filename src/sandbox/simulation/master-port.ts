/** The simulated Buildbot as one process reaches it: the semantics of both adapters behind the one port. */
import { Readable } from 'node:stream';
import type { RequestView } from '../../domain/build.ts';
import { priorityRank } from '../../domain/task.ts';
import { LegacyCiError } from '../../errors.ts';
import type { BuildSpec, LegacyCi, Outcome, Problem, Seen } from '../../ports.ts';
import type { Host } from './host.ts';
import type { Master, Wish } from './master.ts';
import { type Head, headOf, type Kind, runningBuild, type SimRequest, viewOf } from './master-state.ts';
import { shortName } from './names.ts';
import type { Weather } from './weather.ts';

export interface MasterPortOptions {
  readonly host: Host;
  readonly master: Master;
  readonly weather: Weather;
  readonly kind: Kind;
  readonly isGuarded: boolean;
  /** What of a request this legacy CI cannot stop. */
  readonly unstoppable: 'nothing' | 'builds' | 'everything';
  readonly builders: ReadonlySet<string>;
  readonly now: () => number;
  /** The request was made, or found made already, for this call. */
  readonly onSubmitted: (host: Host, request: SimRequest, wasSentInTime: boolean) => void;
  /** Whether the caller is the one who may submit for this task at this moment. */
  readonly isInTime: (host: Host, taskId: string) => boolean;
  readonly watchers: Set<Watcher>;
}

export interface Watcher {
  readonly host: Host;
  onHint(buildRequestId: number): void;
  onGap(): void;
}

export function createMasterPort(options: MasterPortOptions): LegacyCi {
  const { host, master, weather, kind, now } = options;

  function call<T>(method: string, about: string, effect: () => T, taskId?: string, isChange = false): Promise<T> {
    return host.call({ service: 'ci', method, about, isChange, ...(taskId ? { taskId } : {}) }, effect);
  }
  const isVisible = (request: SimRequest) => !request.isPurged && request.hiddenUntil <= now();
  const find = (id: number) => master.requests.find((request) => request.id === id && isVisible(request));

  /** The requests are read when the call is made, their builds when it is answered: they may have ended between. */
  function seen(request: SimRequest | undefined, head: Head | undefined): Seen<RequestView> {
    return request && head ? { kind: 'present', value: viewOf(request, head, kind, now()) } : { kind: 'absent' };
  }

  function cancel({ buildRequestId: id, sharedWith = [] }: RequestView): ReturnType<LegacyCi['cancel']> {
    const request = master.requests.find((one) => one.id === id);
    return call(
      'cancel',
      `#${id}`,
      () => {
        const isBuilding = request !== undefined && runningBuild(request) !== undefined;
        if (request && (options.unstoppable === 'everything' || (options.unstoppable === 'builds' && isBuilding))) {
          request.isUnstoppable = true;
          return { kind: 'impossible', why: 'there is no way to stop it' };
        }
        const group = (request && runningBuild(request)?.group) ?? [];
        const isShared = group.some((other) => other !== request && !sharedWith.includes(other.id));
        if (request && !isShared && !request.isPurged && !weather.isCancelLost()) {
          request.cancels += 1;
          master.cancel(request, 'bridge');
        }
        return { kind: 'asked' };
      },
      request?.taskId ?? undefined,
      true,
    );
  }

  return {
    check: () => Promise.resolve(),
    builders: () => call('builders', '', () => options.builders),
    problems: (spec) => call('problems', shortName(spec.taskId), () => problemsOf(spec)),
    collapseKey: (spec) => (options.isGuarded ? `${spec.builder} ${stampOf(spec)}` : null),
    submit(spec) {
      const wasInTime = options.isInTime(host, spec.taskId);
      const { builder, externalId, taskId, runId } = spec;
      const wish: Wish = {
        builder,
        externalId,
        taskId,
        runId,
        stamp: stampOf(spec),
        priority: priorityRank(spec.priority),
      };
      return call(
        'submit',
        `${shortName(taskId)} ${externalId.slice(taskId.length)}`,
        () => {
          if (spec.properties.rejected === true) {
            throw new LegacyCiError('legacy-ci-rejected', 'rejected by the scheduler');
          }
          const request = master.submit(wish);
          options.onSubmitted(host, request, wasInTime);
          return request.id;
        },
        taskId,
        true,
      );
    },
    async findByExternalId({ taskId, externalId }) {
      const found = master.requests.filter((request) => !request.isPurged && request.externalId === externalId);
      const first = found.find(({ endedBy }) => endedBy !== 'collapse') ?? found[0];
      const head = first && headOf(first);
      try {
        return await call(
          'findByExternalId',
          `${shortName(taskId)} ${externalId.slice(taskId.length)}`,
          () => seen(first, head),
          taskId,
        );
      } catch (thrown) {
        return { kind: 'unreadable', error: toError(thrown) };
      }
    },
    async readMany(ids) {
      const heads = new Map(ids.flatMap((id) => find(id) ?? []).map((request) => [request.id, headOf(request)]));
      try {
        return await call(
          'readMany',
          ids.join(' '),
          () => new Map(ids.map((id) => [id, seen(find(id), heads.get(id))])),
        );
      } catch (thrown) {
        const error = toError(thrown);
        return new Map(ids.map((id) => [id, { kind: 'unreadable', error }]));
      }
    },
    cancel,
    async outcome(view) {
      const request = master.requests.find(({ id }) => id === view.buildRequestId);
      const isThere = await call(
        'outcome',
        `#${view.buildRequestId}`,
        () => request === undefined || request.settledAt <= now(),
        request?.taskId ?? undefined,
      );
      const build = view.builds.at(-1);
      if (build === undefined || !isThere) {
        return { properties: {}, log: { kind: 'none' } };
      }
      return {
        properties: { buildid: [build.buildId, 'Build'] },
        log: logOf(kind, () => call('log', `#${view.buildRequestId}`, emptyLog, request?.taskId ?? undefined)),
      };
    },
    async watch({ onHint, onGap }) {
      const watcher = { host, onHint, onGap };
      const stop = () => options.watchers.delete(watcher);
      options.watchers.add(watcher);
      host.onCrash(stop);
      const connected = call('watch', '', () => undefined);
      void connected.then(onGap, onGap);
      return {
        async stop() {
          stop();
        },
      };
    },
    close: () => Promise.resolve(),
  };
}

function stampOf({ branch, revision }: BuildSpec): string {
  return `${branch ?? '-'}@${revision ?? '-'}`;
}

function problemsOf({ properties }: BuildSpec): readonly Problem[] {
  return properties.undeclared === undefined
    ? []
    : [{ where: 'payload.properties.undeclared', what: 'it is not declared', mend: 'leave it out' }];
}

function logOf(kind: Kind, open: () => Promise<Readable>): Outcome['log'] {
  return kind === 'data-api' ? { kind: 'stream', open } : { kind: 'url', url: 'http://logs.example.com/build.txt.gz' };
}

/** Nobody reads it: what a log says is no concern of the simulation's. */
function emptyLog(): Readable {
  return new Readable({ read: () => undefined });
}

function toError(error: unknown): LegacyCiError {
  return error instanceof LegacyCiError
    ? error
    : new LegacyCiError('legacy-ci-unavailable', String(error), { isTransient: true, cause: error });
}
