import { expect, it } from '@jest/globals';
import type { Mapping } from '../../src/domain/mapping.ts';
import type { ArtifactView } from '../../src/sandbox/queue/emulator.ts';
import { isCrash } from '../support/daemon.ts';
import { findProblems, type TaskEnd } from './check.ts';
import type { Fate } from './fates.ts';

const SUCCESS: Fate = { name: 'success', wish: { builder: 'success' }, ends: 'completed', builds: 1 };
const CANCELED: Fate = { name: 'canceled', wish: { builder: 'slow' }, ends: 'canceled', builds: 0 };
const NAMES = ['public/buildbot/status.json', 'public/logs/live.log', 'public/logs/live_backing.log'];

function artifact(name: string, content: string | undefined = '{}', runId = 0): ArtifactView {
  const details = { storageType: 's3', prefix: name, bucket: 'public-bucket' } as const;
  const bytes = content === undefined ? undefined : Buffer.from(content);
  return { runId, name, contentType: 'text/plain', expires: 0, details, content: () => bytes };
}

function mapping(changes: Partial<Mapping> = {}): Mapping {
  return {
    ...{ id: 1, version: 1, taskId: 'task', runId: 0, taskGroupId: 'group', builder: 'success', state: 'closed' },
    ...{ externalId: 'task/0/1', submissions: 1, buildRequestId: 7, collapseKey: null, hasSlot: false, priority: 0 },
    ...{ retriesReported: 0, reruns: 0, cancels: 0, takenUntil: null, reclaimAt: null, deadline: 0, nextCheckAt: 0 },
    ...{
      absentSince: null,
      requestAbsentSince: null,
      leaseOwner: null,
      leaseUntil: 0,
      attempts: 0,
      lastError: null,
      created: 0,
      updated: 0,
    },
    ...{ resolved: 0, resolution: 'completed' },
    ...changes,
  };
}

const PROPERTIES = 'public/properties.json';
const LOG = 'public/logs/live_backing.log';
const STATUS = { runId: 0, buildRequestId: 7, results: 0, resolution: { reason: 'completed' } };

/** What a run has that ended so. */
function artifactsOf(status: { readonly runId: number }): readonly ArtifactView[] {
  const contents: Record<string, unknown> = { 'public/buildbot/status.json': status };
  return [
    ...NAMES.map((name) => artifact(name, JSON.stringify(contents[name] ?? 'log'), status.runId)),
    artifact(PROPERTIES, JSON.stringify({ buildername: ['success', 'Builder'] }), status.runId),
  ];
}

const GOOD: TaskEnd = {
  taskId: 'task',
  fate: SUCCESS,
  runs: [{ runId: 0, reason: 'completed' }],
  artifacts: artifactsOf(STATUS),
  requests: [{ buildRequestId: 7, isComplete: true }],
  builds: [{ results: 0 }],
  mappings: [mapping()],
  isUnstoppable: false,
  stopped: 6,
};
const LOST: TaskEnd = {
  ...GOOD,
  ...{ fate: CANCELED, runs: [{ runId: 0, reason: 'canceled' }], mappings: [mapping({ resolution: 'canceled' })] },
  ...{ artifacts: [], builds: [{ results: 5 }, { results: 0 }] },
};
const RERUN: TaskEnd = {
  ...GOOD,
  fate: { ...SUCCESS, builds: 2 },
  runs: [0, 1].map((runId) => ({ runId, reason: 'completed' })),
  artifacts: [0, 1].flatMap((runId) => artifactsOf({ ...STATUS, runId })),
  requests: [7, 8].map((buildRequestId) => ({ buildRequestId, isComplete: true })),
  builds: [{ results: 0 }, { results: 0 }],
  mappings: [mapping({ runId: 1 })],
};
const BROKEN: TaskEnd = {
  ...GOOD,
  ...{ runs: [{ runId: 0, reason: 'internal-error' }], builds: [{ results: 4 }] },
  artifacts: artifactsOf({ ...STATUS, ...{ results: 4, resolution: { reason: 'internal-error' } } }),
  mappings: [mapping({ resolution: 'internal-error' })],
};

