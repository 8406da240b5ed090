/** Takes over the first bridge's rows into the mapping database, and tells of each what became of it. */
import pLimit from 'p-limit';
import { byTask, type FirstBridgeRow, type ReadRow, type TaskRows } from '../domain/first-bridge.ts';
import type { TaskStatus } from '../domain/task.ts';
import { type BridgeError, describeError, StoreError } from '../errors.ts';
import { excerpt } from '../log.ts';
import type { MappingStore, Seen, TaskQueue } from '../ports.ts';
import { requestedBuilder } from '../reflector/admission.ts';
import { lost, mappingOf, named, placeOf, type TaskSeen, whyKnown } from './plan.ts';

export const OUTCOMES = ['adopted', 'merged', 'known', 'skipped', 'failed'] as const;
/**
 * - `adopted`: the bridge has it from now on.
 * - `merged`: another row of the same task counts.
 * - `known`: the bridge had it before.
 * - `skipped`: nothing that this bridge could, or should, follow.
 * - `failed`: something could not be read or written; adopting once more may help.
 */
export type Outcome = (typeof OUTCOMES)[number];

export interface AdoptContext {
  readonly queue: TaskQueue;
  readonly store: MappingStore;
  /** Builders that another bridge looks after. */
  isIgnored(builder: string): boolean;
  now(): number;
  /** Called once for each row, with one line of text. */
  report(outcome: Outcome, text: string): void;
}

/** Tasks a call: as many as the queue answers about at once. */
const BATCH = 500;
const CONCURRENCY = 8;
/** In place of an instance, in the trace. */
const INSTANCE = 'migrate';

type Told = { readonly outcome: Outcome; readonly text: string };

/** Safe to repeat. Throws nothing: what fails is reported, row by row. */
export async function adopt(rows: readonly ReadRow[], context: AdoptContext): Promise<void> {
  for (const read of rows) {
    if (read.kind === 'unusable') {
      context.report('skipped', `${read.shown}: ${read.why}`);
    }
  }
  const tasks = byTask(rows.flatMap((read) => (read.kind === 'row' ? [read.row] : [])));
  const health: Health = { error: undefined };
  for (let start = 0; start < tasks.length; start += BATCH) {
    await adoptBatch(tasks.slice(start, start + BATCH), context, health);
  }
}

/** Once the mapping database has failed, the rest is not tried: each try would take its time to fail, too. */
interface Health {
  error: BridgeError | undefined;
}

async function adoptBatch(tasks: readonly TaskRows[], context: AdoptContext, health: Health): Promise<void> {
  const seen = await context.queue.statuses(tasks.map(({ best }) => best.taskId));
  const limit = pLimit(CONCURRENCY);
  await Promise.all(
    tasks.map(({ best, rest }) =>
      limit(async () => {
        const { outcome, text } = await adoptOne(best, seen.get(best.taskId), context, health);
        context.report(outcome, `${show(best)}: ${text}`);
        for (const row of rest) {
          context.report('merged', `${show(row)}: ${whyMerged(row, best)}`);
        }
      }),
    ),
  );
}

async function adoptOne(
  row: FirstBridgeRow,
  seen: Seen<TaskStatus> | undefined,
  context: AdoptContext,
  health: Health,
): Promise<Told> {
  if (health.error !== undefined) {
    return failed(health.error);
  }
  if (seen === undefined || seen.kind === 'unreadable') {
    return failed(seen?.error);
  }
  try {
    return await settle(row, seen.kind === 'present' ? seen.value : null, context);
  } catch (error) {
    if (error instanceof StoreError) {
      health.error = error;
    }
    return failed(error);
  }
}

async function settle(row: FirstBridgeRow, task: TaskSeen, context: AdoptContext): Promise<Told> {
  const { queue, store } = context;
  const { taskId } = row;
  const place = placeOf(row, task, queue);
  if (place.kind === 'skip') {
    return { outcome: 'skipped', text: place.why };
  }
  const known = whyKnown(await store.mappingsOf(taskId), row, place.runId);
  if (known !== undefined) {
    return { outcome: 'known', text: known };
  }
  const builder = task === null ? '' : await builderOf(taskId, queue);
  if (builder !== '' && context.isIgnored(builder)) {
    return { outcome: 'skipped', text: `its builder "${excerpt(builder)}" is among builders.ignored` };
  }
  const now = context.now();
  const stored = await store.adopt(mappingOf(row, task, place, builder, now), now);
  if (stored.kind !== 'stored') {
    return { outcome: 'known', text: 'the bridge has its task since a moment ago' };
  }
  const detail = `from the first bridge, with ${named(row.buildRequestId)}; ${place.standing}`;
  await store.addEvents([{ taskId, runId: place.runId, at: now, instance: INSTANCE, what: 'takeOver', detail }]);
  return { outcome: 'adopted', text: `${next(row, place.runId)}; ${place.standing}` };
}

/** The builder that the task asks for; empty where it names none, or expired this moment. */
async function builderOf(taskId: string, queue: TaskQueue): Promise<string> {
  const definition = await queue.task(taskId);
  if (definition.kind === 'unreadable') {
    throw definition.error;
  }
  return definition.kind === 'present' ? requestedBuilder(definition.value.payload) : '';
}

function failed(error: unknown): Told {
  const why = error === undefined ? 'the queue said nothing of its task' : describeError(error);
  return { outcome: 'failed', text: why.replaceAll('\n', ' ') };
}

function show({ taskId, runId, buildRequestId }: FirstBridgeRow): string {
  return `task ${taskId}, run ${runId}, ${named(buildRequestId)}`;
}

function next(row: FirstBridgeRow, runId: number): string {
  const where = runId === row.runId ? '' : `taken up at run ${runId}; `;
  return `${where}${row.buildRequestId === null ? 'its build request is looked for' : 'its build request is followed'}`;
}

function whyMerged(row: FirstBridgeRow, best: FirstBridgeRow): string {
  const other = `the row of run ${best.runId}, ${named(best.buildRequestId)}, counts`;
  return row.buildRequestId === null || row.buildRequestId === best.buildRequestId
    ? other
    : `${other}; ${lost(row.buildRequestId)}`;
}
