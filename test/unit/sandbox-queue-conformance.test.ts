/** Replays what was recorded of a real queue: the emulated one has to answer and publish the same, in the same order. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { type QueueFixture, startQueue } from '../support/queue-emulator.ts';

const pulseEntry = z.object({
  kind: z.literal('pulse'),
  exchange: z.string(),
  routingKey: z.string(),
  properties: z.object({ headers: z.object({ CC: z.array(z.string()) }) }),
  payload: z.record(z.string(), z.unknown()),
});
const callEntry = z.object({
  kind: z.literal('api'),
  method: z.string(),
  args: z.array(z.unknown()),
  result: z.unknown(),
});
const errorEntry = z.object({
  kind: z.literal('api-error'),
  method: z.string(),
  args: z.array(z.unknown()),
  statusCode: z.number(),
  code: z.string(),
  body: z.object({ code: z.string(), message: z.string() }),
});
const noteEntry = z.object({ kind: z.literal('note'), text: z.string() });
const recordingSchema = z.array(z.discriminatedUnion('kind', [pulseEntry, callEntry, errorEntry, noteEntry]));

type Pulse = Pick<z.infer<typeof pulseEntry>, 'exchange' | 'routingKey' | 'payload'> & { cc: readonly string[] };
type Call = z.infer<typeof callEntry> | z.infer<typeof errorEntry>;

const recording = recordingSchema.parse(
  JSON.parse(readFileSync(new URL('../fixtures/taskcluster-queue-106.json', import.meta.url), 'utf8')),
);

const isTaskIn = (ids: ReadonlySet<string>) => (value: unknown) =>
  z.object({ taskId: z.string() }).safeParse(value).data !== undefined &&
  ids.has(z.object({ taskId: z.string() }).parse(value).taskId);

/** Tasks that the recording creates. Others were left over in the queue when it began. */
const created = new Set(
  recording.flatMap((entry) => (entry.kind === 'api' && entry.method === 'createTask' ? [String(entry.args[0])] : [])),
);
const ownGroups = new Set(
  recording.flatMap((entry) =>
    entry.kind === 'api' && entry.method === 'createTask'
      ? [z.object({ taskGroupId: z.string() }).parse(entry.args[1]).taskGroupId]
      : [],
  ),
);

const isGroupResolved = (message: Pulse) => message.exchange.endsWith('/task-group-resolved');
const isOwn = (message: Pulse) => {
  const id = message.routingKey.split('.')[1] ?? '';
  return created.has(id) || ownGroups.has(id);
};

interface Step {
  readonly call: Call;
  readonly messages: readonly Pulse[];
}

/**
 * Each call with the messages that came before its answer. Background services of the real queue announce resolved
 * groups some seconds later, in between other calls' messages: those are compared by themselves.
 */
function readSteps(): { steps: Step[]; groupsResolved: Pulse[] } {
  const steps: Step[] = [];
  const groupsResolved: Pulse[] = [];
  let pending: Pulse[] = [];
  for (const entry of recording) {
    if (entry.kind === 'pulse') {
      const message = { ...entry, cc: entry.properties.headers.CC };
      // The recording begins with the end of a task from before it.
      if (isOwn(message)) {
        (isGroupResolved(message) ? groupsResolved : pending).push(message);
      }
    } else if (entry.kind !== 'note') {
      steps.push({ call: entry, messages: pending });
      pending = [];
    }
  }
  return { steps, groupsResolved };
}

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/;
/** Times that depend on when exactly the queue did something. Those that the caller gave are compared as they are. */
const VOLATILE_TIMES = new Set(['takenUntil', 'scheduled', 'started', 'resolved', 'inserted', 'claimed', 'firstClaim']);
const MORE_VOLATILE_TIMES = new Set(['lastDateActive']);

function normaliseEntry(key: string, value: unknown, method: string): unknown {
  if (typeof value === 'string' && (VOLATILE_TIMES.has(key) || MORE_VOLATILE_TIMES.has(key))) {
    // How it is written is part of the comparison.
    return value.replace(ISO, '<time>$2');
  }
  if (key === 'expires' && (method === 'quarantineWorker' || method === 'createArtifact')) {
    return '<time>';
  }
  if (key === 'putUrl' && typeof value === 'string') {
    return new URL(value).pathname;
  }
  if (key === 'credentials') {
    return Object.keys(z.record(z.string(), z.unknown()).parse(value)).sort();
  }
  // Lists of the whole queue hold tasks from before the recording.
  if (Array.isArray(value) && (key === 'recentTasks' || (key === 'tasks' && method.startsWith('list')))) {
    return normalise(value.filter(isTaskIn(created)), method);
  }
  return normalise(value, method);
}

