import type { InputCounter } from '../../src/ports.ts';

/** Counts in the open: `counts` has an entry such as `rejected task-message` for whatever was counted. */
export function countInputs(): InputCounter & { readonly counts: Readonly<Record<string, number>> } {
  const counts: Record<string, number> = {};
  const count = (what: string) => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  return {
    counts,
    received: (source) => count(`received ${source}`),
    rejected: (source) => count(`rejected ${source}`),
  };
}
