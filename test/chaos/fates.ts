/** What is to become of a task, what people do to it on the way, and how it has to end on both sides. */
import type { TaskWish } from '../support/world.ts';
import type { Stage } from './stage.ts';

export interface Fate {
  readonly name: string;
  readonly wish: TaskWish;
  /** What people and workers do, once; called again and again until it answers true. */
  readonly interfere?: (stage: Stage, taskId: string) => Promise<boolean>;
  /** The reason of the last run. */
  readonly ends: string;
  /** How many builds have to have come to a result of their own (not lost, not stopped). */
  readonly builds: number;
  /** Its build may come to a result although it was to be stopped, where `isUnstoppable`. */
  readonly canBeUnstoppable?: boolean;
}

/** With faults on the way, a build that can be stopped mostly is by then. */
const STOPPING_MS = 30_000;

/**
 * A master that was killed leaves the rows of its builds without an end, and Self-serve's agent then takes any of a
 * request's rows for the running build: what is asked of it has no effect. On a real site such a build ends by itself,
 * and the bridge follows it to its end; a `slow` one waits for people, and all others of its worker wait for it.
 */
export async function isUnstoppable({ legacy }: Stage, taskId: string): Promise<boolean> {
  return legacy.kind === 'mozilla' && (await legacy.builds(taskId)).length > 1;
}

const stateOf = ({ queue }: Stage, taskId: string) => queue.tasks.get(taskId)?.status.state;
const runsOf = ({ queue }: Stage, taskId: string) => queue.tasks.get(taskId)?.status.runs ?? [];
const hasRequest = async ({ legacy }: Stage, taskId: string) => (await legacy.requests(taskId)).length > 0;

export const FATES: readonly [Fate, ...Fate[]] = [
  { name: 'success', wish: { builder: 'success' }, ends: 'completed', builds: 1 },
  { name: 'quick', wish: { builder: 'quick-1' }, ends: 'completed', builds: 1 },
  { name: 'quick', wish: { builder: 'quick-2' }, ends: 'completed', builds: 1 },
  { name: 'warnings', wish: { builder: 'warnings' }, ends: 'failed', builds: 1 },
  { name: 'failure', wish: { builder: 'failure' }, ends: 'failed', builds: 1 },
  { name: 'exception', wish: { builder: 'exception' }, ends: 'internal-error', builds: 1 },
  { name: 'RETRY, then success', wish: { builder: 'retry-once' }, ends: 'completed', builds: 1 },
  { name: 'bad payload', wish: { builder: 'no-such-builder' }, ends: 'malformed-payload', builds: 0 },
  { name: 'deadline', wish: { builder: 'noworker', deadlineInMs: 15_000 }, ends: 'deadline-exceeded', builds: 0 },
  {
    name: 'canceled while pending',
    wish: { builder: 'noworker' },
    async interfere(stage, taskId) {
      if (!(await hasRequest(stage, taskId))) {
        return false;
      }
      await stage.client.cancelTask(taskId);
      return true;
    },
    ends: 'canceled',
    builds: 0,
  },
  {
    name: 'canceled at once',
    wish: { builder: 'noworker' },
    async interfere(stage, taskId) {
      await stage.client.cancelTask(taskId);
      return true;
    },
    ends: 'canceled',
    builds: 0,
  },
  {
    name: 'canceled while building',
    wish: { builder: 'slow' },
    async interfere(stage, taskId) {
      // It may have had its effect although nobody was told.
      const canceled = runsOf(stage, taskId).find(({ reasonResolved }) => reasonResolved === 'canceled');
      if (canceled?.resolved === undefined) {
        if (stateOf(stage, taskId) === 'running') {
          await stage.client.cancelTask(taskId);
        }
        return false;
      }
      if ((await stage.legacy.requests(taskId)).every(({ isComplete }) => isComplete)) {
        return true;
      }
      if (Date.now() > Date.parse(canceled.resolved) + STOPPING_MS && (await isUnstoppable(stage, taskId))) {
        await stage.legacy.finish(taskId);
      }
      return false;
    },
    ends: 'canceled',
    builds: 0,
    canBeUnstoppable: true,
  },
  {
    name: 'cancelled in Buildbot before it starts',
    wish: { builder: 'noworker' },
    async interfere(stage, taskId) {
      if (!(await hasRequest(stage, taskId))) {
        return false;
      }
      await stage.legacy.cancelRequest(taskId);
      return (await stage.legacy.requests(taskId)).every(({ isComplete }) => isComplete);
    },
    ends: 'canceled',
    builds: 0,
  },
  {
    name: 'slow',
    wish: { builder: 'slow' },
    async interfere(stage, taskId) {
      if (stateOf(stage, taskId) === 'running') {
        await stage.legacy.finish(taskId);
      }
      return stateOf(stage, taskId) === 'completed';
    },
    ends: 'completed',
    builds: 1,
  },
  {
    name: 'rerun by a person',
    wish: { builder: 'quick-3' },
    async interfere(stage, taskId) {
      // It may have had its effect although nobody was told.
      if (runsOf(stage, taskId).some(({ reasonCreated }) => reasonCreated === 'rerun')) {
        return true;
      }
      if (stateOf(stage, taskId) !== 'completed') {
        return false;
      }
      await stage.client.rerunTask(taskId);
      return true;
    },
    ends: 'completed',
    builds: 2,
  },
];
