/** Keeps what only messages of a classic Buildbot tell of a build. */
import { createHash } from 'node:crypto';
import type { Knex } from 'knex';
import { z } from 'zod';
import type { FoundNote, KeptBuild } from '../domain/kept-build.ts';
import { parseJson } from '../json.ts';
import { recordOf } from '../lists.ts';
import { NOT_ASCII, plain } from '../plain.ts';
import type { KeptBuilds } from '../ports.ts';
import { isUniqueViolation } from '../sql.ts';
import { withStoreErrors } from './errors.ts';
import { clip } from './rows.ts';
import { createUnreadableRows, type RowReports } from './unreadable-rows.ts';

const ID_BATCH = 500;
/** Of one request; far more than it has builds, and events that tell of them. */
const MAX_KEPT = 50;
/** Surplus ones that are removed with one new one. */
const MAX_REMOVED = 100;

const number = z.coerce.number();
const properties = recordOf(z.tuple([z.unknown(), z.string()]));
const noteRow = z.object({
  id: number,
  build_request_id: number,
  number,
  master: z.string(),
  started_at: number,
  is_final: z.union([z.boolean(), number.transform(Boolean)]),
  worker: z.string().nullable(),
});
/** All that is read of many. */
const NOTE = Object.keys(noteRow.shape);
const keptRow = noteRow.extend({
  properties: z.string().transform((text, context) => {
    const parsed = properties.safeParse(parseJson(text));
    if (!parsed.success) {
      context.addIssue({ code: 'custom', message: 'not the properties of a build' });
      return z.NEVER;
    }
    return parsed.data;
  }),
  log_url: z.string().nullable(),
});

/** The caller opens (and migrates) the database, and closes it. */
export function createKeptBuilds(db: Knex, reports: RowReports = {}): KeptBuilds {
  const table = () => db('kept_builds');
  const onUnreadable = createUnreadableRows('kept-build-row', 'kept build left out: it cannot be read', reports);

  /** One that cannot be read is as good as none: what it tells is not vital, and others are read with it. */
  function readable<T>(schema: z.ZodType<T>, row: Record<string, unknown>): readonly T[] {
    const parsed = schema.safeParse(row);
    if (parsed.success) {
      return [parsed.data];
    }
    onUnreadable(row, parsed.error);
    return [];
  }

  async function keepOne(row: ReturnType<typeof toRow>): Promise<void> {
    try {
      await table().insert(row);
      await removeSurplus(row.build_request_id);
    } catch (error) {
      if (!isUniqueViolation(error)) {
        throw error;
      }
      const known = table().where({ identity: row.identity });
      await (row.is_final ? known : known.andWhere({ is_final: false })).update(row);
    }
  }

  /** The oldest, those first after which more was to come: whoever sends events of a request without end fills no table with them. */
  async function removeSurplus(buildRequestId: number): Promise<void> {
    const own = table().where({ build_request_id: buildRequestId });
    const inOrder = own.orderBy('is_final', 'desc').orderBy('id', 'desc');
    const surplus: number[] = await inOrder.offset(MAX_KEPT).limit(MAX_REMOVED).pluck('id');
    if (surplus.length > 0) {
      await table().whereIn('id', surplus).delete();
    }
  }

  const kept: KeptBuilds = {
    async keep(builds, now) {
      // Those of one event have the same properties, and to escape them takes longer than to write them.
      const texts = new Map<KeptBuild['properties'], string>();
      for (const build of builds) {
        const text = texts.get(build.properties) ?? textOfProperties(build.properties);
        texts.set(build.properties, text);
        await keepOne(toRow(build, text, now));
      }
    },
    async of(buildRequestIds) {
      const found: FoundNote[] = [];
      for (let start = 0; start < buildRequestIds.length; start += ID_BATCH) {
        const ids = buildRequestIds.slice(start, start + ID_BATCH);
        const rows: Record<string, unknown>[] = await table()
          .whereIn('build_request_id', ids)
          .orderBy('id')
          .select(NOTE);
        found.push(...rows.flatMap((row) => readable(noteRow, row)).map(toNote));
      }
      return found;
    },
    async whole(id) {
      const rows: Record<string, unknown>[] = await table().where({ id });
      const [row] = rows.flatMap((one) => readable(keptRow, one));
      return row && toKeptBuild(row);
    },
    async prune(before, limit) {
      const ids: number[] = await table().where('kept_at', '<', before).orderBy('kept_at').limit(limit).pluck('id');
      return ids.length === 0 ? 0 : table().whereIn('id', ids).delete();
    },
  };
  return withStoreErrors(kept);
}

/** Escaped: PostgreSQL takes no NUL, and no engine takes half a character. */
function textOfProperties(properties: KeptBuild['properties']): string {
  return plain(JSON.stringify(properties), NOT_ASCII);
}

function toRow(build: KeptBuild, propertiesText: string, now: number) {
  const { buildRequestId, number: buildNumber, master, startedAt } = build;
  return {
    identity: createHash('sha256')
      .update(JSON.stringify([buildRequestId, buildNumber, master, startedAt]))
      .digest('hex'),
    build_request_id: buildRequestId,
    number: buildNumber,
    master: clip(master, 255),
    started_at: Math.round(startedAt),
    is_final: build.isFinal,
    properties: propertiesText,
    log_url: build.logUrl,
    worker: build.worker === null ? null : clip(build.worker, 255),
    kept_at: now,
  };
}

function toKeptBuild(r: z.infer<typeof keptRow>): KeptBuild {
  const { id: _id, ...note } = toNote(r);
  return { ...note, properties: r.properties, logUrl: r.log_url };
}

function toNote(r: z.infer<typeof noteRow>): FoundNote {
  return {
    id: r.id,
    buildRequestId: r.build_request_id,
    number: r.number,
    master: r.master,
    startedAt: r.started_at,
    isFinal: r.is_final,
    worker: r.worker,
  };
}
