/**
 * Virtual time. Everything that happens is an event of this scheduler; between two events every promise that can go on
 * has gone on, so the order of everything follows from the order of the events alone.
 */

export interface Scheduler {
  /** True time, UTC milliseconds; no instance sees it but through its own clock. */
  now(): number;
  /** Does something after `ms`; events of the same moment keep the order in which they were asked for. */
  after(ms: number, run: () => void): void;
  /** Says that promises were settled, or the core was called: they go on before the next event. */
  stir(): void;
  /** How many events there were. */
  steps(): number;
  /** Until there is nothing left to happen, `isOver` says so or `until` has come. */
  run(until: number, isOver: () => boolean): Promise<void>;
}

interface Event {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

export function createScheduler(start: number): Scheduler {
  const heap: Event[] = [];
  let now = start;
  let order = 0;
  let steps = 0;
  let isStirred = false;

  return {
    now: () => now,
    after(ms, run) {
      order += 1;
      push(heap, { at: now + Math.max(0, Math.round(ms)), order, run });
    },
    stir() {
      isStirred = true;
    },
    steps: () => steps,
    async run(until, isOver) {
      for (;;) {
        if (isStirred) {
          isStirred = false;
          await everyPromise();
        }
        const next = heap[0];
        if (next === undefined || next.at > until || isOver()) {
          return;
        }
        pop(heap);
        now = next.at;
        steps += 1;
        next.run();
      }
    },
  };
}

/** Node comes to this only when its queue of microtasks is empty: a barrier, and no wait. */
function everyPromise(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

function push(heap: Event[], event: Event): void {
  let index = heap.length;
  heap.push(event);
  while (index > 0) {
    const parent = (index - 1) >> 1;
    const above = heap[parent];
    if (above === undefined || isBefore(above, event)) {
      break;
    }
    heap[index] = above;
    index = parent;
  }
  heap[index] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) {
    return;
  }
  let index = 0;
  for (;;) {
    const left = 2 * index + 1;
    const [a, b] = [heap[left], heap[left + 1]];
    if (a === undefined) {
      break;
    }
    const [child, place] = b !== undefined && isBefore(b, a) ? [b, left + 1] : [a, left];
    if (isBefore(last, child)) {
      break;
    }
    heap[index] = child;
    index = place;
  }
  heap[index] = last;
}