function normalise(value: unknown, method: string): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => normalise(item, method));
  }
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, normaliseEntry(key, item, method)]));
  }
  return value;
}

function normaliseMessage(message: Pulse) {
  const { exchange, routingKey, cc, payload } = message;
  return { exchange, routingKey, cc, payload: normalise(payload, 'message') };
}

function normaliseText(text: string): string {
  return text
    .replace(/^\* time: .*$/m, '* time')
    .replace(/"(takenUntil|scheduled|started|resolved)": "[^"]*"/g, '"$1": "<time>"')
    .replace(/incidentId [\w-]+/, 'incidentId <id>')
    .replace(/http:\/\/127\.0\.0\.1:\d+/g, '<rootUrl>')
    .replace(/\n {4}at .*/g, '');
}

/** When a call was made, as far as its answer tells: the latest of the times in it that the queue made. */
function timeOf({ call, messages }: Step): number {
  if (call.kind === 'api-error') {
    return Date.parse(/^\* time: +(.*)$/m.exec(call.body.message)?.[1] ?? '');
  }
  const texts = [...messages.map(({ payload }) => payload), call.result].map((value) => JSON.stringify(value));
  const times = texts.flatMap((text) =>
    [...text.matchAll(/"(?:scheduled|started|resolved)":"([^"]+)"/g)].map((match) => Date.parse(match[1] ?? '')),
  );
  return Math.max(0, ...times);
}

const { steps, groupsResolved } = readSteps();

describe('the emulated queue, replaying the recording of a real one', () => {
  let fixture: QueueFixture;
  beforeAll(async () => {
    fixture = await startQueue({ at: timeOf(steps[0] ?? { call: noCall(), messages: [] }) });
    // The worker was known from before the recording; the emulator learns of it when it asks for work.
    await fixture.ok('claimWork', 'buildbot/bridge', { workerGroup: 'buildbot-bridge', workerId: 'buildbot-bridge' });
  });
  afterAll(() => fixture.stop());

  it.each(steps.map((step, index) => ({ step, name: `${index}: ${step.call.method} ${String(step.call.args[0])}` })))(
    '$name',
    async ({ step }) => {
      const { call } = step;
      fixture.clock.set(Math.max(fixture.clock.now(), timeOf(step)));
      const before = fixture.messages.length;
      const result = await fixture.call(call.method, call.args);
      const published = fixture.messages.slice(before).filter((message) => !isGroupResolved(message));
      expect(published.map(normaliseMessage)).toEqual(step.messages.map(normaliseMessage));
      if (call.kind === 'api') {
        expect(result).toMatchObject({ ok: true });
        expect(result.ok && normalise(result.answer, call.method)).toEqual(normalise(call.result, call.method));
      } else {
        expect(result).toMatchObject({ ok: false, status: call.statusCode, code: call.code });
        expect(normaliseText(result.ok ? '' : result.message)).toBe(normaliseText(call.body.message));
      }
    },
  );

  it('announces the same resolved groups, as often', () => {
    const byText = (messages: readonly Pulse[]) =>
      messages.map((message) => JSON.stringify(normaliseMessage(message))).sort();
    expect(byText(fixture.messages.filter(isGroupResolved))).toEqual(byText(groupsResolved));
  });

  it('resolves the deadline about a minute late, as the message at the beginning of the recording shows', async () => {
    const recorded = pulseEntry.parse(recording[0]);
    const taskId = 'K2Qfn7fnSKav3aZV_kMRKQ';
    const before = fixture.messages.length;
    fixture.clock.set(Date.parse('2026-11-23T21:03:03.916Z') + 59_999);
    fixture.emulator.tick();
    await fixture.emulator.published();
    expect(fixture.messages).toHaveLength(before);
    fixture.clock.advance(1);
    fixture.emulator.tick();
    await fixture.emulator.published();
    // The recorded task is another one: its ids and dates are put in the place of this one's.
    // Seen on a real 106: the end of the task's group is announced first.
    const [, message] = fixture.messages.slice(before);
    const status = z.record(z.string(), z.unknown()).parse(recorded.payload.status);
    const { taskGroupId, deadline, expires } = fixture.emulator.tasks.get(taskId)?.definition ?? {};
    const expected = { ...recorded.payload, status: { ...status, taskId, taskGroupId, deadline, expires } };
    expect(message?.exchange).toBe(recorded.exchange);
    expect(message?.routingKey).toBe(`primary.${taskId}.0._._.buildbot.bridge.test-sched.${taskGroupId}._`);
    expect(normalise(message?.payload, 'message')).toEqual(normalise(expected, 'message'));
  });
});

function noCall(): Call {
  return { kind: 'api', method: 'ping', args: [], result: {} };
}
