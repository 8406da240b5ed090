import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { transform } from '@swc/core';
import { z } from 'zod';
import { ConfigError, StoreError } from '../../src/errors.ts';
import { EXIT, type Part, runUntilSignal } from '../../src/lifecycle.ts';
import { createLog } from '../../src/log.ts';
import { eventually } from '../support/eventually.ts';

const never = () => new Promise<void>(() => undefined);
const entry = z.looseObject({ msg: z.string() });

/** Runs parts in a process that is none: `said` is what happened, in order. */
function run(parts: (said: string[]) => readonly Part[], shutdownTimeoutMs = 10_000) {
  const said: string[] = [];
  const lines: string[] = [];
  const emitter = new EventEmitter();
  const exits: number[] = [];
  const log = createLog({ level: 'debug', destination: { write: (line) => void lines.push(line) } });
  const ended = runUntilSignal({
    parts: parts(said),
    log,
    shutdownTimeoutMs,
    process: {
      on: (signal, listener) => emitter.on(signal, listener),
      off: (signal, listener) => emitter.off(signal, listener),
      exit: (code) => exits.push(code),
    },
  });
  const messages = () => lines.map((line) => entry.parse(JSON.parse(line)).msg);
  return {
    said,
    exits,
    ended,
    messages,
    signal: (name: 'SIGINT' | 'SIGTERM') => emitter.emit(name, name),
    listeners: () => emitter.listenerCount('SIGINT') + emitter.listenerCount('SIGTERM'),
    logged: (message: string) => eventually(() => messages().includes(message), { what: `"${message}" in the log` }),
  };
}

function part(said: string[], name: string, changes: Partial<Part> = {}): Part {
  return {
    name,
    start: async () => void said.push(`start ${name}`),
    stop: async () => void said.push(`stop ${name}`),
    ...changes,
  };
}

describe('a life', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('begins in order and ends in reverse at %s', async (name) => {
    const life = run((said) => [part(said, 'a'), part(said, 'b'), part(said, 'c')]);
    await life.logged('started');
    life.signal(name);
    expect(await life.ended).toBe(EXIT.ok);
    expect(life.said).toEqual(['start a', 'start b', 'start c', 'stop c', 'stop b', 'stop a']);
    expect(life.messages()).toEqual(['started', 'stopping; a second signal exits at once', 'stopped']);
    expect(life.exits).toEqual([]);
    expect(life.listeners()).toBe(0);
  });

  it('hears a signal that comes during the start', async () => {
    const life = run((said) => [part(said, 'a'), part(said, 'b', { start: never }), part(said, 'c')]);
    await eventually(() => life.said.length === 1, { what: 'the first part' });
    life.signal('SIGTERM');
    expect(await life.ended).toBe(EXIT.ok);
    expect(life.said).toEqual(['start a', 'stop b', 'stop a']);
  });

  it('hears a signal before anything has started', async () => {
    const life = run((said) => [part(said, 'a', { start: never })]);
    life.signal('SIGTERM');
    expect(await life.ended).toBe(EXIT.ok);
  });

  it('ends at once at the second signal', async () => {
    const life = run((said) => [part(said, 'a', { stop: never })], 500);
    await life.logged('started');
    life.signal('SIGTERM');
    await life.logged('stopping; a second signal exits at once');
    expect(life.exits).toEqual([]);
    life.signal('SIGINT');
    expect(life.exits).toEqual([EXIT.tempFail]);
    await life.ended;
  });

  it('does not wait for ever for a part to stop', async () => {
    const life = run((said) => [part(said, 'a'), part(said, 'b', { stop: never })], 30);
    await life.logged('started');
    life.signal('SIGTERM');
    await life.ended;
    expect(life.exits).toEqual([EXIT.tempFail]);
    expect(life.messages().at(-1)).toMatch(/^not everything stopped in time/);
  });

  it('stops the others when one cannot be stopped', async () => {
    const broken = { stop: () => Promise.reject(new Error('no')) };
    const life = run((said) => [part(said, 'a'), part(said, 'b', broken), part(said, 'c')]);
    await life.logged('started');
    life.signal('SIGTERM');
    expect(await life.ended).toBe(EXIT.tempFail);
    expect(life.said.slice(3)).toEqual(['stop c', 'stop a']);
    expect(life.messages()).toContain('could not stop cleanly');
  });

  it.each([
    ['the configuration is wrong', new ConfigError('wrong'), EXIT.config],
    ['a dependency is away', new StoreError('store-unavailable', 'away', { isTransient: true }), EXIT.tempFail],
    ['a port is taken', Object.assign(new Error('EADDRINUSE'), { syscall: 'listen' }), EXIT.tempFail],
    ['there is a bug', new TypeError('undefined is not a function'), EXIT.failure],
  ])('ends early, with a telling code, when %s', async (_what, error, expected) => {
    const life = run((said) => [
      part(said, 'a'),
      part(said, 'b', { start: () => Promise.reject(error) }),
      part(said, 'c'),
    ]);
    expect(await life.ended).toBe(expected);
    expect(life.said).toEqual(['start a', 'stop b', 'stop a']);
    expect(life.messages()).toContain('could not start');
    expect(life.listeners()).toBe(0);
  });
});

