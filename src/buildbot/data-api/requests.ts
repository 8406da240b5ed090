/** Build requests and their builds, read in batches. */
import { type Build, isCollapsed, type RequestView } from '../../domain/build.ts';
import { LegacyCiError } from '../../errors.ts';
import type { InputCounter, Seen } from '../../ports.ts';
import { type BadRecord, fieldOf } from '../records.ts';
import { errorsOf, unreadable } from '../unreadable.ts';
import {
  type BuildAnswer,
  type BuildsetAnswer,
  buildsetsAnswer,
  type RequestAnswer,
  requestsAnswer,
  resultName,
} from './answers.ts';
import { createBuildReader } from './builds.ts';
import { readCanceller } from './canceller.ts';
import type { Catalogue } from './catalogue.ts';
import { reasonOf } from './force-parameters.ts';
import { type RestClient, toLegacyCiError } from './rest-client.ts';

/** Ids a call: their query must fit in a URL that every proxy takes. */
const BATCH = 100;
/** Of one submission: the one that counts is among the first. */
const MAX_COPIES = 10;

/** As in `LegacyCi`: neither throws. */
export interface RequestReader {
  readMany(ids: readonly number[]): Promise<ReadonlyMap<number, Seen<RequestView>>>;
  findByExternalId(spec: { readonly taskId: string; readonly externalId: string }): Promise<Seen<RequestView>>;
}

/** @param url of the master's web server, without a slash at its end, for the builds' pages */
export function createRequestReader(
  rest: RestClient,
  catalogue: Catalogue,
  url: string,
  inputs?: InputCounter,
): RequestReader {
  const readBuilds = createBuildReader(rest);
  const readMany = (ids: readonly number[]) => readInParts(ids, BATCH);

  async function readInParts(ids: readonly number[], size: number): Promise<ReadonlyMap<number, Seen<RequestView>>> {
    const all = new Map<number, Seen<RequestView>>();
    for (let start = 0; start < ids.length; start += size) {
      const batch = ids.slice(start, start + size);
      const read = await readBatch(batch);
      for (const [id, seen] of read) {
        all.set(id, seen);
      }
      const [first] = read.values();
      if (first?.kind === 'unreadable' && first.error.code === 'legacy-ci-unavailable') {
        // It is away: the rest would only wait as long for the same, while claims are to be kept alive.
        for (const id of ids.slice(start + size)) {
          all.set(id, first);
        }
        break;
      }
    }
    return all;
  }

  async function readBatch(ids: readonly number[]): Promise<ReadonlyMap<number, Seen<RequestView>>> {
    try {
      const query = ids.map((id) => `buildrequestid__eq=${id}`).join('&');
      // The request first: what its builds say afterwards can only be newer.
      const requests = (await rest.get(`buildrequests?${query}`, requestsAnswer)).buildrequests;
      const builds = await readBuilds(ids);
      const bad = [...requests.bad, ...builds.bad];
      if (ids.length > 1 && bad.some(({ owner }) => owner === undefined)) {
        // It may belong to any of them: whoever has it in an answer of its own has it.
        return await readInParts(ids, 1);
      }
      const errors = errorsOf(inputs, 'build request', bad);
      const builderNames = await catalogue.builderNames(requests.read.map(({ builderid }) => builderid));
      const workerNames = await catalogue.workerNames(builds.read.flatMap(({ workerid }) => workerid ?? []));
      const names = { builderNames, workerNames, url };
      const all = new Map<number, Seen<RequestView>>();
      for (const id of ids) {
        const error = errors.get(id) ?? errors.get(undefined);
        const request = requests.read.find(({ buildrequestid }) => buildrequestid === id);
        const view = request && toRequestView(request, builds.read, names);
        all.set(id, error ? { kind: 'unreadable', error } : view ? await withCanceller(view) : { kind: 'absent' });
      }
      return all;
    } catch (thrown) {
      const error = toLegacyCiError('reading build requests', thrown);
      return new Map(ids.map((id) => [id, { kind: 'unreadable', error }]));
    }
  }

  async function withCanceller(view: RequestView): Promise<Seen<RequestView>> {
    const build = view.builds.at(-1);
    if (view.results !== 'CANCELLED') {
      return { kind: 'present', value: view };
    }
    // After a RETRY the request waited again: it was cancelled then, and not its build.
    if (build?.results !== 'CANCELLED') {
      return { kind: 'present', value: { ...view, cancelledBy: 'person' } };
    }
    try {
      return { kind: 'present', value: { ...view, cancelledBy: await readCanceller(rest, build) } };
    } catch (thrown) {
      return { kind: 'unreadable', error: toLegacyCiError('reading why a build was cancelled', thrown) };
    }
  }

  async function findByExternalId(spec: {
    readonly taskId: string;
    readonly externalId: string;
  }): Promise<Seen<RequestView>> {
    try {
      const reason = reasonOf(spec);
      const query = `reason__contains=${encodeURIComponent(spec.externalId)}`;
      const buildsets = (await rest.get(`buildsets?${query}`, buildsetsAnswer)).buildsets;
      // The ForceScheduler's reasonString may put anything around it; its own end tells `/1)` from `/12)`. The first one: a
      // later one would be somebody's copy, unless the first was collapsed into it.
      const own = buildsets.read.filter((set) => set.reason.includes(reason)).map(({ bsid }) => bsid);
      const errors = errorsOf(inputs, 'buildset', buildsets.bad);
      const lowest = own.length === 0 ? undefined : Math.min(...own);
      const doubtful = buildsets.bad.find((bad) => mayBeOwn(bad, reason, lowest));
      if (doubtful) {
        return { kind: 'unreadable', error: errors.get(doubtful.owner) ?? unreadable(inputs, 'a buildset') };
      }
      let first: Seen<RequestView> = { kind: 'absent' };
      for (const bsid of own.sort((a, b) => a - b).slice(0, MAX_COPIES)) {
        const found = await requestOfBuildset(bsid);
        if (!isCollapsed(found)) {
          return { kind: 'present', value: found };
        }
        first = first.kind === 'present' ? first : { kind: 'present', value: found };
      }
      return first;
    } catch (thrown) {
      return { kind: 'unreadable', error: toLegacyCiError('looking for a build request', thrown) };
    }
  }

  async function requestOfBuildset(bsid: number): Promise<RequestView> {
    const found = (await rest.get(`buildrequests?buildsetid__eq=${bsid}`, requestsAnswer)).buildrequests;
    const [badRequest] = errorsOf(inputs, 'build request', found.bad).values();
    const request = found.read.find(({ buildsetid }) => buildsetid === bsid);
    if (request === undefined && badRequest) {
      throw badRequest;
    }
    if (request === undefined) {
      throw unreadable(inputs, `buildset ${bsid} has no build request`);
    }
    const seen = (await readMany([request.buildrequestid])).get(request.buildrequestid);
    if (seen?.kind !== 'present') {
      const error = new LegacyCiError('legacy-ci-unavailable', 'a build request was found and is not there', {
        isTransient: true,
      });
      throw seen?.kind === 'unreadable' ? seen.error : error;
    }
    return seen.value;
  }

  return { readMany, findByExternalId };
}

