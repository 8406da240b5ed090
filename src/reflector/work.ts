/**
 * Looks and whole passes, in a room each: uploads can take hours, and however many of them hang, others are looked at
 * meanwhile, their claims renewed, and new tasks built.
 */
import type { Logger } from 'pino';
import type { Clock } from '../ports.ts';
import type { PassResult } from './reconcile.ts';
import { createWorkQueue, type WorkQueue } from './work-queue.ts';

export interface Work extends Omit<WorkQueue, 'isUnderWay'> {
  /** Asks for a whole pass over a task: a look has found something to upload. Nobody waits for it. */
  handOver(taskId: string): void;
}

export interface WorkOptions {
  /** What takes long is handed over. */
  readonly look: (taskId: string) => Promise<PassResult>;
  readonly whole: (taskId: string) => Promise<PassResult>;
  /** How many looks at once, and how many whole passes beside them. */
  readonly concurrency: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export function createWork({ look, whole, ...room }: WorkOptions): Work {
  const looks = createWorkQueue({ ...room, pass: look });
  const uploads = createWorkQueue({ ...room, pass: whole });

  return {
    // The mapping is leased for as long as an upload lasts: whatever is heard is seen to after it.
    add: (taskId) => (uploads.isUnderWay(taskId) ? uploads : looks).add(taskId),
    handOver(taskId) {
      // One that fails again and again has waits of its own: a sweep that comes by must not cut them short.
      if (!uploads.isParked(taskId)) {
        uploads.add(taskId).catch((error: unknown) => {
          room.log.debug({ taskId, err: error }, 'upload not begun before the stop');
        });
      }
    },
    size: () => looks.size() + uploads.size(),
    oldestAgeMs: () => Math.max(looks.oldestAgeMs(), uploads.oldestAgeMs()),
    parked: () => looks.parked() + uploads.parked(),
    isParked: looks.isParked,
    async stop() {
      await Promise.all([looks.stop(), uploads.stop()]);
    },
  };
}
