/** JSON that is nested deeper than what can be written again: reading it is no trouble, writing it would fail. */
import { describe, expect, it } from '@jest/globals';
import { forceParameters } from '../../src/buildbot/data-api/force-parameters.ts';
import { parseEvent } from '../../src/buildbot/scheduler-db/messages.ts';
import { submissionProblems } from '../../src/buildbot/scheduler-db/submission.ts';
import type { TaskDefinition } from '../../src/domain/task.ts';
import { textOf, writable } from '../../src/json.ts';
import { parseTaskMessage } from '../../src/listeners/messages.ts';
import { parsePayload } from '../../src/reflector/admission.ts';
import { NOW, TASK_ID } from '../support/builders.ts';
import { tried } from '../support/hostile-input.ts';

const DEPTHS = [10, 1000, 100_000] as const;
const nested = (depth: number) => `${'{"a":['.repeat(depth)}1${']}'.repeat(depth)}`;

it.each(DEPTHS)('a payload %i deep is refused, or can be sent', (depth) => {
  tried('payloads');
  const payload: unknown = JSON.parse(`{"buildername":"b","properties":{"product":"p","deep":${nested(depth)}}}`);
  const identity = { taskQueueId: 'a/b', schedulerId: 's', taskGroupId: TASK_ID, scopes: [] };
  const definition: TaskDefinition = { ...identity, priority: 'low', deadline: NOW, expires: NOW, payload };
  const parsed = parsePayload({ taskId: TASK_ID, runId: 0, externalId: 'e', scheduled: NOW }, definition);
  if (depth > 100) {
    expect(parsed).toMatchObject({ problems: [{ where: 'payload', what: expect.stringContaining('deep') }] });
    return;
  }
  expect(parsed).toHaveProperty('spec');
  if ('spec' in parsed) {
    const scheduler = { name: 'f', builder_names: ['b'], all_fields: [] };
    expect(forceParameters(parsed.spec, scheduler).problems.length).toBeGreaterThan(0);
    expect(submissionProblems(parsed.spec, { kind: 'A', limits: new Map() })).toEqual([]);
  }
});

describe.each(DEPTHS)('a message %i deep', (depth) => {
  it('of a build is read without what is deep in it', () => {
    tried('build events');
    const deep = nested(depth);
    const body = `{"payload":{"build":{"number":1,"times":[${deep}],"properties":[["taskId","${TASK_ID}","s"],["deep",${deep},"s"],["source",1,${deep}]]},"request_ids":[7]}}`;
    const parsed = parseEvent('build.b.1.finished', Buffer.from(body));
    expect(parsed).toMatchObject({ kind: 'event', taskId: TASK_ID, buildRequestIds: [7] });
    expect(() => JSON.stringify(parsed)).not.toThrow();
  });

  it('of a task is read or malformed', () => {
    tried('task messages', 2);
    const body = Buffer.from(`{"status":{"taskId":"${TASK_ID}","runs":${nested(depth)}}}`);
    expect(parseTaskMessage(body)).toEqual({ kind: 'task', taskId: TASK_ID, runId: null });
    expect(parseTaskMessage(Buffer.from(nested(depth)))).toMatchObject({ kind: 'malformed' });
  });

  it('is a text, and a property that can be stored, in any case', () => {
    const value: unknown = JSON.parse(nested(depth));
    expect(typeof textOf(value)).toBe('string');
    expect(JSON.stringify(writable(value))).toBe(depth > 100 ? '"nested too deep to be kept"' : nested(depth));
  });
});
