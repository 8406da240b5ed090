import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { Listed, Mapping } from '../../src/domain/mapping.ts';
import { showJson, showList, showTask } from '../../src/tasks/show.ts';

const NOW = Date.UTC(2026, 10, 25, 1, 2, 3);
const TASK = 'V5hXmKyBQ0uJ2TFOTdZqGg';
const HOSTILE = 'a\u001b]0;owned\u0007\r\n\u009b31m\u202ez\u2028\u0000\ud83e.';

function aMapping(more: Partial<Mapping> = {}): Mapping {
  return {
    ...{ id: 12, version: 3, taskId: TASK, runId: 1, taskGroupId: TASK, builder: 'linux64-build', state: 'submitted' },
    ...{
      externalId: `${TASK}/1/1`,
      submissions: 1,
      buildRequestId: 17,
      collapseKey: null,
      hasSlot: false,
      priority: 2,
    },
    ...{
      retriesReported: 0,
      reruns: 0,
      cancels: 0,
      takenUntil: null,
      reclaimAt: null,
      deadline: NOW,
      absentSince: null,
      requestAbsentSince: null,
    },
    ...{ nextCheckAt: NOW + 1000, leaseOwner: null, leaseUntil: 0, attempts: 0, lastError: null },
    ...{ created: NOW, updated: NOW, resolved: null, resolution: null },
    ...more,
  };
}
const listed = (more: Partial<Mapping> = {}): Listed => ({ kind: 'mapping', mapping: aMapping(more) });
const UNREADABLE: Listed = { kind: 'unreadable', id: 13, taskId: TASK };
const event = { taskId: TASK, runId: null, at: NOW, instance: 'i', what: 'claimRun', detail: 'the build has started' };

describe('the list of mappings', () => {
  it('is a table with a line for each', () => {
    const failing = listed({ attempts: 3, lastError: 'the queue is away', nextCheckAt: NOW, buildRequestId: null });
    expect(showList([failing, UNREADABLE, listed({ state: 'held' })], NOW)).toEqual([
      'task/run                  state       builder        request  attempts  next look             last error',
      `${TASK}/1  submitted   linux64-build  -        3         now                   the queue is away`,
      `${TASK}    unreadable  -              -        -         -                     row 13 of the table tasks cannot be read`,
      `${TASK}/1  held        linux64-build  17       0         2026-11-25T01:02:04Z  -`,
    ]);
  });

  it('shortens what is long, never within a character', () => {
    const [, line = ''] = showList([listed({ lastError: '🦊'.repeat(500), builder: 'b'.repeat(255) })], NOW);
    expect(line).toContain(` ${'b'.repeat(60)}… `);
    expect(line).toMatch(/ 🦊{100}…$/u);
  });
});

describe('a task', () => {
  it('has all of its mappings, whole errors, and its trace', () => {
    const lastError = 'x'.repeat(2000);
    const closed = { id: 11, runId: 0, state: 'closed', resolved: NOW, resolution: 'failed' } as const;
    const lines = showTask([listed({ lastError, takenUntil: NOW }), listed(closed), UNREADABLE], [event]);
    expect(lines).toContain(`mapping 12: task ${TASK}, run 1, submitted`);
    expect(lines).toContain(`  last error    ${lastError}`);
    expect(lines).toContain('  taken until   2026-11-25T01:02:03Z');
    expect(lines).toContain('  next look     never');
    expect(lines).toContain('  resolved      2026-11-25T01:02:03Z, failed');
    expect(lines.slice(-3)).toEqual([
      `row 13 of task ${TASK} cannot be read: correct it in the table tasks, or delete it`,
      'trace:',
      '  2026-11-25T01:02:03Z  -  claimRun  the build has started (i)',
    ]);
    expect(showTask([listed()], []).at(-1)).toBe('no trace');
  });
});

describe('JSON', () => {
  it('is a line for each, with everything', () => {
    const lines = showJson([listed({ lastError: HOSTILE }), UNREADABLE], [event]);
    expect(lines.map((line): unknown => JSON.parse(line))).toEqual([
      { kind: 'mapping', ...aMapping({ lastError: HOSTILE }) },
      UNREADABLE,
      { kind: 'event', ...event },
    ]);
  });
});

describe('hostile texts', () => {
  const text = fc.oneof(fc.constant(HOSTILE), fc.string({ unit: 'binary' }));
  it('and odd numbers are shown, on one line, without a character that a terminal would act on', () => {
    const number = fc.oneof(fc.double(), fc.constantFrom(8.7e15, -9e15, Number.NaN));
    fc.assert(
      fc.property(text, number, (bad, odd) => {
        const given: readonly Listed[] = [
          listed({ builder: bad, lastError: bad, externalId: bad, leaseOwner: bad, resolution: bad, resolved: odd }),
          listed({ taskId: bad, nextCheckAt: odd, deadline: odd, created: odd, takenUntil: odd }),
          { kind: 'unreadable', id: odd, taskId: bad },
        ];
        const events = [{ ...event, at: odd, what: bad, detail: bad, instance: bad }];
        const all = [...showList(given, NOW), ...showTask(given, events), ...showJson(given, events)];
        expect(all.filter((line) => /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.test(line))).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it('are escaped as JSON does it', () => {
    expect(showList([listed({ lastError: 'a\u001b[31m\nb\u{e0001}' })], NOW)[1]).toMatch(
      / a\\u001b\[31m\\u000ab\\udb40\\udc01$/,
    );
  });
});
