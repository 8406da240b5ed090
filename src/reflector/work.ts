/**
 * Looks and whole passes, in a room each: uploads can take hours, and however many of them hang, others are looked at
 * meanwhile, their claims renewed, and new tasks built. Uploads of tasks whose deadline is near have a room of their own,
 * and no more of the time that is left than their share.
 */
import type { Logger } from 'pino';
import type { Clock } from '../ports.ts';
import type { PassResult } from './reconcile.ts';
import { LAST_CHANCE_MS, LAST_LOOKS_MS } from './upload-time.ts';
import { createWorkQueue, type WorkQueue } from './work-queue.ts';

export interface Work extends Omit<WorkQueue, 'isUnderWay' | 'isWaiting'> {
  /**
   * Asks for a whole pass over a task: a look has found something to upload. Nobody waits for it.
   * @param isLast whether the task's deadline is near
   */
  handOver(taskId: string, isLast: boolean): void;
}

export interface WorkOptions {
  /** What takes long is handed over. */
  readonly look: (taskId: string) => Promise<PassResult>;
  /** @param share of the time that is left, where the task's deadline is near: 1 while nobody waits for its place */
  readonly whole: (taskId: string, share?: () => number) => Promise<PassResult>;
  /** How many looks at once, and how many whole passes beside them, and again of those whose deadline is near. */
  readonly concurrency: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** None is given up before its deadline: as many as there is time for, and five that come sooner (after 1, 2, 4 and 8 s). */
const LAST_TRIES = 5 + LAST_CHANCE_MS / LAST_LOOKS_MS;

export function createWork({ look, whole, ...room }: WorkOptions): Work {
  const looks = createWorkQueue({ ...room, pass: look });
  const uploads = createWorkQueue({ ...room, pass: (taskId) => whole(taskId) });
  const last: WorkQueue = createWorkQueue({
    ...room,
    maxWaitMs: LAST_LOOKS_MS,
    maxTries: LAST_TRIES,
    pass: (taskId) => whole(taskId, () => Math.min(1, room.concurrency / Math.max(1, last.size()))),
  });
  const rooms = [looks, uploads, last];
  const sum = (count: (one: WorkQueue) => number) => rooms.reduce((total, one) => total + count(one), 0);

  return {
    // The mapping is leased for as long as an upload lasts: whatever is heard is seen to after it.
    add: (taskId) => ([uploads, last].find((one) => one.isUnderWay(taskId)) ?? looks).add(taskId),
    handOver(taskId, isLast) {
      const its = isLast ? last : uploads;
      // Each sweep hands over once more what waits for its place, or fails and has waits of its own, not to be cut short.
      if (!its.isWaiting(taskId)) {
        its.add(taskId).catch((error: unknown) => {
          room.log.debug({ taskId, err: error }, 'upload not begun before the stop');
        });
      }
    },
    size: () => sum((one) => one.size()),
    oldestAgeMs: () => Math.max(...rooms.map((one) => one.oldestAgeMs())),
    parked: () => sum((one) => one.parked()),
    isParked: looks.isParked,
    async stop() {
      await Promise.all(rooms.map((one) => one.stop()));
    },
  };
}