it.each<[string, TaskEnd]>([
  ['a task that was built', GOOD],
  ['an artifact that is an error', { ...GOOD, artifacts: GOOD.artifacts.map(asError) }],
  ['a task that nobody saw', { ...LOST, builds: [], requests: [], mappings: [] }],
  ['a build that was stopped', { ...LOST, builds: [{ results: 6 }] }],
  ['a build that nobody could stop', { ...LOST, isUnstoppable: true }],
  ['a request that Buildbot built again', { ...GOOD, builds: [{ results: 4 }, { results: 0 }] }],
  ['a build that broke', BROKEN],
  ['properties of which no event told', holding(PROPERTIES, '{ "taskId": ["task", "bbb"] }')],
  ['a look that came too late', { ...GOOD, mappings: [mapping({ id: 2, buildRequestId: null }), mapping()] }],
])('agrees about %s', (_, end) => {
  expect(findProblems(end)).toEqual([]);
});

it.each<[string, TaskEnd, RegExp]>([
  ['another end', { ...GOOD, fate: { ...SUCCESS, ends: 'failed' } }, /^ended completed, not failed$/],
  [
    'a good build that is called broken',
    { ...BROKEN, builds: [{ results: 0 }] },
    /^ended internal-error, not completed$/,
  ],
  ['a stopped build that is called broken', { ...BROKEN, stopped: 4 }, /^ended internal-error, not completed$/],
  ['an open request', { ...GOOD, requests: [{ buildRequestId: 7, isComplete: false }] }, /requests are open/],
  ['a build too many', { ...RERUN, fate: SUCCESS }, /^2 builds came to a result, not 1$/],
  ['a build that could have been stopped', LOST, /^1 builds came to a result, not 0$/],
  ['one request for two runs', RERUN, /resolved by the same build request: 7, 7/],
  ['an open mapping', { ...GOOD, mappings: [mapping({ state: 'submitted' }), mapping()] }, /is still submitted/],
  ['no mapping', { ...GOOD, mappings: [] }, /no closed mapping/],
  ['a mapping that says otherwise', { ...GOOD, mappings: [mapping({ resolution: 'failed' })] }, /says failed/],
  ['a mapping of another request', { ...GOOD, mappings: [mapping({ buildRequestId: 8 })] }, /request 8, of 7/],
  ['a mapping without its request', { ...GOOD, mappings: [mapping({ buildRequestId: null })] }, /request null, of 7/],
  ['a missing artifact', { ...GOOD, artifacts: GOOD.artifacts.slice(0, 3) }, /has no public\/properties.json/],
  [
    'an artifact that was not uploaded',
    { ...GOOD, artifacts: GOOD.artifacts.map((each) => ({ ...each, content: () => undefined })) },
    /has no public\/buildbot\/status.json/,
  ],
  ['half a status', holding('public/buildbot/status.json', '{ "runId": 0'), /has a status of something else/],
  ['a status of another run', { ...GOOD, artifacts: artifactsOf({ ...STATUS, runId: 1 }).map(ofFirst) }, /status/],
  ['a status that no build has', holdingStatus({ results: 2 }), /results 2, which no build has/],
  ['a status of another end', holdingStatus({ resolution: { reason: 'failed' } }), /has a status of something else/],
  ['properties of another task', holding(PROPERTIES, '{ "taskId": ["other", "bbb"] }'), /properties of something/],
  ['no properties', holding(PROPERTIES, '{}'), /has properties of something else/],
  ['an empty log', holding(LOG, ''), /has an empty log/],
])('finds %s', (_, end, problem) => {
  expect(findProblems(end)).toContainEqual(expect.stringMatching(problem));
});

function holding(name: string, content: string): TaskEnd {
  const artifacts = GOOD.artifacts.map((each) => (each.name === name ? artifact(name, content) : each));
  return { ...GOOD, artifacts };
}

function holdingStatus(changes: object): TaskEnd {
  return holding('public/buildbot/status.json', JSON.stringify({ ...STATUS, ...changes }));
}

function ofFirst(each: ArtifactView): ArtifactView {
  return { ...each, runId: 0 };
}

function asError(each: ArtifactView): ArtifactView {
  const details = { storageType: 'error', reason: 'too-large-file-on-worker', message: 'too large' } as const;
  return { ...each, details, content: () => undefined };
}

const SIGNALLED = new Set<NodeJS.Signals>(['SIGKILL', 'SIGTERM']);
it.each([
  ['that ended cleanly', { code: 0, signal: null }, false],
  ['for which something was away', { code: 75, signal: null }, false],
  ['that was killed', { code: null, signal: 'SIGKILL' }, false],
  ['with a bug', { code: 1, signal: null }, true],
  ['that ran out of memory', { code: null, signal: 'SIGABRT' }, true],
] as const)('knows of a bridge %s whether it died of itself', (_, end, expected) => {
  expect(isCrash(end, SIGNALLED)).toBe(expected);
  expect(isCrash({ code: null, signal: 'SIGKILL' }, new Set())).toBe(true);
});
