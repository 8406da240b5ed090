/** Hostile input is counted where it is fed in; at the end `scripts/test.mjs` says how much of it there was. */
import { appendFileSync } from 'node:fs';
import { afterAll } from '@jest/globals';

/** Where something of others comes in. */
export type Edge =
  | 'task messages'
  | 'build events'
  | 'WebSocket frames'
  | 'configuration values'
  | 'configuration files'
  | 'payloads'
  | 'payloads that arrived at an emulated Buildbot'
  | 'properties for the scheduler database'
  | 'spellings of a restricted builder'
  | 'spellings that MySQL takes for one name'
  | 'rows of the mapping database'
  | 'rows of a scheduler database'
  | 'answers of a Data API, a web status or Self-serve'
  | 'answers of the queue or of auth'
  | 'statuses that no queue has'
  | 'URLs of logs';

/** Of this file of tests. */
const counts = new Map<Edge, number>();

export function tried(edge: Edge, count = 1): void {
  counts.set(edge, (counts.get(edge) ?? 0) + count);
}

afterAll(() => {
  // Where nobody collects them, the counts are not wanted.
  const file = process.env.BBB_HOSTILE_INPUT;
  if (file !== undefined) {
    appendFileSync(file, [...counts].map(([edge, count]) => `${JSON.stringify({ edge, count })}\n`).join(''));
  }
});
