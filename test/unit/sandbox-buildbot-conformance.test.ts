/** The emulated Buildbot against what a real 3.7 answered and announced, call by call and event by event. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import got from 'got';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { systemClock } from '../../src/clock.ts';
import { type BuildbotEmulator, createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import type { Attempt } from '../../src/sandbox/buildbot/state.ts';
import { createFaults } from '../../src/sandbox/faults.ts';
import { eventually } from '../support/eventually.ts';

const entrySchema = z.object({
  kind: z.string(),
  method: z.enum(['GET', 'POST']).optional(),
  path: z.string().optional(),
  request: z.unknown().optional(),
  status: z.number().optional(),
  response: z.unknown().optional(),
  message: z.object({ k: z.string().optional(), m: z.unknown().optional() }).optional(),
});
type Entry = z.infer<typeof entrySchema>;
const file = path.resolve(import.meta.dirname, '../fixtures/buildbot-3.7.json');
const RECORDING: readonly Entry[] = z.array(entrySchema).parse(JSON.parse(readFileSync(file, 'utf8')));

/** The recording begins on a master that had made so many of these. */
const BEFORE: Readonly<Record<string, number>> = {
  ...{ buildrequestid: 16, buildsetid: 16, bsid: 16, buildid: 13, stepid: 30, logid: 12 },
  ...{ buildrequests: 16, buildsets: 16, builds: 13, steps: 30, logs: 12 },
};
/** Reads what was there before the recording, or counts builds of before: nothing to compare. */
const OLDER = [/^\/api\/v2\/builds\?buildrequestid__eq=1&/];

const quick = (results: number, more: Partial<Attempt> = {}): Attempt => ({ results, durationMs: 60, ...more });
const stdio = [{ name: 'shell', log: 'hello\n' }];
const BUILDERS = [
  { name: 'exc', attempts: [quick(4)] },
  { name: 'slow', attempts: [{ results: 0, durationMs: 'wait' as const }] },
  { name: 'noworker', workers: [], attempts: [quick(0)] },
  { name: 'warn', attempts: [quick(1)] },
  {
    name: 'ok',
    attempts: [quick(0, { steps: [...stdio, { name: 'SetProperty' }], properties: { log_url: 'http://logs/x' } })],
  },
  { name: 'retry', attempts: [quick(5), quick(0)] },
  { name: 'fail', attempts: [quick(2, { steps: stdio })] },
].map((builder) => ({ workers: ['w1'], ...builder }));

let buildbot: BuildbotEmulator;
let socket: WebSocket;
const events: { k: string; m: unknown }[] = [];

beforeAll(async () => {
  buildbot = createBuildbotEmulator({
    clock: systemClock,
    version: '3.7',
    builders: BUILDERS,
    forceSchedulers: [
      {
        name: 'bridge',
        builderNames: ['ok', 'fail', 'warn', 'exc', 'retry', 'slow', 'noworker'],
        parameters: [{ name: 'taskId' }, { name: 'extra', type: 'any' }],
      },
    ],
    faults: createFaults(),
  });
  await buildbot.start();
  socket = new WebSocket(`${buildbot.url.replace('http', 'ws')}/ws`);
  await new Promise((resolve) => socket.once('open', resolve));
  const frame = z.object({ k: z.string(), m: z.unknown() });
  let confirmed = 0;
  socket.on('message', (data) => {
    const parsed = frame.safeParse(JSON.parse(data.toString()));
    if (parsed.success) {
      events.push(parsed.data);
    } else {
      confirmed += 1;
    }
  });
  ['buildsets/*/*', 'buildrequests/*/*', 'builds/*/*'].forEach((consumed, _id) => {
    socket.send(JSON.stringify({ cmd: 'startConsuming', path: consumed, _id }));
  });
  await eventually(() => confirmed === 3);
});
afterAll(async () => {
  socket?.close();
  await buildbot?.stop();
});

/** How many updates a build says on its way depends on its steps: only what changes a state is compared. */
const isTelling = (key: string) => !key.endsWith('/update');

/** Ids counted from the beginning of the recording; times, machine names and texts made alike. */
function alike(value: unknown, offset: boolean, key = ''): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => alike(item, offset, key));
  }
  if (typeof value === 'object' && value !== null) {
    // What a step is called depends on its command; what a build says does not.
    const entries = Object.entries(value).map(([name, inner]) => [
      name,
      name === 'state_string' && 'stepid' in value ? 'text' : alike(inner, offset, name),
    ]);
    return Object.fromEntries(entries.sort(([a], [b]) => String(a).localeCompare(String(b))));
  }
  if (typeof value === 'number') {
    return alikeNumber(value, offset, key);
  }
  if (typeof value === 'string' && ['state_string', 'error', 'builddir', 'created_at'].includes(key)) {
    return value.split(' ')[0]?.replace(/^not$|^Invalid$/, 'none');
  }
  return value;
}

