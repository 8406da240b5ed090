/** What Buildbot answers, as far as the bridge reads it. Unknown keys are ignored: every version adds some. */
import { z } from 'zod';
import { RESULT_NAMES, type ResultName } from '../../domain/build.ts';
import { listOf, recordOf } from '../../lists.ts';
import { records } from '../records.ts';

/** Buildbot's times are whole seconds; beyond these there are no dates. */
const seconds = z
  .number()
  .min(-8.64e12)
  .max(8.64e12)
  .transform((s) => s * 1000);

/** The name of a result code; undefined for -1 (unfinished) and for codes that this bridge does not know. */
export function resultName(code: number | null): ResultName | undefined {
  return code === null ? undefined : RESULT_NAMES[code];
}

export const requestAnswer = z.object({
  buildrequestid: z.int(),
  buildsetid: z.int(),
  builderid: z.int(),
  complete: z.boolean(),
  /** -1 while the request is open. */
  results: z.int().nullable(),
});
export type RequestAnswer = z.infer<typeof requestAnswer>;

export const buildAnswer = z.object({
  buildid: z.int(),
  number: z.int(),
  builderid: z.int(),
  buildrequestid: z.int(),
  workerid: z.int().nullable(),
  complete: z.boolean(),
  results: z.int().nullable(),
  state_string: z.string(),
  started_at: seconds,
  complete_at: seconds.nullable(),
});
export type BuildAnswer = z.infer<typeof buildAnswer>;

const buildsetAnswer = z.object({ bsid: z.int(), reason: z.string() });
export type BuildsetAnswer = z.infer<typeof buildsetAnswer>;
const builderAnswer = z.object({ builderid: z.int(), name: z.string() });
const workerAnswer = z.object({ workerid: z.int(), name: z.string() });

// Of these lists each record is read for itself: they hold what belongs to different tasks.
export const requestsAnswer = z.object({ buildrequests: records(requestAnswer, 'buildrequestid') });
export const buildsAnswer = z.object({ builds: records(buildAnswer, 'buildrequestid') });
export const buildsetsAnswer = z.object({ buildsets: records(buildsetAnswer, 'bsid') });
export const buildersAnswer = z.object({ builders: records(builderAnswer, 'builderid') });
export const workersAnswer = z.object({ workers: records(workerAnswer, 'workerid') });
export const propertiesAnswer = z.object({
  properties: listOf(recordOf(z.tuple([z.unknown(), z.string()]).rest(z.unknown()))),
});
export const stepsAnswer = z.object({
  steps: listOf(
    z.object({
      stepid: z.int(),
      number: z.int(),
      name: z.string(),
      state_string: z.string(),
      results: z.int().nullable(),
      started_at: seconds.nullable(),
      complete_at: seconds.nullable(),
    }),
  ),
});
export const logsAnswer = z.object({ logs: listOf(z.object({ logid: z.int(), name: z.string(), slug: z.string() })) });

/** `force` answers the buildset's id and the request's for each builder's id. */
export const forceAnswer = z.tuple([z.int(), recordOf(z.int())]);

/** A parameter of a ForceScheduler; groups hold others. */
export interface FieldAnswer {
  readonly name: string;
  readonly fullName: string | null;
  readonly type: string;
  readonly default?: unknown;
  readonly multiple?: boolean | undefined;
  readonly fields?: readonly FieldAnswer[] | undefined;
}
const field: z.ZodType<FieldAnswer> = z.lazy(() =>
  z.object({
    name: z.string(),
    fullName: z.string().nullable(),
    type: z.string(),
    default: z.unknown().optional(),
    multiple: z.boolean().optional(),
    fields: listOf(field).optional(),
  }),
);
const forceSchedulerAnswer = z.object({
  name: z.string(),
  enabled: z.boolean().optional(),
  builder_names: listOf(z.string()),
  all_fields: listOf(field),
});
export type ForceSchedulerAnswer = z.infer<typeof forceSchedulerAnswer>;
/** Each for itself: people write parameters of their own for others. */
export const forceSchedulersAnswer = z.object({ forceschedulers: records(forceSchedulerAnswer, 'name') });
