/** The emulated Buildbot against what real ones answered and announced, call by call and event by event. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, expect, it } from '@jest/globals';
import got from 'got';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { systemClock } from '../../src/clock.ts';
import { type BuildbotEmulator, createBuildbotEmulator } from '../../src/sandbox/buildbot/emulator.ts';
import type { ParameterOptions } from '../../src/sandbox/buildbot/force.ts';
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

interface Recording {
  readonly version: '3.7' | '4.3';
  /** The recording begins on a master that had made so many build requests, builds, steps and logs. */
  readonly before: {
    readonly requests: number;
    readonly builds: number;
    readonly steps: number;
    readonly logs: number;
  };
  /** Names of the builders, by id from 1. */
  readonly builders: readonly string[];
  readonly parameters: readonly ParameterOptions[];
  readonly okSteps: Attempt['steps'];
  /** Calls whose answers tell of what was there before the recording, or beside it. */
  readonly skipped: readonly RegExp[];
}

const log = 'hello\n';
const RECORDINGS: readonly Recording[] = [
  {
    version: '3.7',
    before: { requests: 16, builds: 13, steps: 30, logs: 12 },
    builders: ['exc', 'slow', 'noworker', 'warn', 'ok', 'retry', 'fail'],
    parameters: [{ name: 'extra', type: 'any' }],
    okSteps: [{ name: 'shell', log }, { name: 'SetProperty' }],
    skipped: [/^\/api\/v2\/builds\?buildrequestid__eq=1&/],
  },
  {
    version: '4.3',
    before: { requests: 0, builds: 0, steps: 0, logs: 0 },
    builders: ['b1', 'retry-once', 'slow', 'noworker', 'ok', 'exc', 'b7', 'warn', 'b9', 'b10', 'b11', 'b12', 'fail'],
    parameters: [{ name: 'p1', type: 'any' }, { name: 'product' }],
    okSteps: [{ name: 'compile', log }, { name: 'package', log }, { name: 'SetProperty' }],
    // That master had builders that the recording never uses.
    skipped: [/^\/api\/v2\/builders$/],
  },
];

function readRecording({ version }: Recording): readonly Entry[] {
  const file = path.resolve(import.meta.dirname, `../fixtures/buildbot-${version}.json`);
  // What only that machine was called.
  const text = readFileSync(file, 'utf8')
    .replaceAll('/srv/buildbot/w4/', '/srv/buildbot/worker/')
    .replaceAll('http://logs.example.org/x', 'http://logs/x');
  return z.array(entrySchema).parse(JSON.parse(text));
}

/** How many there were before, by the name of an id and of a collection. */
function countsBefore({ before }: Recording): Readonly<Record<string, number>> {
  const { requests, builds, steps, logs } = before;
  return {
    ...{ buildrequestid: requests, buildsetid: requests, bsid: requests, buildid: builds, stepid: steps, logid: logs },
    ...{ buildrequests: requests, buildsets: requests, builds, steps, logs },
  };
}

const quick = (results: number, more: Partial<Attempt> = {}): Attempt => ({ results, durationMs: 60, ...more });

function attemptsOf(name: string, { okSteps = [] }: Recording): readonly Attempt[] {
  switch (name) {
    case 'ok':
      return [quick(0, { steps: okSteps, properties: { log_url: 'http://logs/x' } })];
    case 'fail':
      return [quick(2, { steps: [{ name: 'shell', log }] })];
    case 'warn':
      return [quick(1)];
    case 'exc':
      return [quick(4)];
    case 'retry':
    case 'retry-once':
      return [quick(5), quick(0)];
    case 'slow':
      return [{ results: 0, durationMs: 'wait' }];
    default:
      return [quick(0)];
  }
}

let buildbot: BuildbotEmulator;
let socket: WebSocket;
let events: { k: string; m: unknown }[];

