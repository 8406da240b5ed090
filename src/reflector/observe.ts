/** Reads what `decide` needs and is not known yet. */
import type { RequestView } from '../domain/build.ts';
import type { Mapping } from '../domain/mapping.ts';
import type { TaskDefinition, TaskStatus } from '../domain/task.ts';
import { lastRun } from '../domain/task.ts';
import { BridgeError, QueueError } from '../errors.ts';
import type { LegacyCi, Problem, Seen, TaskQueue } from '../ports.ts';
import {
  type Admission,
  type BuilderRules,
  builderProblems,
  parsePayload,
  refusalText,
  requestedBuilder,
  restrictedAs,
} from './admission.ts';
import type { Observation, SeenAdmission } from './decide.ts';

/** What is known so far; what is undefined has to be read. Actions change it as they go. */
export interface Knowledge {
  mapping: Mapping | null;
  task?: Seen<TaskStatus> | undefined;
  request?: Observation['request'] | undefined;
  admission?: SeenAdmission | undefined;
  definition?: TaskDefinition | undefined;
}

export interface ObserveContext {
  readonly queue: TaskQueue;
  readonly ci: LegacyCi;
  readonly rules: BuilderRules;
}

/** What a submission is known by in the legacy CI. */
export function externalIdOf(taskId: string, runId: number, submission: number): string {
  return `${taskId}/${runId}/${submission}`;
}

/**
 * Fills in what is not known, as far as it is needed.
 * @param leavesReasons whether why a refused task is refused is not read: another pass does that, or there is no time for it
 */
export async function observe(
  taskId: string,
  knowledge: Knowledge,
  context: ObserveContext,
  leavesReasons = false,
): Promise<Observation> {
  const [task, request] = await Promise.all([
    knowledge.task ?? context.queue.status(taskId),
    knowledge.request ?? readRequest(knowledge.mapping, context.ci),
  ]);
  knowledge.task = task;
  knowledge.request = request;
  const isLeft = leavesReasons && knowledge.mapping?.state === 'refusing';
  if (isLeft || !needsAdmission(knowledge, context.queue.taskQueueId)) {
    // What nobody needs any more has not failed.
    knowledge.admission = knowledge.admission?.kind === 'unreadable' ? undefined : knowledge.admission;
  } else if (knowledge.admission === undefined) {
    knowledge.admission = await admitIfReadable(taskId, knowledge, context);
  }
  return { mapping: knowledge.mapping, task, request, admission: knowledge.admission ?? null };
}

async function readRequest(mapping: Mapping | null, ci: LegacyCi): Promise<Observation['request']> {
  if (mapping?.buildRequestId != null) {
    const found: ReadonlyMap<number, Seen<RequestView>> = await ci.readMany([mapping.buildRequestId]);
    return found.get(mapping.buildRequestId) ?? { kind: 'absent' };
  }
  return mapping?.state === 'intended' ? ci.findByExternalId(mapping) : { kind: 'none' };
}

/** Only what may be submitted or refused is looked at so closely. */
function needsAdmission({ mapping, task }: Knowledge, taskQueueId: string): boolean {
  if (task?.kind !== 'present' || task.value.taskQueueId !== taskQueueId) {
    return false;
  }
  const isOpen = ['pending', 'running'].includes(lastRun(task.value)?.state ?? '');
  return isOpen && (mapping === null || mapping.state === 'intended' || mapping.state === 'refusing');
}

/** Whatever an admission needs may be away: a claim that is near its end is renewed all the same. */
async function admitIfReadable(taskId: string, knowledge: Knowledge, context: ObserveContext): Promise<SeenAdmission> {
  try {
    return await admit(taskId, knowledge, context);
  } catch (error) {
    if (error instanceof BridgeError) {
      return { kind: 'unreadable', error };
    }
    throw error;
  }
}

async function admit(taskId: string, knowledge: Knowledge, context: ObserveContext): Promise<Admission> {
  const { queue, ci, rules } = context;
  const definition = await readDefinition(taskId, knowledge, queue);
  const wanted = requestedBuilder(definition.payload);
  if (rules.isIgnored(wanted)) {
    return { kind: 'ignored', builder: wanted };
  }
  const run = knowledge.task?.kind === 'present' ? lastRun(knowledge.task.value) : undefined;
  const { runId, scheduled } = run ?? { runId: 0, scheduled: 0 };
  const externalId = knowledge.mapping?.externalId ?? externalIdOf(taskId, runId, 1);
  const parsed = parsePayload({ taskId, runId, externalId, scheduled }, definition);
  if ('problems' in parsed) {
    return { kind: 'refused', builder: wanted, problems: parsed.problems };
  }
  const { spec } = parsed;
  const hasRoles = definition.scopes.some((scope) => scope.startsWith('assume:'));
  const builders = await ci.builders(spec.builder);
  const needsScope = restrictedAs(spec.builder, rules, builders).length > 0;
  const judge = (scopes: readonly string[]) => builderProblems(spec.builder, rules, scopes, builders);
  let problems = judge(hasRoles && needsScope ? await queue.expandScopes(definition.scopes) : definition.scopes);
  if (problems.length > 0 && hasRoles && needsScope) {
    // A role may have been granted since: nothing is refused for what auth said minutes ago.
    problems = judge(await queue.expandScopes(definition.scopes, { isFresh: true }));
  }
  const all = problems.length > 0 ? problems : await ci.problems(spec);
  return all.length > 0
    ? { kind: 'refused', builder: spec.builder, problems: all }
    : { kind: 'admitted', spec, collapseKey: ci.collapseKey(spec) };
}

/** The task's definition, which never changes. */
export async function readDefinition(taskId: string, knowledge: Knowledge, queue: TaskQueue): Promise<TaskDefinition> {
  if (knowledge.definition) {
    return knowledge.definition;
  }
  const definition = await queue.task(taskId);
  if (definition.kind !== 'present') {
    throw definition.kind === 'unreadable'
      ? definition.error
      : new QueueError('queue-not-found', 'the queue no longer has the definition of the task', { isTransient: true });
  }
  knowledge.definition = definition.value;
  return definition.value;
}

/** Whoever had refused it is gone, and there was no time to find out anew. */
const FORGOTTEN: Problem = {
  where: 'payload',
  what: 'the task was refused, and why could not be read again before its deadline',
  mend: 'create it anew, with more time: its log will say why',
};

function notTaken(lastError: string | null): Problem {
  return {
    where: 'payload',
    what: lastError ?? 'Buildbot did not take the build request',
    mend: 'correct what Buildbot objects to, or ask whoever runs the bridge',
  };
}

/** What a refused task's log says; the legacy CI's own refusal (`lastError`) where admission had nothing to object. */
export function refusalLog(mapping: Mapping, admission: SeenAdmission | undefined): string {
  const problems: readonly Problem[] =
    admission?.kind === 'refused'
      ? admission.problems
      : [mapping.lastError === null && admission?.kind !== 'admitted' ? FORGOTTEN : notTaken(mapping.lastError)];
  return refusalText(mapping.builder, problems);
}

/** The errors of what is unreadable, the one that counts first, for `lastError` and the log. */
export function readErrors({
  task,
  request,
  admission,
}: {
  readonly [part in 'task' | 'request' | 'admission']?: Knowledge[part] | null;
}): readonly BridgeError[] {
  return [task, request, admission].flatMap((seen) => (seen?.kind === 'unreadable' ? [seen.error] : []));
}
