/** What happened in one simulation, line by line, and what of it must not have happened. */
import { createHash } from 'node:crypto';

export interface History {
  note(who: string, what: string): void;
  /** Something that must never happen; the simulation goes on, so that the first of several can be told. */
  complain(what: string): void;
  /** A fault that the bridge had to live with. */
  fault(kind: string): void;
  readonly complaints: readonly string[];
  readonly faults: ReadonlyMap<string, number>;
  /** Times are since the beginning. */
  lines(): readonly string[];
  /** Of all lines: two equal ones are the same history, to the byte. */
  digest(): string;
}

/** A simulation that goes wrong in one way often does so at every step. */
const MAX_COMPLAINTS = 20;

export function createHistory(start: number, now: () => number): History {
  const entries: { readonly at: number; readonly who: string; readonly what: string }[] = [];
  const complaints: string[] = [];
  const faults = new Map<string, number>();

  function note(who: string, what: string): void {
    entries.push({ at: now(), who, what });
  }
  const lines = () => entries.map(({ at, who, what }) => `${time(at - start)} ${who.padEnd(9)} ${what}`);

  return {
    note,
    complain(what) {
      if (complaints.length < MAX_COMPLAINTS) {
        complaints.push(`${time(now() - start)} ${what}`);
        note('!!', what);
      }
    },
    fault(kind) {
      faults.set(kind, (faults.get(kind) ?? 0) + 1);
    },
    complaints,
    faults,
    lines,
    digest: () => createHash('sha256').update(lines().join('\n')).digest('hex'),
  };
}

/** `h:mm:ss.mmm` */
function time(ms: number): string {
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  const whole = Math.floor(ms / 1000);
  return `${Math.floor(whole / 3600)}:${two((whole / 60) % 60)}:${two(whole % 60)}.${String(ms % 1000).padStart(3, '0')}`;
}
