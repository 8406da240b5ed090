/** Which pending requests a master builds together. */
import type { ClassicBuilderOptions, Flavour } from './options.ts';
import type { LoadedRequest, SourceStamp } from './requests.ts';

/** Mozilla's hook built no more than so many requests at once. */
const MOZILLA_CAP = 8;

/** `first`, and those of `others` that are built with it. Requests of the same sources are; priorities do not count. */
export function mergeRequests(
  first: LoadedRequest,
  others: readonly LoadedRequest[],
  { builder, flavour }: { readonly builder: ClassicBuilderOptions; readonly flavour: Flavour },
): readonly LoadedRequest[] {
  const isFree = (request: LoadedRequest) => flavour === 'stock' || maySharePerMozilla(request);
  if (builder.isMergeable === false || !isFree(first)) {
    return [first];
  }
  const merged = [first, ...others.filter((other) => isFree(other) && haveSameSources(first, other))];
  return merged.slice(0, builder.maxMerged ?? (flavour === 'mozilla' ? MOZILLA_CAP : merged.length));
}

/** What a person has asked for by hand, and nightlies, get builds of their own there. */
function maySharePerMozilla({ reason, properties }: LoadedRequest): boolean {
  return !reason.includes('Self-serve') && !('nightly_build' in properties);
}

/** Buildbot compares changes too, but requests from outside have none; a patch is never shared. */
function haveSameSources(a: LoadedRequest, b: LoadedRequest): boolean {
  return (
    [...a.stamps, ...b.stamps].every(({ patchid }) => patchid === null) &&
    JSON.stringify(a.stamps.map(keyOf).sort()) === JSON.stringify(b.stamps.map(keyOf).sort())
  );
}

function keyOf({ codebase, repository, branch, project, revision }: SourceStamp): string {
  return JSON.stringify([codebase, repository, branch, project, revision]);
}
