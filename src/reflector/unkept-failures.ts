/** Failures that no mapping keeps: which of them are worth a line in the task's trace. */

export interface UnkeptFailures {
  /**
   * @param isSure whether it is known to last: then the first one is told if nothing was told of the task
   * @returns whether the failure is to be told: true once for each text that is remembered, and ten times for a task at most
   */
  isLasting(taskId: string, text: string, isSure?: boolean): boolean;
  /** What was to be told of this task could not be. */
  wasNotTold(taskId: string): void;
}

interface Failures {
  count: number;
  told: number;
  /** By their texts, the last ones last: whether they were told. */
  readonly wereTold: Map<string, boolean>;
}

/** Tasks; the oldest are forgotten first: of more that fail in turns, only the log tells. */
const MAX_REMEMBERED = 5000;
/** Of each task; a failure whose text is another one every time would have any number. */
const MAX_TEXTS = 3;
/** Of each task: it says enough, and a trace is not to grow with every try. */
const MAX_TOLD = 10;
/** No later than the work queue lets a task's message go. */
const TOLD_AFTER = 3;

/**
 * One failure may be a passing one, and all further ones say nothing new: only the second of a text is told, or the
 * third of a task whatever it says, or the first where it is known to last.
 */
export function createUnkeptFailures(most = MAX_REMEMBERED): UnkeptFailures {
  const byTask = new Map<string, Failures>();
  return {
    isLasting(taskId, text, isSure = false) {
      const failures = byTask.get(taskId) ?? { count: 0, told: 0, wereTold: new Map<string, boolean>() };
      const { wereTold } = failures;
      failures.count += 1;
      const wasTold = wereTold.get(text);
      const isDue = failures.told === 0 && (isSure || failures.count >= TOLD_AFTER);
      const isLasting = failures.told < MAX_TOLD && (wasTold === undefined ? isDue : !wasTold);
      failures.told += Number(isLasting);
      putLast(wereTold, text, wasTold === true || isLasting, MAX_TEXTS);
      putLast(byTask, taskId, failures, most);
      return isLasting;
    },
    wasNotTold(taskId) {
      const failures = byTask.get(taskId);
      if (failures !== undefined) {
        failures.told = 0;
        for (const text of failures.wereTold.keys()) {
          failures.wereTold.set(text, false);
        }
      }
    },
  };
}

/** Drops the first where there are too many. */
function putLast<V>(map: Map<string, V>, key: string, value: V, most: number): void {
  map.delete(key);
  map.set(key, value);
  const [first] = map.keys();
  if (map.size > most && first !== undefined) {
    map.delete(first);
  }
}
