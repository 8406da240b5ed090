/** How a payload's properties travel in the parameters that a ForceScheduler declares. Pure. */
import { priorityRank } from '../../domain/task.ts';
import { escapedSize } from '../../plain.ts';
import type { BuildSpec, Problem } from '../../ports.ts';
import type { FieldAnswer, ForceSchedulerAnswer } from './answers.ts';

/** The parameters of a `force` call, and what of the payload they cannot carry. */
export interface ForceParameters {
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly problems: readonly Problem[];
}

/** An `AnyPropertyParameter`: room for one property of any name. */
interface Slot {
  readonly nameField: string;
  readonly valueField: string;
}

/** Buildbot's columns: a name of 256 characters, a value of 65,535 bytes of JSON in which Python escapes what is not ASCII. */
const MAX_NAME = 255;
const MAX_VALUE = 60_000;

/** In every build's reason, and what a lost request is found again by. */
export function reasonOf(spec: Pick<BuildSpec, 'taskId' | 'externalId'>): string {
  return `Created by BBB for task ${spec.taskId} (${spec.externalId})`;
}

export const OWNER = 'buildbot-bridge';

/** Set by Buildbot itself after every parameter, so that a payload's own value would be lost without a word. */
const OVERWRITTEN = new Set(['reason', 'owner', 'scheduler']);
/** Parameters with a meaning of their own: never a payload's property of the same name. */
const TAKEN = new Set(['taskId', 'reason', 'owner', 'username', 'builderNames', 'builderid', 'priority']);
const SOURCESTAMP = ['branch', 'revision', 'repository', 'project'] as const;

/** All parameters that hold a value, out of their groups. */
export function leaves(fields: readonly FieldAnswer[]): readonly FieldAnswer[] {
  return fields.flatMap((field) => (field.fields ? leaves(field.fields) : [field]));
}

function slots(fields: readonly FieldAnswer[]): readonly Slot[] {
  return fields.flatMap((field) => {
    const inner = field.fields ?? [];
    const nameField = inner.find(({ name }) => name === 'name')?.fullName;
    const valueField = inner.find(({ name }) => name === 'value')?.fullName;
    return inner.length === 2 && nameField && valueField ? [{ nameField, valueField }] : slots(inner);
  });
}

function isDeclared(scheduler: ForceSchedulerAnswer, name: string): boolean {
  return leaves(scheduler.all_fields).some(({ fullName }) => fullName === name);
}

/** What a ForceScheduler lacks, and the line of master.cfg that mends it. */
export interface Lack {
  readonly what: string;
  readonly mend: string;
}

/** Without which a request could not be tied to its task, or not be found again; undefined if there is nothing. */
export function lackOf(scheduler: ForceSchedulerAnswer): Lack | undefined {
  if (!isDeclared(scheduler, 'taskId')) {
    return {
      what: 'does not declare taskId, so Buildbot would drop it',
      mend: 'properties=[util.StringParameter(name="taskId", default="")],',
    };
  }
  // Its own comes before all properties.
  const reason = leaves(scheduler.all_fields).find(({ fullName }) => fullName === 'reason');
  if (reason?.type !== 'text' && reason?.type !== 'textarea') {
    return {
      what: 'does not take the reason of a build, by which the bridge finds a request whose id it never learnt',
      mend: 'reason=util.StringParameter(name="reason", default="force build"),',
    };
  }
  return undefined;
}

/**
 * The parameters for a request: properties in parameters of the same name first, then in the slots of
 * AnyPropertyParameters. Buildbot drops silently what is not declared, so nothing else is ever sent.
 */
export function forceParameters(spec: BuildSpec, scheduler: ForceSchedulerAnswer): ForceParameters {
  const problems: Problem[] = [];
  const parameters: Record<string, unknown> = {
    builderNames: [spec.builder],
    reason: reasonOf(spec),
    owner: OWNER,
    taskId: spec.taskId,
    ...sourcestampParameters(spec, scheduler, problems),
    ...(isDeclared(scheduler, 'priority') ? { priority: priorityRank(spec.priority) } : {}),
  };
  const free = [...slots(scheduler.all_fields)];
  // A request has always carried its own taskId, whatever the payload said.
  for (const [name, value] of Object.entries(spec.properties).filter(([key]) => key !== 'taskId')) {
    const where = `payload.properties.${name}`;
    const declared = declaredParameter(scheduler, name);
    if (name.length > MAX_NAME) {
      problems.push({ where, what: 'its name is too long', mend: `use a name of at most ${MAX_NAME} characters` });
    } else if (/[\0\p{Surrogate}]/u.test(name)) {
      problems.push({ where, what: 'its name holds a NUL or half a character', mend: 'use another name for it' });
    } else if (storedSize(value) > MAX_VALUE) {
      const mend = `keep it to ${MAX_VALUE} bytes of JSON (a character that is not ASCII takes six), or hand it over in a file`;
      problems.push({ where, what: `it is too long: ${storedSize(value)} bytes as Buildbot stores it`, mend });
    } else if (OVERWRITTEN.has(name)) {
      problems.push({ where, what: `Buildbot sets the property "${name}" itself`, mend: 'use another name for it' });
    } else if (declared) {
      carry(name, value, declared, parameters, problems);
    } else {
      carryInSlot(name, value, free.shift(), parameters, problems);
    }
  }
  return { parameters, problems };
}

