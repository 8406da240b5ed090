/** How the emulated build events come: in which order, how late, and what gets lost on the way. */
import { afterEach, describe, expect, it } from '@jest/globals';
import { eventually } from '../support/eventually.ts';
import { type Classic, startClassic } from './sandbox-classic-support.ts';

const ok = { name: 'ok', workers: ['w1'], attempts: [{ results: 0, durationMs: 20 }] };
const slow = { name: 'slow', workers: ['w1'], attempts: [{ results: 0, durationMs: 'wait' as const }] };

let buildbot: Classic;
afterEach(() => buildbot?.stop());

async function start(more: Partial<Parameters<typeof startClassic>[0]> = {}): Promise<void> {
  buildbot = await startClassic({ schema: 'A', flavour: 'mozilla', builders: [ok, slow], ...more });
}
const keys = () => buildbot.messages.map(({ routingKey }) => routingKey);
const heard = (count: number) => eventually(() => buildbot.messages.length >= count, { what: `${count} messages` });
/** Builds one request of `ok`; resolves when it is complete. */
async function build(): Promise<void> {
  await buildbot.completed(await buildbot.inject({ builder: 'ok', task: 'T0' }));
}

describe('their order', () => {
  it('has the start of the next build before the upload of the one that was a RETRY', async () => {
    const attempts = [
      { results: 5, durationMs: 20 },
      { results: 0, durationMs: 20 },
    ];
    await start({ builders: [{ ...ok, attempts }], eventDelayMs: 30, logUploadDelayMs: 200 });
    await build();
    await heard(6);
    expect(keys().map((key) => key.replace('build.ok.', ''))).toEqual([
      ...['0.started', '0.finished', '1.started', '1.finished'],
      ...['0.log_uploaded', '1.log_uploaded'],
    ]);
  });

  it('shows a start after its build is over, where the master waits for long', async () => {
    await start({ eventDelayMs: 400 });
    await build();
    expect(buildbot.messages).toEqual([]);
    await heard(2);
    expect(buildbot.messages[0]?.payload).toMatchObject({ payload: { build: { results: null } } });
  });
});

it('lets a master that is stopped say what it has to say, and one that is killed nothing', async () => {
  await start({ eventDelayMs: 600_000 });
  const brid = await buildbot.inject({ builder: 'slow', task: 'T0' });
  await buildbot.built(brid);
  await buildbot.killMaster();
  await buildbot.startMaster();
  await buildbot.built(brid, 2);
  await buildbot.stopMaster();
  await heard(3);
  expect(keys()).toEqual(['build.slow.0.started', 'build.slow.0.finished', 'build.slow.0.log_uploaded']);
  const incarnations = buildbot.messages.map(({ payload }) => /"(pid\d+)-boot/.exec(JSON.stringify(payload))?.[1]);
  expect(new Set(incarnations)).toEqual(new Set(['pid2002']));
});

describe('faults', () => {
  const rule = (kind: 'drop' | 'repeat' | 'reorder') => ({
    key: /^exchange\/build\/ build\.ok\.0\.started$/,
    outcome: { kind },
  });

  it.each([
    ['drop', ['finished', 'log_uploaded']],
    ['repeat', ['started', 'started', 'finished', 'log_uploaded']],
    ['reorder', ['finished', 'started', 'log_uploaded']],
  ] as const)('%s', async (kind, expected) => {
    await start();
    buildbot.faults.messages.push(rule(kind));
    await build();
    await heard(expected.length);
    expect(keys().map((key) => key.split('.').at(-1))).toEqual(expected);
  });

  it('delay', async () => {
    await start();
    buildbot.faults.messages.push({ key: /started$/, outcome: { kind: 'delay', ms: 300 } });
    await build();
    await heard(3);
    expect(keys().at(-1)).toBe('build.ok.0.started');
  });
});

it('come from no stock master', async () => {
  await start({ schema: 'B', flavour: 'stock' });
  await build();
  await buildbot.stopMaster();
  expect(buildbot.messages).toEqual([]);
});
