/** Whether a task may be built, and as what: its payload and the rules for its builder. Pure. */
import { satisfiesExpression } from 'taskcluster-lib-scopes';
import { z } from 'zod';
import type { TaskDefinition } from '../domain/task.ts';
import { isTooDeep } from '../json.ts';
import type { BuildSpec, Problem } from '../ports.ts';

/** What is known of whether a task may be built. */
export type Admission =
  | { readonly kind: 'admitted'; readonly spec: BuildSpec; readonly collapseKey: string | null }
  /** The author (or an operator) has to change something; each problem says what. */
  | { readonly kind: 'refused'; readonly builder: string; readonly problems: readonly Problem[] }
  /** Another bridge looks after this builder. */
  | { readonly kind: 'ignored'; readonly builder: string };

/** The operator's rules for builders. */
export interface BuilderRules {
  /** Builders that another bridge looks after: their tasks are left alone. */
  isIgnored(builder: string): boolean;
  /** Builders for which a task needs a scope. */
  isRestricted(builder: string): boolean;
}

const MAX_NAME = 255;

/** The scopes of which a task needs one for a restricted builder; the second is from the first bridge. */
export function scopesForBuilder(builder: string): readonly string[] {
  return [`buildbot-bridge:builder-name:${builder}`, `project:releng:buildbot-bridge:builder-name:${builder}`];
}

/** Of a problem's text in a task's log, and of problems. */
const MAX_TEXT = 1000;
const MAX_PROBLEMS = 50;

const text = z
  .string()
  .min(1)
  .max(MAX_NAME)
  // What databases refuse, whichever: Buildbot would answer with an error for ever.
  .refine((given) => !/[\0\p{Surrogate}]/u.test(given), 'it holds a NUL or half a character');
/** A record that is parsed loses this key without a word. */
const NO_PROPERTY = '__proto__';
const payloadSchema = z.strictObject({
  buildername: text,
  sourcestamp: z
    .strictObject({
      branch: text,
      revision: text.optional(),
      repository: text.optional(),
      project: text.optional(),
    })
    .optional(),
  properties: z
    .custom((given) => typeof given !== 'object' || given === null || !Object.hasOwn(given, NO_PROPERTY), {
      error: `no property can be called ${NO_PROPERTY}`,
      abort: true,
    })
    .pipe(z.record(z.string(), z.unknown()))
    .optional(),
});

/** The builder a payload asks for, however wrong the rest is; empty if it names none. */
export function requestedBuilder(payload: unknown): string {
  const parsed = z.object({ buildername: z.string() }).safeParse(payload);
  return parsed.success ? parsed.data.buildername : '';
}

/** A branch given as a URL is cut to its path without slashes at its ends, as the first bridge did. */
export function branchPath(branch: string): string {
  const isUrl = branch.includes('://') && URL.canParse(branch);
  const path = isUrl ? new URL(branch).pathname.replace(/^\/+/, '') : branch;
  return path.replace(/\/+$/, '') || branch;
}

const EXAMPLE =
  'a payload looks like {"buildername": "linux64-build", "sourcestamp": {"branch": "releases/main", "revision": "0123abcd"}, "properties": {"product": "widget"}}';

function payloadProblems(error: z.ZodError): Problem[] {
  return error.issues.map((issue) => ({
    where: ['payload', ...issue.path.map(String)].join('.'),
    what: issue.message,
    mend: EXAMPLE,
  }));
}

/**
 * Reads a payload.
 * @returns what is to be built, or every problem found in it
 */
