/** How much the bridge asks of the outside: whatever it has to do, no process does it without end. */
import type { History } from './history.ts';
import type { Call, Host } from './host.ts';
import { shortName } from './names.ts';
import type { Scheduler } from './scheduler.ts';

export interface Traffic {
  /** A process is about to make a call. */
  onCall(host: Host, call: Call): void;
  /**
   * From now on nothing disturbs, people included, and there are so many tasks to look after, requests to hear of, and
   * pages of claims to read. Before that all is let pass.
   */
  expect(things: number): void;
}

type Kind = 'reads' | 'statements' | 'changes';
/** Calls in a minute. */
type Most = Readonly<Record<Kind, number>>;

/** In the current minute. */
interface Counted {
  readonly minute: number;
  readonly own: Record<Kind, number>;
  readonly byTask: Map<string, Record<Kind, number>>;
}

const MINUTE = 60_000;
/** Of a process that has nothing to look after: its rounds. */
const OWN: Most = { reads: 40, statements: 60, changes: 30 };
/** More of it for each thing that there is. */
const FOR_EACH: Most = { reads: 30, statements: 50, changes: 20 };
/** Of a process for one task: a lease that another has is asked for every second. */
const FOR_ONE: Most = { reads: 60, statements: 150, changes: 60 };

export function createTraffic({ now }: Pick<Scheduler, 'now'>, { complain }: Pick<History, 'complain'>): Traffic {
  const counted = new WeakMap<Host, Counted>();
  let expected: number | undefined;

  function countedOf(host: Host): Counted {
    const minute = Math.floor(now() / MINUTE);
    let counts = counted.get(host);
    if (counts?.minute !== minute) {
      counts = { minute, own: nothing(), byTask: new Map() };
      counted.set(host, counts);
    }
    return counts;
  }

  return {
    onCall(host, call) {
      if (expected === undefined) {
        return;
      }
      const { own, byTask } = countedOf(host);
      const { taskId } = call;
      const kind = kindOf(call);
      own[kind] += 1;
      // Told once a minute.
      if (own[kind] === OWN[kind] + FOR_EACH[kind] * expected + 1) {
        complain(`${host.name} goes round in circles: too many ${kind} in a minute, the last was ${nameOf(call)}`);
      }
      if (taskId === undefined) {
        return;
      }
      const ones = byTask.get(taskId) ?? nothing();
      byTask.set(taskId, ones);
      ones[kind] += 1;
      if (ones[kind] === FOR_ONE[kind] + 1) {
        complain(
          `${host.name} goes round in circles about ${shortName(taskId)}: the last of many ${kind} was ${nameOf(call)}`,
        );
      }
    },
    expect(left) {
      expected = left;
    },
  };
}

function nothing(): Record<Kind, number> {
  return { reads: 0, statements: 0, changes: 0 };
}

function kindOf({ service, isChange }: Call): Kind {
  return service === 'store' ? 'statements' : isChange ? 'changes' : 'reads';
}

function nameOf({ service, method }: Call): string {
  return `${service}.${method}`;
}