/** Where branch, revision, repository and project go: a codebase's parameters may carry its name in front. */
function sourcestampParameters(
  spec: BuildSpec,
  scheduler: ForceSchedulerAnswer,
  problems: Problem[],
): Record<string, string> {
  const all = leaves(scheduler.all_fields).filter(({ type }) => type !== 'fixed');
  const parameters: Record<string, string> = {};
  for (const key of SOURCESTAMP) {
    const value = spec[key];
    const target = all.find(({ fullName }) => fullName === key) ?? all.find(({ name }) => name === key);
    if (value === null) {
      continue;
    }
    if (isBlank(value)) {
      problems.push({
        where: `payload.sourcestamp.${key}`,
        what: `Buildbot would put its default in place of a blank ${key}`,
        mend: 'leave it out, or give it a value',
      });
    } else if (target?.fullName) {
      parameters[target.fullName] = value;
    } else {
      problems.push({
        where: `payload.sourcestamp.${key}`,
        what: `the ForceScheduler "${scheduler.name}" does not take a ${key}`,
        mend: `leave it out, or add to master.cfg, in that ForceScheduler: codebases=[util.CodebaseParameter("", ${key}=util.StringParameter(name="${key}"))]`,
      });
    }
  }
  return parameters;
}

function isBuildbots(name: string): boolean {
  return TAKEN.has(name) || SOURCESTAMP.some((key) => key === name);
}

/** A parameter that becomes a property of this very name. */
function declaredParameter(scheduler: ForceSchedulerAnswer, name: string): FieldAnswer | undefined {
  if (isBuildbots(name)) {
    return undefined;
  }
  return leaves(scheduler.all_fields).find((field) => field.fullName === name && field.name === name);
}

function carry(
  name: string,
  value: unknown,
  field: FieldAnswer,
  parameters: Record<string, unknown>,
  problems: Problem[],
): void {
  const where = `payload.properties.${name}`;
  const mismatch = (expected: string) =>
    problems.push({ where, what: `Buildbot's parameter "${name}" takes ${expected}`, mend: `give it ${expected}` });
  switch (field.type) {
    case 'int':
      if (Number.isSafeInteger(value)) {
        parameters[name] = value;
      } else {
        mismatch('a whole number');
      }
      return;
    case 'bool':
      if (typeof value === 'boolean') {
        parameters[name] = value;
      } else {
        mismatch('true or false');
      }
      return;
    case 'fixed':
      if (value !== field.default) {
        mismatch(`the fixed value ${JSON.stringify(field.default)} only`);
      }
      return;
    default:
      break;
  }
  if (field.multiple && Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string')) {
    parameters[name] = value;
    return;
  }
  const text = asText(value);
  if (isBlank(text) && text !== field.default) {
    // Observed in its source: blank arguments are removed before the default is looked for.
    mismatch(
      `a text that is not blank (Buildbot puts its default ${JSON.stringify(field.default)} in place of a blank one)`,
    );
    return;
  }
  parameters[name] = text;
}

function carryInSlot(
  name: string,
  value: unknown,
  slot: Slot | undefined,
  parameters: Record<string, unknown>,
  problems: Problem[],
): void {
  const where = `payload.properties.${name}`;
  // A parameter of such a name would be Buildbot's own.
  const parameter = isBuildbots(name)
    ? 'util.AnyPropertyParameter(name="any1")'
    : `util.StringParameter(name=${JSON.stringify(name)}, default="")`;
  const mend = `add to master.cfg, in the ForceScheduler's properties: ${parameter}, or leave the property out`;
  const text = asText(value);
  if (slot === undefined) {
    problems.push({ where, what: `the ForceScheduler declares no parameter that could carry "${name}"`, mend });
  } else if (text !== '' && isBlank(text)) {
    problems.push({
      where,
      what: 'Buildbot turns a blank text into an empty one',
      mend: 'use a text that is not blank',
    });
  } else {
    parameters[slot.nameField] = name;
    parameters[slot.valueField] = text;
  }
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function isBlank(text: string): boolean {
  // Python's blanks are JavaScript's, and some control characters.
  return /^[\s\p{Cc}]*$/u.test(text);
}

/** Of a value that travels as text, too. */
function storedSize(value: unknown): number {
  return escapedSize(JSON.stringify(asText(value)) ?? '');
}
