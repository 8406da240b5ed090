/** `bbb demo`: a release promotion on the sandbox, with the real bridge in the middle. */
import { once } from 'node:events';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import slugid from 'slugid';
import { RESULT_NAMES } from '../../domain/build.ts';
import { type DemoTask, GRAPH } from './graph.ts';
import { type Sandbox, startSandbox } from './sandbox.ts';
import { createShow, type Row, type Show } from './show.ts';

const TIMEOUT_MS = 90_000;
const NATIVE_QUEUE = 'native/worker';
const NATIVE = { workerGroup: 'native', workerId: 'native-1' };
const NATIVE_WORK_MS = 600;

export interface DemoOptions {
  readonly isReal: boolean;
  /** With a classic Buildbot. */
  readonly isClassic: boolean;
  readonly isKept: boolean;
}

/** Runs it. @returns an exit code: 0 if every story came out right */
export async function runDemo({ isReal, isClassic, isKept }: DemoOptions): Promise<number> {
  const startedAt = Date.now();
  const hasColour = process.stdout.isTTY && process.env.NO_COLOR === undefined;
  const show = createShow(process.stdout, { startedAt, hasColour });
  const hasServers = isReal || isClassic;
  if (hasServers && process.env.BBB_DEMO_SERVERS === undefined) {
    const option = isClassic ? '--classic' : '--real';
    show.say(`The real servers are started by the project's own script: run \`npm run demo -- ${option}\`.`);
    return 64;
  }
  show.say(`Starting the bridge on ${stageOf({ isReal, isClassic })}...`);
  const sandbox = await startSandbox(hasServers ? process.env.BBB_DEMO_SERVERS : undefined);
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

function stageOf({ isReal, isClassic }: Pick<DemoOptions, 'isReal' | 'isClassic'>): string {
  if (isClassic) {
    return 'RabbitMQ and MariaDB, with an emulated classic Buildbot (0.8)';
  }
  return isReal ? 'RabbitMQ, MariaDB and Buildbot' : 'the sandbox';
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
    if ((await sandbox.legacy.requests(taskId)) > 0) {
      await sandbox.legacy.cancelRequest(taskId);
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
async function settled({ legacy }: Sandbox, taskId: string): Promise<void> {
  for (let i = 0; i < 100 && !(await legacy.isSettled(taskId)); i += 1) {
    await delay(100);
  }
}

async function buildsText({ legacy }: Sandbox, taskId: string): Promise<string> {
  if ((await legacy.requests(taskId)) === 0) {
    return 'none requested';
  }
  const texts = (await legacy.builds(taskId)).map(
    ({ number, results }) => `#${number} ${results === null ? 'running' : RESULT_NAMES[results]}`,
  );
  return texts.length === 0 ? 'never started' : texts.join(', ');
}

function artifactsText({ queue }: Sandbox, taskId: string): string {
  const names = new Set(queue.tasks.get(taskId)?.artifacts.map(({ name }) => name.replace(/^public\//, '')));
  return names.size === 0 ? '-' : `${names.size}: ${[...names].map((name) => name.split('/').at(-1)).join(' ')}`;
}

async function keep(sandbox: Sandbox, show: Show): Promise<void> {
  show.say(`\nStill running, for exploring (Ctrl-C ends it):
  Taskcluster queue  ${sandbox.queue.rootUrl}/api/queue/v1/ping  (client sandbox/root, access token sandbox-root-access-token)
  Buildbot           ${sandbox.legacy.page}
  the bridge's log   ${sandbox.logFile}`);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
}
