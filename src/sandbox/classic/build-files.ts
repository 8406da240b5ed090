/** Builds as a master keeps them, in files beside the database: what survives it, and which number comes next. */
import type { ClassicBuild } from './builds.ts';

export interface BuildFiles {
  nextNumber(builder: string): number;
  add(build: ClassicBuild): void;
  /** Forgotten builds are not found: a real master answers 404 for them. */
  find(builder: string, number: number): ClassicBuild | undefined;
  of(builder: string): readonly ClassicBuild[];
  /** What a power cut leaves: builds that had not ended were never written. */
  forgetUnfinished(): void;
}

/**
 * Every 0.8 goes on after the last build whose file is there (`determineNextBuildNumber`; files of logs do not count),
 * and a build has none before its end: after a power cut a number comes twice.
 */
export function createBuildFiles(): BuildFiles {
  const builds: ClassicBuild[] = [];
  const next = new Map<string, number>();
  return {
    nextNumber(builder) {
      const number = next.get(builder) ?? 0;
      next.set(builder, number + 1);
      return number;
    },
    add: (build) => void builds.push(build),
    find: (builder, number) => builds.find((build) => build.builder.name === builder && build.number === number),
    of: (builder) => builds.filter((build) => build.builder.name === builder),
    forgetUnfinished() {
      const kept = builds.filter(({ finishedAt }) => finishedAt !== null);
      builds.splice(0, builds.length, ...kept);
      for (const name of next.keys()) {
        const numbers = kept.filter(({ builder }) => builder.name === name).map(({ number }) => number);
        next.set(name, Math.max(-1, ...numbers) + 1);
      }
    },
  };
}