/** A program with one part, which keeps no process alive; what becomes of `stop` is the first argument. */
const PROGRAM = `
import { runUntilSignal } from './lifecycle.mjs';
const say = (text) => console.log(text);
const log = { info: (...args) => say(args.at(-1)), warn: () => {}, error: () => {}, fatal: () => {} };
process.exitCode = await runUntilSignal({
  parts: [{
    name: 'a',
    start: async () => { setTimeout(() => say('still there'), 100).unref(); },
    stop: () => process.argv[2] === 'hang' ? new Promise(() => {}) : Promise.resolve(),
  }],
  log,
  shutdownTimeoutMs: Number(process.argv[3]),
  process,
});
`;

describe('a real process with real signals', () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'bbb-lifecycle-'));
    for (const name of ['lifecycle', 'errors']) {
      const source = readFileSync(path.join(import.meta.dirname, `../../src/${name}.ts`), 'utf8');
      const jsc = { target: 'es2022', parser: { syntax: 'typescript' } } as const;
      const { code } = await transform(source, { jsc, module: { type: 'es6' }, swcrc: false });
      writeFileSync(path.join(folder, `${name}.mjs`), code.replaceAll('errors.ts', 'errors.mjs'));
    }
    writeFileSync(path.join(folder, 'program.mjs'), PROGRAM);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function start(...args: string[]): Promise<{ child: ChildProcess; said(text: string): Promise<unknown> }> {
    const child = spawn(process.execPath, [path.join(folder, 'program.mjs'), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout?.on('data', (data) => {
      output += String(data);
    });
    const said = (text: string) => eventually(() => output.includes(text), { what: `"${text}"` });
    await said('started');
    return { child, said };
  }

  it('does not end by itself while all that it has waits', async () => {
    const { child, said } = await start('stop', '10000');
    const ended = once(child, 'exit').then(([code]) => `ended with ${code}`);
    expect(await Promise.race([said('still there').then(() => 'still there'), ended])).toBe('still there');
    child.kill('SIGTERM');
    expect(await ended).toBe('ended with 0');
  });

  it('ends with 0 when all stopped', async () => {
    const { child } = await start('stop', '10000');
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([EXIT.ok, null]);
  });

  it('ends by itself with 75 when something does not stop in time', async () => {
    const { child } = await start('hang', '50');
    child.kill('SIGINT');
    expect(await once(child, 'exit')).toEqual([EXIT.tempFail, null]);
  });

  it('ends at once with 75 at the second signal', async () => {
    const { child, said } = await start('hang', '60000');
    child.kill('SIGTERM');
    await said('stopping');
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([EXIT.tempFail, null]);
  });
});