function alikeNumber(value: number, offset: boolean, key: string): unknown {
  if (key.endsWith('_at')) {
    return 'time';
  }
  if (['number', 'workerid', 'ssid', 'num_lines', 'buildnumber', 'total', 'last_active'].includes(key)) {
    return 'number';
  }
  const before = BEFORE[key];
  return before === undefined || !offset ? value : value - before;
}

/** A recorded path or key, with the ids that the emulator gives. */
function mapped(text: string): string {
  return text
    .replace(/\b(buildrequests|buildsets|builds|steps|logs)\/(\d+)/g, (whole, kind: string, id: string) =>
      Number(id) > 100_000 ? whole : `${kind}/${Number(id) - (BEFORE[kind] ?? 0)}`,
    )
    .replace(/buildrequestid__eq=(\d+)/g, (_whole, id: string) => `buildrequestid__eq=${Number(id) - 16}`);
}

async function call(entry: Entry) {
  const { method = 'GET', path: recorded = '', request } = entry;
  const answer = await got(`${buildbot.url}${mapped(recorded)}`, {
    method,
    ...(request === undefined ? {} : { json: request }),
    throwHttpErrors: false,
    retry: { limit: 0 },
  });
  const isJson = answer.body.startsWith('{');
  return { status: answer.statusCode, body: isJson ? JSON.parse(answer.body) : answer.body };
}

/** What matters of an answer, per kind of call. */
function telling(entry: Entry, body: unknown, isRecorded: boolean): unknown {
  const { path: recorded = '', method } = entry;
  if (method === 'POST' && recorded.endsWith('/forceschedulers/bridge') && entry.status === 200) {
    const force = z.object({ result: z.tuple([z.int(), z.record(z.string(), z.int())]) }).parse(body).result;
    const before = isRecorded ? 16 : 0;
    return [force[0] - before, Object.entries(force[1]).map(([builder, id]) => [builder, id - before])];
  }
  if (recorded.endsWith('/raw')) {
    return typeof body;
  }
  if (recorded.endsWith('/masters') || recorded.endsWith('/forceschedulers') || entry.status === 404) {
    return Object.keys(z.record(z.string(), z.unknown()).parse(body)).sort();
  }
  return alike(body, isRecorded);
}

it('answers and announces what the real one did, in the same order', async () => {
  let due = 0;
  for (const entry of RECORDING) {
    if (entry.kind === 'ws' && entry.message?.k !== undefined && isTelling(entry.message.k)) {
      due += 1;
    }
    const isOlder = OLDER.some((pattern) => pattern.test(entry.path ?? ''));
    if (entry.kind !== 'rest' || isOlder) {
      continue;
    }
    // A call was made when so much had happened; a POST itself causes what is noted just before its answer.
    if (entry.method === 'GET') {
      const count = due;
      await eventually(() => events.filter(({ k }) => isTelling(k)).length >= count, {
        what: `${count} events before ${entry.path}; the last was ${events.at(-1)?.k}`,
      });
    } else if (/builds\/\d|buildrequests\/\d/.test(entry.path ?? '')) {
      await eventually(() => buildbot.master.state.builds.every((b) => b.complete || b.state_string === 'building'));
    }
    const { status, body } = await call(entry);
    expect({ path: entry.path, status }).toEqual({ path: entry.path, status: entry.status });
    expect({ path: entry.path, body: telling(entry, body, false) }).toEqual({
      path: entry.path,
      body: telling(entry, entry.response, true),
    });
  }

  const recorded = RECORDING.flatMap(({ message }) =>
    message?.k !== undefined && isTelling(message.k) ? [message] : [],
  );
  await eventually(() => events.filter(({ k }) => isTelling(k)).length >= recorded.length);
  const heard = events.filter(({ k }) => isTelling(k));
  expect(heard.map(({ k }) => k)).toEqual(recorded.map(({ k = '' }) => mapped(k)));
  expect(heard.map(({ k, m }) => [k, alike(m, false)])).toEqual(
    recorded.map(({ k = '', m }) => [mapped(k), alike(m, true)]),
  );
}, 60_000);