async function start(recording: Recording): Promise<void> {
  events = [];
  buildbot = createBuildbotEmulator({
    clock: systemClock,
    version: recording.version,
    builders: recording.builders.map((name) => ({
      name,
      workers: name === 'noworker' ? [] : ['w1'],
      attempts: attemptsOf(name, recording),
    })),
    forceSchedulers: [
      {
        name: 'bridge',
        builderNames: recording.builders,
        parameters: [{ name: 'taskId' }, ...recording.parameters],
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
}
afterEach(async () => {
  socket?.close();
  await buildbot?.stop();
});

type Counts = Readonly<Record<string, number>>;
/** The emulator begins with nothing. */
const NONE: Counts = {};

/** How many updates a build says on its way depends on its steps: only what changes a state is compared. */
const isTelling = (key: string) => !key.endsWith('/update');

/** Ids counted from the beginning of the recording; times, machine names and texts made alike. */
function alike(value: unknown, before: Counts, key = ''): unknown {
  if (Array.isArray(value)) {
    return value.map((item) => alike(item, before, key));
  }
  if (typeof value === 'object' && value !== null) {
    // What a step is called depends on its command; what a build says does not.
    const entries = Object.entries(value).map(([name, inner]) => [
      name,
      name === 'state_string' && 'stepid' in value ? 'text' : alike(inner, before, name),
    ]);
    return Object.fromEntries(entries.sort(([a], [b]) => String(a).localeCompare(String(b))));
  }
  if (typeof value === 'number') {
    return alikeNumber(value, before, key);
  }
  if (typeof value === 'string' && ['state_string', 'error', 'builddir', 'created_at'].includes(key)) {
    return value.split(' ')[0]?.replace(/^not$|^Invalid$/, 'none');
  }
  return value;
}

function alikeNumber(value: number, before: Counts, key: string): unknown {
  if (key.endsWith('_at')) {
    return 'time';
  }
  if (['number', 'workerid', 'ssid', 'num_lines', 'buildnumber', 'total', 'last_active'].includes(key)) {
    return 'number';
  }
  return value - (before[key] ?? 0);
}

/** A recorded path or key, with the ids that the emulator gives. */
function mapped(text: string, before: Counts): string {
  return text
    .replace(/\b(buildrequests|buildsets|builds|steps|logs)\/(\d+)/g, (whole, kind: string, id: string) =>
      Number(id) > 100_000 ? whole : `${kind}/${Number(id) - (before[kind] ?? 0)}`,
    )
    .replace(
      /buildrequestid__eq=(\d+)/g,
      (_whole, id: string) => `buildrequestid__eq=${Number(id) - (before.buildrequestid ?? 0)}`,
    );
}

async function call(entry: Entry, before: Counts) {
  const { method = 'GET', path: recorded = '', request } = entry;
  const answer = await got(`${buildbot.url}${mapped(recorded, before)}`, {
    method,
    ...(request === undefined ? {} : { json: request }),
    throwHttpErrors: false,
    retry: { limit: 0 },
  });
  const isJson = answer.body.startsWith('{');
  return { status: answer.statusCode, body: isJson ? JSON.parse(answer.body) : answer.body };
}

/** What matters of an answer, per kind of call. */
function telling(entry: Entry, body: unknown, before: Counts): unknown {
  const { path: recorded = '', method } = entry;
  if (method === 'POST' && recorded.endsWith('/forceschedulers/bridge') && entry.status === 200) {
    const force = z.object({ result: z.tuple([z.int(), z.record(z.string(), z.int())]) }).parse(body).result;
    const count = before.bsid ?? 0;
    return { force: [force[0] - count, Object.entries(force[1]).map(([builder, id]) => [builder, id - count])] };
  }
  if (recorded.endsWith('/raw')) {
    return { type: typeof body };
  }
  if (recorded.endsWith('/masters') || recorded.endsWith('/forceschedulers') || entry.status === 404) {
    return { keys: Object.keys(z.record(z.string(), z.unknown()).parse(body)).sort() };
  }
  return alike(body, before);
}

it.each(RECORDINGS)(
  'answers and announces what a real $version did, in the same order',
  async (recording) => {
    await start(recording);
    const before = countsBefore(recording);
    const entries = readRecording(recording);
    // Later versions say more of everything; what the emulator says has to be what they said.
    const expectAlike = (what: object, recorded: unknown, emulated: unknown) =>
      recording.version === '3.7'
        ? expect({ ...what, is: emulated }).toEqual({ ...what, is: recorded })
        : expect({ ...what, is: recorded }).toMatchObject({ ...what, is: emulated });
    const heard = () => events.filter(({ k }) => isTelling(k));
    let due = 0;
    for (const entry of entries) {
      if (entry.kind === 'ws' && entry.message?.k !== undefined && isTelling(entry.message.k)) {
        due += 1;
      }
      if (entry.kind !== 'rest' || recording.skipped.some((pattern) => pattern.test(entry.path ?? ''))) {
        continue;
      }
      // A call was made when so much had happened; a POST itself causes what is noted just before its answer.
      if (entry.method === 'GET') {
        const count = due;
        const what = `${count} events before ${entry.path}; the last was ${events.at(-1)?.k}`;
        await eventually(() => heard().length >= count, { what });
      } else if (/builds\/\d|buildrequests\/\d/.test(entry.path ?? '')) {
        await eventually(() => buildbot.master.state.builds.every((b) => b.complete || b.state_string === 'building'));
      }
      const { status, body } = await call(entry, before);
      expect({ path: entry.path, status }).toEqual({ path: entry.path, status: entry.status });
      expectAlike({ path: entry.path }, telling(entry, entry.response, before), telling(entry, body, NONE));
    }

    const recorded = entries.flatMap(({ message }) =>
      message?.k !== undefined && isTelling(message.k) ? [message] : [],
    );
    await eventually(() => heard().length >= recorded.length);
    expect(heard().map(({ k }) => k)).toEqual(recorded.map(({ k = '' }) => mapped(k, before)));
    recorded.forEach(({ k = '', m }, index) => {
      expectAlike({ k: mapped(k, before) }, alike(m ?? null, before), alike(heard()[index]?.m, NONE));
    });
  },
  60_000,
);
