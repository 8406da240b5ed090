import { describe, expect, it } from '@jest/globals';
import { mappingOf, placeOf, whyKnown } from '../../src/adopt/plan.ts';
import { readRow } from '../../src/db/first-bridge.ts';
import { byTask, type FirstBridgeRow } from '../../src/domain/first-bridge.ts';
import {
  aMapping,
  anothers,
  aTask,
  exception,
  MINUTE,
  NOW,
  ours,
  POLICY,
  pending,
  TASK_ID,
} from '../support/builders.ts';

const aRow = (more: Partial<FirstBridgeRow> = {}): FirstBridgeRow => ({
  taskId: TASK_ID,
  runId: 0,
  buildRequestId: 17,
  created: NOW,
  takenUntil: null,
  ...more,
});
const place = (row: FirstBridgeRow, ...runs: Parameters<typeof aTask>[0]) => placeOf(row, aTask(runs), POLICY);

describe('where a task is taken up', () => {
  it('at its last run, when the row knows it', () => {
    expect(place(aRow({ takenUntil: NOW }), pending())).toMatchObject({ kind: 'adopt', runId: 0, takenUntil: null });
    expect(place(aRow(), ours())).toMatchObject({ runId: 0, takenUntil: NOW + 20 * MINUTE });
  });

  it("with the row's end of the claim, when the queue does not tell one", () => {
    const { takenUntil: _, ...silent } = ours();
    expect(place(aRow({ takenUntil: NOW + MINUTE }), silent)).toMatchObject({ takenUntil: NOW + MINUTE });
  });

  it('at the next run after a RETRY, which the first bridge reported in its own way', () => {
    expect(place(aRow(), exception('malformed-payload'), pending())).toMatchObject({ runId: 1, retriesReported: 1 });
  });

  it.each(['canceled', 'claim-expired', 'deadline-exceeded', 'worker-shutdown'])(
    "at the row's own run, when that ended %s: the table decides what serves the next",
    (reason) => {
      expect(place(aRow(), exception(reason), pending())).toMatchObject({ runId: 0, takenUntil: null });
    },
  );

  it('at the last run, when the row claims a later one or has no request', () => {
    expect(place(aRow({ runId: 7 }), pending())).toMatchObject({ runId: 0 });
    expect(place(aRow({ buildRequestId: null }), exception('canceled'), pending())).toMatchObject({ runId: 1 });
  });

  it('counts as many RETRYs as reported as there can have been', () => {
    const runs = [exception('malformed-payload'), exception('claim-expired'), ours()];
    expect(place(aRow({ runId: 2 }), ...runs)).toMatchObject({ retriesReported: 2 });
  });

  it('also when its task is resolved or gone: its request may be open', () => {
    expect(place(aRow(), exception('deadline-exceeded'))).toMatchObject({ kind: 'adopt', takenUntil: null });
    expect(placeOf(aRow({ runId: 3, takenUntil: NOW }), null, POLICY)).toMatchObject({ runId: 3, takenUntil: null });
  });

  it("not at all, when this bridge's identity is not the one that claimed it", () => {
    expect(place(aRow(), anothers())).toMatchObject({ kind: 'skip', why: expect.stringContaining('somebody-else') });
    expect(place(aRow())).toMatchObject({ kind: 'skip' });
    expect(placeOf(aRow(), aTask([pending()], { taskQueueId: 'a/b' }), POLICY)).toMatchObject({ kind: 'skip' });
  });
});

describe('what is known', () => {
  it('tells of a request that nobody follows', () => {
    expect(whyKnown([], aRow(), 0)).toBeUndefined();
    expect(whyKnown([aMapping()], aRow(), 0)).toBe('the bridge has it already');
    expect(whyKnown([aMapping({ buildRequestId: 18 })], aRow(), 0)).toContain('nobody follows build request 17');
  });

  it('knows what is over, but not a later run with another request', () => {
    const closed = aMapping({ state: 'closed', buildRequestId: 16 });
    expect(whyKnown([closed], aRow(), 0)).toContain('to its end');
    expect(whyKnown([closed], aRow({ buildRequestId: 16 }), 1)).toContain('to its end');
    expect(whyKnown([closed], aRow(), 1)).toBeUndefined();
  });
});

it('begins with what can be known of a task that is gone', () => {
  const row = aRow({ buildRequestId: null });
  const where = placeOf(row, null, POLICY);
  const mapping = where.kind === 'adopt' ? mappingOf(row, null, where, '', NOW) : undefined;
  expect(mapping).toMatchObject({ state: 'intended', submissions: 0, taskGroupId: TASK_ID, priority: 0 });
  expect(mapping?.deadline).toBe(NOW + 5 * 24 * 60 * MINUTE);
});

it('goes by the highest run with a request, then by the claimed one, then by the older request', () => {
  const rows = [
    aRow({ runId: 2, buildRequestId: null }),
    aRow({ runId: 1, buildRequestId: 5 }),
    aRow({ runId: 1, buildRequestId: 9, takenUntil: NOW }),
    aRow({ runId: 1, buildRequestId: 4 }),
    aRow({ runId: 0, buildRequestId: 1, takenUntil: NOW }),
  ];
  const [task, ...others] = byTask(rows);
  expect(others).toEqual([]);
  expect([task?.best, ...(task?.rest ?? [])].map((row) => row?.buildRequestId)).toEqual([9, 4, 5, 1, null]);
});

it('reads rows as any engine answers them, and says what is wrong with others', () => {
  const raw = { taskId: TASK_ID, runId: 1, buildrequestId: '17', createdDate: 1_790_000_000, takenUntil: 0 };
  expect(readRow(raw)).toEqual({
    kind: 'row',
    row: { taskId: TASK_ID, runId: 1, buildRequestId: 17, created: 1_790_000_000_000, takenUntil: null },
  });
  // A time that cannot be read is not worth losing the row for.
  expect(readRow({ ...raw, takenUntil: 'soon', createdDate: undefined })).toMatchObject({ row: { created: null } });
  for (const [wrong, why] of [
    [{ taskId: `${TASK_ID} ` }, 'its taskId is no slugid'],
    [{ taskId: null }, 'its taskId is not what it should be'],
    [{ runId: 1.5 }, 'its runId is not what it should be'],
    [{ buildrequestId: -1 }, 'its buildrequestId is not positive'],
  ] as const) {
    expect(readRow({ ...raw, ...wrong })).toMatchObject({ kind: 'unusable', why });
  }
  expect(readRow('nothing')).toMatchObject({ kind: 'unusable' });
});
