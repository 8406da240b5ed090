/** ForceSchedulers: what they declare, and how a `force` call's parameters become a request. */
import type { ForceRequest } from './master.ts';

/** A parameter that a ForceScheduler declares for a property. */
export interface ParameterOptions {
  readonly name: string;
  /** `any` is an AnyPropertyParameter: room for one property of any name. */
  readonly type?: 'text' | 'int' | 'bool' | 'any';
}

export interface ForceSchedulerOptions {
  readonly name: string;
  readonly builderNames: readonly string[];
  readonly parameters: readonly ParameterOptions[];
  /** Of the reason: `fixed` drops what is sent. */
  readonly reason?: { readonly name: string; readonly type: 'text' | 'textarea' | 'fixed' };
  /** What a buildset's reason is made of. */
  readonly reasonString?: string;
}

/** What went wrong, with the status that Buildbot answers. */
export class ForceError extends Error {
  readonly status: number;
  readonly rpcMessage: unknown;
  constructor(status: number, rpcMessage: unknown) {
    super(String(rpcMessage));
    this.status = status;
    this.rpcMessage = rpcMessage;
  }
}

const SOURCE = 'Force Build Form';
/** Buildbot's default for names and values of AnyPropertyParameters. */
const ALLOWED = /^[\w.\-/~:]*$/;
const REASON = { name: 'reason', type: 'text' } as const;
const REASON_STRING = "A build was forced by '%(owner)s': %(reason)s";
const CODEBASE = ['branch', 'project', 'repository', 'revision'] as const;

/** As `GET /forceschedulers` shows it. @param hasPriority from 4.x on every one has a parameter for it */
export function describeScheduler(scheduler: ForceSchedulerOptions, hasPriority: boolean): object {
  const own = scheduler.parameters.map(({ name, type = 'text' }) =>
    type === 'any'
      ? group(name, [leaf('name', 'text', `${name}_name`), leaf('value', 'text', `${name}_value`)])
      : leaf(name, type),
  );
  const { reason = REASON } = scheduler;
  const priority = hasPriority ? [{ ...leaf('priority', 'int'), default: 0 }] : [];
  return {
    all_fields: [
      group('', [
        leaf('username', 'username'),
        ...[{ ...leaf(reason.name, reason.type), default: 'force build' }],
        ...priority,
      ]),
      group(
        '',
        CODEBASE.map((name) => leaf(name, 'text')),
      ),
      ...own,
    ],
    builder_names: scheduler.builderNames,
    button_name: scheduler.name,
    enabled: true,
    label: scheduler.name,
    name: scheduler.name,
  };
}

function leaf(name: string, type: string, fullName = name): object {
  const defaults: Readonly<Record<string, unknown>> = { int: 0, bool: '' };
  return {
    autopopulate: null,
    default: defaults[type] ?? '',
    fullName,
    hide: false,
    label: name,
    maxsize: null,
    multiple: false,
    name,
    regex: null,
    required: false,
    size: 10,
    tablabel: name,
    type,
  };
}

function group(name: string, fields: readonly object[]): object {
  return {
    autopopulate: null,
    columns: 1,
    default: '',
    fields,
    fullName: name === '' ? null : name,
    hide: false,
    label: '',
    layout: 'vertical',
    maxsize: null,
    multiple: false,
    name,
    regex: null,
    required: false,
    tablabel: '',
    type: 'nested',
  };
}

/**
 * The request that a `force` call asks for; undeclared parameters are dropped without a word, as Buildbot does.
 * @throws ForceError
 */
export function toForceRequest(
  scheduler: ForceSchedulerOptions | undefined,
  parameters: Readonly<Record<string, unknown>>,
): ForceRequest {
  if (scheduler === undefined) {
    throw new ForceError(500, `AttributeError("'NoneType' object has no attribute 'force'")`);
  }
  const wanted = Array.isArray(parameters.builderNames) ? parameters.builderNames : [];
  const builder = scheduler.builderNames.find((name) => wanted.includes(name));
  if (builder === undefined) {
    throw new ForceError(500, "KeyError('builderNames not specified or not supported')");
  }
  const text = (name: string, otherwise: string) => asText(parameters[name], otherwise);
  const { reason: parameter = REASON, reasonString = REASON_STRING } = scheduler;
  const reason = parameter.type === 'fixed' ? 'force build' : text(parameter.name, 'force build');
  // As recorded, where a call names no owner.
  const owner = text('owner', scheduler.name);
  const properties: Record<string, readonly [unknown, string]> = {};
  for (const declared of scheduler.parameters) {
    Object.assign(properties, propertyOf(declared, parameters));
  }
  return {
    builder,
    scheduler: scheduler.name,
    reason: reasonString.replaceAll('%(owner)s', () => owner).replaceAll('%(reason)s', () => reason),
    priority: Number(parameters.priority ?? 0),
    sourcestamp: {
      branch: text('branch', ''),
      revision: text('revision', ''),
      project: text('project', ''),
      repository: text('repository', ''),
    },
    properties: {
      ...properties,
      reason: [reason, SOURCE],
      owner: [owner, SOURCE],
      scheduler: [scheduler.name, 'Scheduler'],
    },
  };
}

/** A blank text counts as none given. */
function asText(value: unknown, otherwise: string): string {
  return typeof value === 'string' && value.trim() !== '' ? value : otherwise;
}

function propertyOf(
  { name, type = 'text' }: ParameterOptions,
  parameters: Readonly<Record<string, unknown>>,
): Record<string, readonly [unknown, string]> {
  const value = parameters[name];
  switch (type) {
    case 'text':
      return { [name]: [asText(value, ''), SOURCE] };
    case 'bool':
      return { [name]: [value === true, SOURCE] };
    case 'int': {
      const number = value === undefined ? 0 : Number(value);
      if (!Number.isInteger(number)) {
        throw new ForceError(400, { [name]: `invalid literal for int() with base 10: '${String(value)}'` });
      }
      return { [name]: [number, SOURCE] };
    }
    case 'any': {
      const slotName = asText(parameters[`${name}_name`], '');
      const slotValue = asText(parameters[`${name}_value`], '');
      if (!ALLOWED.test(slotName) || !ALLOWED.test(slotValue)) {
        throw new ForceError(400, { [name]: `bad property name='${slotName}', value='${slotValue}'` });
      }
      return slotName === '' ? {} : { [slotName]: [slotValue, SOURCE] };
    }
    default:
      return type satisfies never;
  }
}
