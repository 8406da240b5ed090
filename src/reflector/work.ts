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
  const looks = createWorkQueue({ ...room, pass: lookUnlessUploading });
  const uploads = createWorkQueue({ ...room, pass: whole });

  /** The mapping is leased for as long as the upload lasts: whatever was heard is seen to after it. */
  async function lookUnlessUploading(taskId: string): Promise<PassResult> {
    if (!uploads.isUnderWay(taskId)) {
      return look(taskId);
    }
    upload(taskId);
    return { kind: 'done' };
  }

  /** One that fails again and again is tried with its own waits: a sweep that comes by must not cut them short. */
  function handOver(taskId: string): void {
    if (!uploads.isParked(taskId)) {
      upload(taskId);
    }
  }

  function upload(taskId: string): void {
    uploads.add(taskId).catch((error: unknown) => {
      room.log.debug({ taskId, err: error }, 'upload not begun before the stop');
    });
  }

  return {
    handOver,
    add: looks.add,
    size: () => looks.size() + uploads.size(),
    oldestAgeMs: () => Math.max(looks.oldestAgeMs(), uploads.oldestAgeMs()),
    parked: () => looks.parked() + uploads.parked(),
    isParked: looks.isParked,
    async stop() {
      await Promise.all([looks.stop(), uploads.stop()]);
    },
  };
}
