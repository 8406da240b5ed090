import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { addMany, aNewMapping, type Engine, NOW, type Opened, openStore } from './mapping-store-support.ts';

const DB = path.resolve(import.meta.dirname, '../../dist/src/db');

/** Waits for the others, leases all that is due, a few at a time, moving each by one run, and then fights for one slot. */
const PROGRAM = `
const [url, name, now, template] = process.argv.slice(1);
const { connect } = await import('${DB}/connection.js');
const { createMappingStore } = await import('${DB}/mapping-store.js');
const store = createMappingStore(connect(url));
const lease = { leaseUntil: Number(now) + 60000, now: Number(now) };
await store.heartbeat({ instance: name, version: '1', services: [], started: 0, heartbeat: 0 });
for (let tries = 0; (await store.instances()).length < 3; tries += 1) {
  if (tries > 1000) throw new Error('the other processes do not come');
  await new Promise((resolve) => setTimeout(resolve, 10));
}
let leased = 0;
for (let batch = 1, empty = 0; empty < 3; batch += 1) {
  const mappings = await store.leaseDue({ ...lease, owner: name + '#' + batch, limit: 7 });
  empty = mappings.length === 0 ? empty + 1 : 0;
  for (const mapping of mappings) {
    const moved = await store.update(mapping, { runId: mapping.runId + 1 }, Number(now));
    leased += moved.kind === 'stored' ? 1 : 0;
  }
  await store.releaseMany(mappings, { nextCheckAt: Number(now) + 1, lastError: null }, Number(now));
}
const insert = (at) => store.insert(
  { ...JSON.parse(template), taskId: name + '-' + at, collapseKey: 'k' + at, hasSlot: true },
  { ...lease, owner: name });
const slots = (await Promise.all(Array.from({ length: 20 }, (_, at) => insert(at)))).map(({ kind }) => kind);
await store.close();
console.log(JSON.stringify({ leased, slots: slots.filter((kind) => kind === 'stored').length }));
`;

/** Instances in processes of their own: what they share is the database and nothing else. */
export function describeProcesses(engine: Engine): void {
  let opened: Opened;
  beforeAll(async () => {
    opened = await openStore(engine);
  });
  afterAll(() => opened?.drop());

  it('is shared by several processes: each mapping and each slot is one process’s', async () => {
    await addMany(opened.db, 150);
    const template = JSON.stringify(aNewMapping());
    const env = { ...process.env, NODE_OPTIONS: '' };
    const reports = await Promise.all(
      ['a', 'b', 'c'].map(async (name) => {
        const args = ['--input-type=module', '-e', PROGRAM, opened.url, name, String(NOW), template];
        const { stdout } = await promisify(execFile)(process.execPath, args, { env });
        const report: { leased: number; slots: number } = JSON.parse(stdout);
        return report;
      }),
    );
    const sum = (what: 'leased' | 'slots') => reports.reduce((total, report) => total + report[what], 0);
    expect({ leased: sum('leased'), slots: sum('slots') }).toEqual({ leased: 150, slots: 20 });
    expect(await opened.db('tasks').where({ run_id: 1 }).pluck('run_id')).toHaveLength(150);
  });
}
