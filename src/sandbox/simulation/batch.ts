/** Many seeds, one after the other, and what is to be said of them together. Plain data: it travels between processes. */
import type { Mutation } from './mutation-parts.ts';
import { MUTATIONS } from './mutations.ts';
import { type Report, simulate } from './simulation.ts';

export interface Failure {
  readonly seed: number;
  readonly complaints: readonly string[];
  /** The last lines of its history up to the first complaint. */
  readonly trace: readonly string[];
}

export interface Totals {
  seeds: number;
  steps: number;
  virtualMs: number;
  tasks: number;
  readonly faults: Record<string, number>;
  readonly resolutions: Record<string, number>;
  readonly failures: Failure[];
}

const TRACE_LINES = 60;

export function noTotals(): Totals {
  return { seeds: 0, steps: 0, virtualMs: 0, tasks: 0, faults: {}, resolutions: {}, failures: [] };
}

/** Adds what came of more seeds. */
export function addTotals(to: Totals, more: Totals): void {
  to.seeds += more.seeds;
  to.steps += more.steps;
  to.virtualMs += more.virtualMs;
  to.tasks += more.tasks;
  addCounts(to.faults, Object.entries(more.faults));
  addCounts(to.resolutions, Object.entries(more.resolutions));
  to.failures.push(...more.failures);
}

function addCounts(to: Record<string, number>, more: Iterable<readonly [string, number]>): void {
  for (const [key, count] of more) {
    to[key] = (to[key] ?? 0) + count;
  }
}

/** @throws if there is no such mutation */
export async function simulateMany(from: number, count: number, mutation?: string): Promise<Totals> {
  const totals = noTotals();
  for (let seed = from; seed < from + count; seed += 1) {
    const report = await simulateOne(seed, mutation);
    totals.seeds += 1;
    totals.steps += report.steps;
    totals.virtualMs += report.virtualMs;
    totals.tasks += report.tasks;
    addCounts(totals.faults, report.faults);
    addCounts(totals.resolutions, report.resolutions);
    if (report.complaints.length > 0) {
      totals.failures.push({ seed, complaints: report.complaints, trace: untilComplaint(report) });
    }
  }
  return totals;
}

/** @throws if there is no such mutation */
export function simulateOne(seed: number, mutation?: string): Promise<Report> {
  return simulate(seed, mutation === undefined ? undefined : mutationNamed(mutation).mutate);
}

/** @throws if there is none */
export function mutationNamed(name: string): Mutation {
  const found = MUTATIONS.find((mutation) => mutation.name === name);
  if (found === undefined) {
    throw new Error(`no mutation "${name}": there are ${MUTATIONS.map((mutation) => mutation.name).join(', ')}`);
  }
  return found;
}

function untilComplaint(report: Report): readonly string[] {
  const lines = report.trace();
  const first = lines.findIndex((line) => line.includes(' !! '));
  // Rounds in which nothing was due say nothing.
  const telling = lines
    .slice(0, first + 1)
    .filter((line) => !/ store\.(heartbeat|leaseDue|prune|openAmong)| queue\.list/.test(line));
  return telling.slice(-TRACE_LINES);
}