export function parsePayload(
  task: Pick<BuildSpec, 'taskId' | 'runId' | 'externalId' | 'scheduled'>,
  definition: TaskDefinition,
): { readonly spec: BuildSpec } | { readonly problems: readonly Problem[] } {
  if (isTooDeep(definition.payload)) {
    return { problems: [{ where: 'payload', what: 'it is nested too deep', mend: EXAMPLE }] };
  }
  const parsed = payloadSchema.safeParse(definition.payload);
  if (!parsed.success) {
    return { problems: payloadProblems(parsed.error) };
  }
  const { buildername, sourcestamp, properties } = parsed.data;
  return {
    spec: {
      ...task,
      priority: definition.priority,
      builder: buildername,
      branch: sourcestamp ? branchPath(sourcestamp.branch) : null,
      revision: sourcestamp?.revision ?? null,
      repository: sourcestamp?.repository ?? null,
      project: sourcestamp?.project ?? null,
      properties: properties ?? {},
    },
  };
}

/** As MySQL compares by default: without regard to case, accents and blanks at the end. */
const ALIKE = new Intl.Collator('en', { sensitivity: 'base' });

/**
 * The restricted builders that a request for this one may reach: itself, and those that a classic Buildbot's database
 * takes for the same, of which a master may build the request.
 */
export function restrictedAs(builder: string, rules: BuilderRules, builders: ReadonlySet<string>): readonly string[] {
  const name = builder.trimEnd();
  const alike = [...builders].filter((other) => other !== builder && ALIKE.compare(other.trimEnd(), name) === 0);
  return [builder, ...alike].filter((one) => rules.isRestricted(one));
}

/**
 * The rules for the builder a payload asks for.
 * @param scopes the task's scopes, `assume:` ones expanded
 * @param builders all builders the legacy CI offers
 */
export function builderProblems(
  builder: string,
  rules: BuilderRules,
  scopes: readonly string[],
  builders: ReadonlySet<string>,
): readonly Problem[] {
  const forbidden = restrictedAs(builder, rules, builders).find(
    (name) => !scopesForBuilder(name).some((scope) => satisfiesExpression([...scopes], scope)),
  );
  if (forbidden !== undefined) {
    const isAlike = forbidden !== builder;
    return [
      {
        where: 'scopes',
        what: `the builder "${forbidden}"${isAlike ? `, which Buildbot's database may take "${builder}" for,` : ''} is restricted and the task is not authorised for it`,
        mend: `add the scope ${scopesForBuilder(forbidden)[0]} to the task's scopes; whoever creates the task must have it`,
      },
    ];
  }
  if (!builders.has(builder)) {
    return [
      {
        where: 'payload.buildername',
        what: `there is no builder "${builder}"`,
        mend: nearest(builder, builders),
      },
    ];
  }
  return [];
}

function nearest(builder: string, builders: ReadonlySet<string>): string {
  const folded = builder.trim().toLowerCase();
  const close = [...builders]
    .filter((name) => {
      if (folded.length < 3) {
        return false;
      }
      const candidate = name.toLowerCase();
      return candidate === folded || candidate.includes(folded) || folded.includes(candidate);
    })
    .sort()
    .slice(0, 5);
  return close.length > 0
    ? `did you mean ${close.map((name) => `"${name}"`).join(' or ')}? Names are compared exactly`
    : 'use the exact name of a builder that the bridge may build on; Buildbot lists them on its Builders page';
}

/** What the author of a refused task reads in its log. */
export function refusalText(builder: string, problems: readonly Problem[]): string {
  return [
    `This task was not built: ${problems.length === 1 ? 'there is a problem' : `there are ${problems.length} problems`} with its definition${builder ? ` (builder "${oneLine(builder)}")` : ''}.`,
    '',
    ...problems
      .slice(0, MAX_PROBLEMS)
      .flatMap((problem, index) => [
        `${index + 1}. ${oneLine(problem.where)}: ${oneLine(problem.what)}`,
        `   How to mend it: ${oneLine(problem.mend)}`,
      ]),
    ...(problems.length > MAX_PROBLEMS ? ['...'] : []),
    '',
    'A task cannot be changed: create a new one with the corrected definition.',
    '',
  ].join('\n');
}

/** A text that an author may have chosen: one line, short, and with nothing in it that is not text. */
function oneLine(text: string): string {
  const plain = text
    .slice(0, MAX_TEXT)
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]/gu, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);
  return text.length > MAX_TEXT ? `${plain}…` : plain;
}