/**
 * Whether a buildset that cannot be read may be the one with this reason that counts. To take it for none would have the
 * task built twice.
 * @param lowest id of those that can be read and have the reason
 */
function mayBeOwn({ owner, value }: BadRecord, reason: string, lowest: number | undefined): boolean {
  const given = fieldOf(value, 'reason' satisfies keyof BuildsetAnswer);
  const isAnothers = typeof given === 'string' && !given.includes(reason);
  const isLater = owner !== undefined && lowest !== undefined && owner > lowest;
  return !isAnothers && !isLater;
}

interface Names {
  readonly builderNames: ReadonlyMap<number, string>;
  readonly workerNames: ReadonlyMap<number, string>;
  readonly url: string;
}

/** All but who cancelled it. @param builds of any requests; those of this one are picked out */
function toRequestView(request: RequestAnswer, builds: readonly BuildAnswer[], names: Names): RequestView {
  const own = builds
    .filter(({ buildrequestid }) => buildrequestid === request.buildrequestid)
    .sort((a, b) => a.buildid - b.buildid)
    .map((build) => toBuild(build, names));
  const results = request.complete ? resultName(request.results) : undefined;
  return {
    buildRequestId: request.buildrequestid,
    builder: names.builderNames.get(request.builderid) ?? `builder ${request.builderid}`,
    state: stateOf(request, own),
    builds: own,
    ...(results === undefined ? {} : { results }),
  };
}

function stateOf(request: RequestAnswer, builds: readonly Build[]): RequestView['state'] {
  if (request.complete) {
    return 'complete';
  }
  return builds.some((build) => !build.isComplete) ? 'building' : 'pending';
}

function toBuild(build: BuildAnswer, { workerNames, url }: Names): Build {
  const results = build.complete ? resultName(build.results) : undefined;
  const worker = build.workerid === null ? undefined : workerNames.get(build.workerid);
  return {
    buildId: build.buildid,
    number: build.number,
    isComplete: build.complete,
    stateText: build.state_string,
    startedAt: build.started_at,
    url: `${url}/#/builders/${build.builderid}/builds/${build.number}`,
    ...(results === undefined ? {} : { results }),
    ...(build.complete_at === null ? {} : { completedAt: build.complete_at }),
    ...(worker === undefined ? {} : { worker }),
  };
}
