import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import slugid from 'slugid';
import { isTaskId } from '../../src/domain/task.ts';
import { parseTaskMessage } from '../../src/listeners/messages.ts';
import { excerpt } from '../../src/log.ts';
import { tried } from '../support/hostile-input.ts';

const TASK_ID = 'RwycG7IhT6CSdg6WvVhkGw';

const parse = (value: unknown) => parseTaskMessage(Buffer.from(JSON.stringify(value)));

interface Recorded {
  readonly kind: string;
  readonly exchange?: string;
  readonly payload?: { readonly status?: { readonly taskId: string }; readonly runId?: number };
}

function recordedMessages(): readonly Recorded[] {
  const file = path.resolve(import.meta.dirname, '../fixtures/taskcluster-queue-106.json');
  const entries: readonly Recorded[] = JSON.parse(readFileSync(file, 'utf8'));
  return entries.filter(({ exchange }) => /\/task-(pending|exception)$/.test(exchange ?? ''));
}

describe('parseTaskMessage', () => {
  it('reads every recorded task-pending and task-exception message', () => {
    const messages = recordedMessages();
    expect(messages.length).toBeGreaterThan(10);
    for (const { payload } of messages) {
      expect(parse(payload)).toEqual({ kind: 'task', taskId: payload?.status?.taskId, runId: payload?.runId ?? null });
    }
  });

  it('reads every slugid', () => {
    for (let count = 0; count < 200; count += 1) {
      const taskId = count % 2 ? slugid.nice() : slugid.v4();
      expect(parse({ status: { taskId } })).toEqual({ kind: 'task', taskId, runId: null });
    }
  });

  it('ignores keys it does not know', () => {
    expect(parse({ status: { taskId: TASK_ID, new: [1] }, runId: 3, version: 2, x: {} })).toEqual({
      kind: 'task',
      taskId: TASK_ID,
      runId: 3,
    });
  });

  it.each([
    ['nothing', ''],
    ['no JSON', '{"status":'],
    ['no object', '[]'],
    ['null', 'null'],
    ['no status', '{}'],
    ['no taskId', '{"status":{}}'],
    ['a taskId that is a number', '{"status":{"taskId":7}}'],
    ['a taskId that is too short', '{"status":{"taskId":"RwycG7IhT6CSdg6WvVhkG"}}'],
    ['a taskId that is too long', '{"status":{"taskId":"RwycG7IhT6CSdg6WvVhkGww"}}'],
    ['a taskId that ends in a newline', '{"status":{"taskId":"RwycG7IhT6CSdg6WvVhkGw\\n"}}'],
    ['a taskId with a slash', '{"status":{"taskId":"RwycG7IhT6CSdg6W/VhkGw"}}'],
    ['a taskId that is a path', '{"status":{"taskId":"../../../../../../../a"}}'],
    ['a last character that no slugid has', '{"status":{"taskId":"RwycG7IhT6CSdg6WvVhkGx"}}'],
    ['a UUID of another version', '{"status":{"taskId":"RwycG7IhJ6CSdg6WvVhkGw"}}'],
    ['a UUID of another variant', '{"status":{"taskId":"RwycG7IhT6BSdg6WvVhkGw"}}'],
    ['a negative runId', `{"status":{"taskId":"${TASK_ID}"},"runId":-1}`],
    ['a broken runId', `{"status":{"taskId":"${TASK_ID}"},"runId":1.5}`],
    ['deeper JSON than anyone sends', '['.repeat(500_000)],
    ['more than a message has', `{"status":{"taskId":"${TASK_ID}"},"x":"${'x'.repeat(2_000_000)}"}`],
  ])('calls %s malformed', (_what, text) => {
    tried('task messages');
    expect(parseTaskMessage(Buffer.from(text))).toEqual({ kind: 'malformed', reason: expect.any(String) });
  });

  it('does not show the payload in its reason', () => {
    const parsed = parse({ status: { taskId: 'a secret text' }, runId: 'another secret' });
    expect(parsed.kind).toBe('malformed');
    expect(JSON.stringify(parsed)).not.toContain('secret');
  });

  it('never throws, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        tried('task messages');
        expect(parseTaskMessage(Buffer.from(bytes)).kind).toBe('malformed');
      }),
    );
  });

  it('never throws, whatever the JSON, and lets only slugids through', () => {
    const taskId = fc.oneof(fc.constant(TASK_ID), fc.string(), fc.jsonValue());
    const value = fc.oneof(
      fc.jsonValue(),
      fc.record({ status: fc.record({ taskId }), runId: fc.jsonValue() }, { requiredKeys: ['status'] }),
    );
    fc.assert(
      fc.property(value, (json) => {
        tried('task messages');
        const parsed = parse(json);
        expect(parsed.kind === 'malformed' || isTaskId(parsed.taskId)).toBe(true);
      }),
    );
  });
});

describe('excerpt', () => {
  it('cuts a message to 200 characters', () => {
    expect(excerpt(Buffer.from('x'.repeat(5000)))).toBe('x'.repeat(200));
  });

  it('escapes what could be taken for something else', () => {
    expect(excerpt(Buffer.from('a\n\u001b[31m\u202eb\u2028'))).toBe('a\\u000a\\u001b[31m\\u202eb\\u2028');
  });

  it('is short and plain, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => {
        const text = excerpt(Buffer.from(bytes));
        expect(text.length).toBeLessThanOrEqual(200);
        expect(text).not.toMatch(/[\p{Cc}\p{Cf}]/u);
        expect(Buffer.from(text).toString()).toBe(text);
      }),
    );
  });
});
