/** `bbb demo`: a release promotion on the sandbox, with the real bridge in the middle. */
import { once } from 'node:events';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import got from 'got';
import slugid from 'slugid';
import { RESULT_NAMES } from '../../domain/build.ts';
import { type DemoTask, GRAPH } from './graph.ts';
import { type Sandbox, startSandbox } from './sandbox.ts';
import { createShow, type Row, type Show } from './show.ts';

const TIMEOUT_MS = 90_000;
const NATIVE_QUEUE = 'native/worker';
const NATIVE = { workerGroup: 'native', workerId: 'native-1' };
const NATIVE_WORK_MS = 600;

/** Runs it. @returns an exit code: 0 if every story came out right */
export async function runDemo({ isReal, isKept }: { isReal: boolean; isKept: boolean }): Promise<number> {
  const startedAt = Date.now();
  const hasColour = process.stdout.isTTY && process.env.NO_COLOR === undefined;
  const show = createShow(process.stdout, { startedAt, hasColour });
  if (isReal && process.env.BBB_DEMO_SERVERS === undefined) {
    show.say("The real servers are started by the project's own script: run `npm run demo -- --real`.");
    return 64;
  }
  show.say(
    isReal ? 'Starting the bridge on RabbitMQ, MariaDB and Buildbot...' : 'Starting the sandbox and the bridge...',
  );
  const sandbox = await startSandbox(isReal ? process.env.BBB_DEMO_SERVERS : undefined);
  try {
    show.say('Submitting a release promotion graph: native tasks and tasks built by Buildbot.\n');
    const ids = await submit(sandbox);
    const isDone = await play(sandbox, ids, show);
    const isRight = await tell(sandbox, ids, show);
    show.say(
      `\n${verdict(isDone, isRight)} It took ${((Date.now() - startedAt) / 1000).toFixed(0)} s. The bridge's log: ${sandbox.logFile}`,
    );
    if (isKept) {
      await keep(sandbox, show);
    }
    return isDone && isRight ? 0 : 1;
  } finally {
    await sandbox.stop();
  }
}

function verdict(isDone: boolean, isRight: boolean): string {
  if (!isDone) {
    return 'Not every task came to its end.';
  }
  return isRight ? 'Every story came out right.' : 'Not every story came out right.';
}

type Ids = ReadonlyMap<string, string>;

async function submit({ client }: Sandbox): Promise<Ids> {
  const ids: Ids = new Map(GRAPH.map(({ name }) => [name, slugid.nice()]));
  const taskGroupId = slugid.nice();
  const now = Date.now();
  const at = (ms: number) => new Date(now + ms).toISOString();
  for (const task of GRAPH) {
    await client.createTask(idOf(ids, task.name), {
      taskQueueId: task.builder === null ? NATIVE_QUEUE : 'buildbot/bridge',
      schedulerId: 'demo',
      taskGroupId,
      dependencies: task.after.map((name) => idOf(ids, name)),
      created: at(0),
      deadline: at(task.deadlineInMs ?? 3_600_000),
      expires: at(7_200_000),
      payload:
        task.builder === null
          ? {}
          : {
              buildername: task.builder,
              sourcestamp: { branch: 'https://hg.example.com/releases/main', revision: '0123456789ab' },
              properties: { product: 'widget', build_number: 1 },
            },
      metadata: {
        name: task.name,
        description: task.story ?? task.name,
        owner: 'release@example.com',
        source: 'https://example.com',
      },
    });
  }
  return ids;
}

function idOf(ids: Ids, name: string): string {
  const taskId = ids.get(name);
  if (taskId === undefined) {
    throw new Error(`the demo's graph has no task ${name}`);
  }
  return taskId;
}

/** Lets native workers and people do their part until every task is resolved. */
async function play(sandbox: Sandbox, ids: Ids, show: Show): Promise<boolean> {
  const handled = new Set<string>();
  const end = Date.now() + TIMEOUT_MS;
  while (Date.now() < end) {
    for (const task of GRAPH) {
      const taskId = idOf(ids, task.name);
      if (!handled.has(taskId) && (await interfere(sandbox, task, taskId))) {
        handled.add(taskId);
      }
    }
    show.update(GRAPH.map((task) => rowOf(sandbox, task, idOf(ids, task.name))));
    if (GRAPH.every((task) => isOver(sandbox, idOf(ids, task.name)))) {
      return true;
    }
    await delay(150);
  }
  return false;
}

/** What others than the bridge do to a task. @returns whether that is done */
async function interfere(sandbox: Sandbox, task: DemoTask, taskId: string): Promise<boolean> {
  const state = sandbox.queue.tasks.get(taskId)?.status.state;
  if (task.builder === null && state === 'pending') {
    void workNatively(sandbox, taskId);
    return true;
  }
  if (task.fate === 'canceled-in-taskcluster' && state === 'running') {
    await sandbox.client.cancelTask(taskId);
    return true;
  }
  if (task.fate === 'cancelled-in-buildbot' && state === 'pending') {
    const [request] = await requestsOf(sandbox, taskId);
    if (request !== undefined) {
      const json = { jsonrpc: '2.0', id: 1, method: 'cancel', params: { reason: 'not in this release' } };
      await got.post(`${sandbox.buildbotUrl}/api/v2/buildrequests/${request}`, { json });
      return true;
    }
  }
  return false;
}

