/** Failures of tasks that have no mapping to keep them: which of them are worth a line in the task's trace. */

export interface UnmappedFailures {
  /** @returns whether the same failure has come a second time: true once for each task and text */
  isLasting(taskId: string, text: string): boolean;
}

/** The oldest are forgotten first. */
const MAX_REMEMBERED = 5000;

/** One failure may be a passing one, and all further ones say nothing new: only the second is told. */
export function createUnmappedFailures(most = MAX_REMEMBERED): UnmappedFailures {
  const wereTold = new Map<string, boolean>();
  return {
    isLasting(taskId, text) {
      const key = `${taskId} ${text}`;
      const wasTold = wereTold.get(key);
      wereTold.delete(key);
      wereTold.set(key, wasTold !== undefined);
      const [oldest] = wereTold.keys();
      if (wereTold.size > most && oldest !== undefined) {
        wereTold.delete(oldest);
      }
      return wasTold === false;
    },
  };
}
