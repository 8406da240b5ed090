/** How much the bridge asks of the outside: whatever it has to do, no process does it without end. */
import type { History } from './history.ts';
import type { Call, Host } from './host.ts';
import { shortName } from './names.ts';
import type { Scheduler } from './scheduler.ts';

export interface Traffic {
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  /** From now on there are so many tasks to look after. */
  expect(tasks: number): void;
}

type Kind = 'reads' | 'statements' | 'changes';
/** Calls in a minute. */
type Most = Readonly<Record<Kind, number>>;

const MINUTE = 60_000;
/** Of a process that has nothing to look after: its rounds, which also list what is long over. */
const OWN: Most = { reads: 40, statements: 60, changes: 30 };
/** More of it for each task that there is. */
const FOR_EACH: Most = { reads: 30, statements: 50, changes: 20 };
/** Of a process for one task: a lease that another has is asked for every second. */
const FOR_ONE: Most = { reads: 60, statements: 150, changes: 60 };

export function createTraffic(
  { now }: Pick<Scheduler, 'now'>,
  { complain }: Pick<History, 'complain'>,
  tasks: number,
): Traffic {
  const counts = new Map<string, number>();
  let minute = 0;
  let expected = tasks;

  function count(key: string, most: number): boolean {
    const calls = (counts.get(key) ?? 0) + 1;
    counts.set(key, calls);
    // Told once a minute.
    return calls === most + 1;
  }

  return {
    onCall({ name }, call) {
      const current = Math.floor(now() / MINUTE);
      if (current !== minute) {
        minute = current;
        counts.clear();
      }
      const kind = kindOf(call);
      if (count(`${name} ${kind}`, OWN[kind] + FOR_EACH[kind] * expected)) {
        complain(`${name} goes round in circles: too many ${kind} in a minute, the last was ${nameOf(call)}`);
      }
      const { taskId } = call;
      if (taskId !== undefined && count(`${name} ${kind} ${taskId}`, FOR_ONE[kind])) {
        complain(
          `${name} goes round in circles about ${shortName(taskId)}: the last of many ${kind} was ${nameOf(call)}`,
        );
      }
    },
    expect(left) {
      expected = left;
    },
  };
}

function kindOf({ service, isChange }: Call): Kind {
  return service === 'store' ? 'statements' : isChange ? 'changes' : 'reads';
}

function nameOf({ service, method }: Call): string {
  return `${service}.${method}`;
}