async function workNatively({ client }: Sandbox, taskId: string): Promise<void> {
  await client.claimTask(taskId, 0, NATIVE);
  await delay(NATIVE_WORK_MS);
  await client.reportCompleted(taskId, 0);
}

function runsOf({ queue }: Sandbox, taskId: string): readonly string[] {
  const runs = queue.tasks.get(taskId)?.status.runs ?? [];
  return runs.map((run) => run.reasonResolved ?? run.state);
}

function isOver({ queue }: Sandbox, taskId: string): boolean {
  return ['completed', 'failed', 'exception'].includes(queue.tasks.get(taskId)?.status.state ?? '');
}

function rowOf(sandbox: Sandbox, task: DemoTask, taskId: string): Row {
  return { name: task.name, builder: task.builder ?? '(native)', runs: runsOf(sandbox, taskId) };
}

/** The table at the end. @returns whether every task ended as its story says, on both sides */
async function tell(sandbox: Sandbox, ids: Ids, show: Show): Promise<boolean> {
  let isRight = true;
  const rows: string[][] = [];
  for (const task of GRAPH) {
    const taskId = idOf(ids, task.name);
    const runs = runsOf(sandbox, taskId);
    await settled(sandbox, taskId);
    const isAsTold = runs.at(-1) === task.ends && runs.length === task.runs;
    isRight &&= isAsTold;
    rows.push([
      isAsTold ? 'ok' : 'WRONG',
      task.name,
      task.builder ?? '(native)',
      String(runs.length),
      runs.at(-1) ?? 'unscheduled',
      task.builder === null ? '-' : await buildsText(sandbox, taskId),
      artifactsText(sandbox, taskId),
      task.story ?? '',
    ]);
  }
  show.table(['', 'task', 'builder', 'runs', 'resolution', 'build', 'artifacts', 'story'], rows);
  return isRight;
}

/** A resolved task may have a build that is still being stopped. */
async function settled(sandbox: Sandbox, taskId: string): Promise<void> {
  for (let i = 0; i < 100; i += 1) {
    const query = `reason__contains=${encodeURIComponent(taskId)}`;
    const { buildsets } = await read<{ buildsets: { complete: boolean }[] }>(sandbox, `buildsets?${query}`);
    if (buildsets.every((buildset) => buildset.complete)) {
      return;
    }
    await delay(100);
  }
}

async function requestsOf(sandbox: Sandbox, taskId: string): Promise<readonly number[]> {
  const query = `reason__contains=${encodeURIComponent(taskId)}`;
  const { buildsets } = await read<{ buildsets: { bsid: number }[] }>(sandbox, `buildsets?${query}`);
  const all = await Promise.all(
    buildsets.map(({ bsid }) =>
      read<{ buildrequests: { buildrequestid: number }[] }>(sandbox, `buildrequests?buildsetid__eq=${bsid}`),
    ),
  );
  return all.flatMap(({ buildrequests }) => buildrequests.map(({ buildrequestid }) => buildrequestid));
}

async function buildsText(sandbox: Sandbox, taskId: string): Promise<string> {
  const requests = await requestsOf(sandbox, taskId);
  if (requests.length === 0) {
    return 'none requested';
  }
  const query = requests.map((id) => `buildrequestid__in=${id}`).join('&');
  const { builds } = await read<{ builds: { number: number; results: number | null }[] }>(sandbox, `builds?${query}`);
  const texts = builds.map(
    ({ number, results }) => `#${number} ${results === null ? 'running' : RESULT_NAMES[results]}`,
  );
  return texts.length === 0 ? 'never started' : texts.join(', ');
}

function artifactsText({ queue }: Sandbox, taskId: string): string {
  const names = new Set(queue.tasks.get(taskId)?.artifacts.map(({ name }) => name.replace(/^public\//, '')));
  return names.size === 0 ? '-' : `${names.size}: ${[...names].map((name) => name.split('/').at(-1)).join(' ')}`;
}

function read<T>({ buildbotUrl }: Sandbox, below: string): Promise<T> {
  return got.get(`${buildbotUrl}/api/v2/${below}`).json<T>();
}

async function keep(sandbox: Sandbox, show: Show): Promise<void> {
  show.say(`\nStill running, for exploring (Ctrl-C ends it):
  Taskcluster queue  ${sandbox.queue.rootUrl}/api/queue/v1/ping  (client sandbox/root, access token sandbox-root-access-token)
  Buildbot           ${sandbox.buildbotUrl}/api/v2/builders
  the bridge's log   ${sandbox.logFile}`);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
}
