/** Answers that cannot be read: each is counted once, and its error, which whoever asked logs, is short. */
import { afterEach, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createRestClient } from '../../src/buildbot/data-api/rest-client.ts';
import { createSession } from '../../src/buildbot/data-api/session.ts';
import { createSelfServe } from '../../src/buildbot/scheduler-db/self-serve.ts';
import { createWebStatus } from '../../src/buildbot/scheduler-db/web-status.ts';
import { systemClock } from '../../src/clock.ts';
import type { InputCounter } from '../../src/ports.ts';
import { countInputs } from '../support/count-inputs.ts';
import { startHostileServer } from '../support/hostile-server.ts';
import { clientOf, type FakeServer, startFakeServer } from '../support/queue-client.ts';

let server: FakeServer | undefined;
afterEach(() => server?.stop());

const LONG = 'x'.repeat(100_000);
type Call = (url: string, inputs: InputCounter) => Promise<unknown>;
const rest: Call = (url, inputs) => {
  const answer = z.object({ builds: z.record(z.string(), z.number()) });
  return createRestClient({ url, session: createSession(url), inputs, retries: 0 }).get('builds', answer);
};
type Nested = readonly Nested[];
const nesting: z.ZodType<Nested> = z.lazy(() => z.array(nesting));
const nested: Call = (url, inputs) =>
  createRestClient({ url, session: createSession(url), inputs, retries: 0 }).get('forceschedulers', nesting);
const strayLog: Call = (url, inputs) => createWebStatus({ url }, { retries: 0, inputs }).logText(`${url}/x`).next();
const control: Call = (url, inputs) =>
  createRestClient({ url, session: createSession(url), inputs, retries: 0 }).control('x', 'force', {});
const web: Call = (url, inputs) => createWebStatus({ url }, { retries: 0, inputs }).builders();
const selfServe: Call = (url, inputs) =>
  createSelfServe(url, systemClock, { retries: 0, inputs }).cancelRequest('main', 1);
const claim: Call = (url, inputs) => clientOf(url, { retries: 0, inputs }).claim('RwycG7IhT6CSdg6WvVhkGw', 0);

it.each<[string, Call, unknown, string]>([
  ['a read of the Data API', rest, { builds: { [LONG]: 'no number' } }, 'legacy-ci-answer'],
  ['a read of the Data API, not JSON', rest, LONG, 'legacy-ci-answer'],
  ['a read of the Data API, nested without end', nested, '['.repeat(20_000) + ']'.repeat(20_000), 'legacy-ci-answer'],
  ['a log of a web status that leads elsewhere', strayLog, '', 'legacy-ci-answer'],
  ['a control call of the Data API, not JSON', control, LONG, 'legacy-ci-answer'],
  ['a web status', web, [LONG], 'legacy-ci-answer'],
  ['Self-serve', selfServe, [LONG], 'legacy-ci-answer'],
  ['the queue', claim, { status: { taskId: LONG, runs: Array.from({ length: 1000 }, () => ({})) } }, 'queue-answer'],
  ['the queue, not JSON', claim, LONG, 'queue-answer'],
])('%s', async (_what, call, body, source) => {
  server = await startFakeServer(() => ({ body }));
  const inputs = countInputs();
  const error = await call(server.url, inputs).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(Error);
  expect(String(error).length).toBeLessThan(1200);
  expect(inputs.counts).toEqual({ [`rejected ${source}`]: 1 });
});

it.each<[string, string, string]>([
  ['Buildbot, to a control call', '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}', 'rejected'],
  ['Buildbot, to a read', '{"error":"no"}', 'rejected'],
  ['a proxy in front of it', '<html>Bad Request</html>', 'unavailable'],
  ['a proxy that speaks JSON', '{"status":400,"title":"Bad Request"}', 'unavailable'],
])('a 400 of %s', async (_what, body, kind) => {
  const hostile = await startHostileServer('answers of a Data API, a web status or Self-serve', () => ({
    ...{ kind: 'says', status: 400, body },
  }));
  const error = { code: `legacy-ci-${kind}`, isTransient: kind === 'unavailable' };
  await expect(control(hostile.url, countInputs())).rejects.toMatchObject(error);
  await hostile.stop();
});

it('a task that the queue does not know is read well', async () => {
  server = await startFakeServer(() => ({ status: 404, body: { code: 'ResourceNotFound', message: 'no task' } }));
  const inputs = countInputs();
  expect(await clientOf(server.url, { retries: 0, inputs }).status('RwycG7IhT6CSdg6WvVhkGw')).toEqual({
    kind: 'absent',
  });
  expect(inputs.counts).toEqual({});
});

it('of the pages of builds one that cannot be read is left out and counted, one that is gone only left out', async () => {
  server = await startFakeServer(() => ({
    body: { 1: { number: 1, times: LONG }, 2: { number: 2 }, 3: null, 4: { error: 'Not available' } },
  }));
  const inputs = countInputs();
  const builds = await createWebStatus({ url: server.url }, { retries: 0, inputs }).builds('b', [1, 2, 3, 4]);
  expect([...builds.keys()]).toEqual([2]);
  expect(inputs.counts).toEqual({ 'rejected legacy-ci-answer': 1 });
});
