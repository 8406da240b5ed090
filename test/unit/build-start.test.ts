/** When a build of a classic master started, by its page: only what began when its row says may be stopped. */
import { afterEach, expect, it } from '@jest/globals';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { startHostileServer } from '../support/hostile-server.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const work of undo.splice(0).reverse()) {
    await work();
  }
});

async function startOf(status: number, page: unknown): Promise<number | undefined> {
  const body = JSON.stringify({ 7: page });
  const server = await startHostileServer('answers of a Data API, a web status or Self-serve', () => ({
    ...{ kind: 'says', status, body },
  }));
  undo.push(() => server.stop());
  const master = createWebStatus({ url: server.url }, { retries: 0 });
  undo.push(() => master.close());
  return master.startOf('b', 7);
}

it.each([
  ['is read', { number: 7, times: [1000, null] }, 1000],
  ['is read, whatever else is wrong with its page', { number: 7, times: [1000], text: [3], steps: 'none' }, 1000],
  ['is none where it has not started', { number: 7, times: [null, null] }, undefined],
  ['is none where the master has no such build', null, undefined],
  ['is none where the master says so', { error: 'Not available' }, undefined],
])('the start of a build %s', async (_what, page, expected) => {
  expect(await startOf(200, page)).toBe(expected);
});

it('a master without such pages has not lost the build', async () => {
  await expect(startOf(404, null)).rejects.toMatchObject({ code: 'legacy-ci-unavailable', isTransient: true });
});

it('nor has one whose page cannot be read', async () => {
  await expect(startOf(200, { number: 7, times: 'soon' })).rejects.toMatchObject({ code: 'legacy-ci-protocol' });
});
