/** Remembers, for a while, pending tasks that another bridge looks after: a sweep need not ask about them every time. */
import type { Clock } from '../ports.ts';

export interface ForeignTasks {
  add(taskId: string): void;
  has(taskId: string): boolean;
}

/** After this an operator's change of the rules is noticed. */
const REMEMBER_MS = 10 * 60_000;
/** The oldest are forgotten first. */
const MAX_REMEMBERED = 20_000;

export function createForeignTasks(clock: Clock): ForeignTasks {
  const since = new Map<string, number>();
  return {
    add(taskId) {
      since.delete(taskId);
      since.set(taskId, clock.uptime());
      for (const oldest of since.keys()) {
        if (since.size <= MAX_REMEMBERED) {
          break;
        }
        since.delete(oldest);
      }
    },
    has(taskId) {
      const added = since.get(taskId);
      if (added === undefined) {
        return false;
      }
      if (clock.uptime() - added > REMEMBER_MS) {
        since.delete(taskId);
        return false;
      }
      return true;
    },
  };
}
