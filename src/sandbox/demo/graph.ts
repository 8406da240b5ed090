/** The demo's task graph: a small release promotion that goes back and forth between native and bridged tasks. */

/** What a person or a passing deadline does to a task while it waits or builds. */
export type Fate = 'canceled-in-taskcluster' | 'cancelled-in-buildbot';

export interface DemoTask {
  readonly name: string;
  /** Null for a native task. */
  readonly builder: string | null;
  readonly after: readonly string[];
  /** How the last run has to end for the story to be right. */
  readonly ends: string;
  /** How many runs it takes. */
  readonly runs: number;
  readonly story?: string;
  readonly fate?: Fate;
  readonly deadlineInMs?: number;
}

/** The three stories of a bridged task first told of the bridge, and what can go wrong on either side. */
export const GRAPH: readonly DemoTask[] = [
  { name: 'decision', builder: null, after: [], ends: 'completed', runs: 1 },
  {
    name: 'build-linux64',
    builder: 'release-linux64-build',
    after: ['decision'],
    ends: 'completed',
    runs: 1,
    story: 'a task is built by Buildbot',
  },
  {
    name: 'build-win64',
    builder: 'release-win64-build',
    after: ['decision'],
    ends: 'completed',
    runs: 2,
    story: 'fails at first (RETRY), succeeds on the same build request',
  },
  {
    name: 'build-macosx64',
    builder: 'release-macosx64-build',
    after: ['decision'],
    ends: 'deadline-exceeded',
    runs: 1,
    deadlineInMs: 9000,
    story: 'its deadline passes before the build starts',
  },
  { name: 'scan-linux64', builder: null, after: ['build-linux64'], ends: 'completed', runs: 1 },
  {
    name: 'repack-linux64',
    builder: 'release-linux64-repack',
    after: ['scan-linux64'],
    ends: 'completed',
    runs: 1,
    story: 'a bridged task between two native ones',
  },
  { name: 'publish', builder: null, after: ['repack-linux64', 'build-win64'], ends: 'completed', runs: 1 },
  {
    name: 'source-bundle',
    builder: 'release-source',
    after: ['decision'],
    ends: 'canceled',
    runs: 1,
    fate: 'canceled-in-taskcluster',
    story: 'canceled in Taskcluster while it builds',
  },
  {
    name: 'build-android',
    builder: 'release-android-build',
    after: ['decision'],
    ends: 'canceled',
    runs: 1,
    fate: 'cancelled-in-buildbot',
    story: 'cancelled in Buildbot before it starts',
  },
  {
    name: 'build-typo',
    builder: 'release-linxu64-build',
    after: ['decision'],
    ends: 'malformed-payload',
    runs: 1,
    story: 'a bad payload: there is no such builder',
  },
];
