/** Every change of a row, in the order in which it was made: kept by the database itself. */
import type { Knex } from 'knex';

export interface RowChange {
  readonly kind: 'insert' | 'update' | 'delete';
  /** Such as `buildrequests 5`; claims go by their request. */
  readonly row: string;
  readonly to: Readonly<Record<string, unknown>> | null;
}

export interface History {
  /** What is made to happen meanwhile is left out. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Changes that changed something, in their order. */
  read(): Promise<readonly RowChange[]>;
}

/** Of buildsets only what changes. */
const COLUMNS: Readonly<Record<string, readonly string[]>> = {
  buildrequests: ['id', 'buildsetid', 'buildername', 'priority', 'complete', 'results', 'submitted_at', 'complete_at'],
  buildrequest_claims: ['brid', 'objectid', 'claimed_at'],
  builds: ['id', 'number', 'brid', 'start_time', 'finish_time'],
  buildsets: ['id', 'complete', 'complete_at', 'results'],
};
/** The claim is three more columns there. */
const CLAIM_COLUMNS = ['claimed_at', 'claimed_by_name', 'claimed_by_incarnation'];

export async function createHistory(db: Knex, tables: readonly string[]): Promise<History> {
  await db.raw(
    'CREATE TABLE history (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, kind varchar(10), name varchar(99), to_row text)',
  );
  for (const table of tables) {
    const hasClaim = table === 'buildrequests' && (await db.schema.hasColumn(table, 'claimed_at'));
    const columns = [...(COLUMNS[table] ?? []), ...(hasClaim ? CLAIM_COLUMNS : [])];
    const key = columns[0] ?? 'id';
    const row = columns.map((column) => `'${column}', NEW.${column}`).join(', ');
    for (const kind of ['insert', 'update', 'delete']) {
      const [name, to] = kind === 'delete' ? [`OLD.${key}`, 'NULL'] : [`NEW.${key}`, `JSON_OBJECT(${row})`];
      await db.raw(
        `CREATE TRIGGER ${table}_${kind} AFTER ${kind.toUpperCase()} ON ${table} FOR EACH ROW
         INSERT INTO history (kind, name, to_row) VALUES ('${kind}', CONCAT('${table} ', ${name}), ${to})`,
      );
    }
  }
  const holes: { from: number; to: number }[] = [];
  const lastId = async () => (await db('history').max<{ id: number | null }[]>({ id: 'id' }))[0]?.id ?? 0;

  return {
    async pause() {
      holes.push({ from: await lastId(), to: Number.POSITIVE_INFINITY });
    },
    async resume() {
      const hole = holes.at(-1);
      if (hole) {
        hole.to = await lastId();
      }
    },
    async read() {
      type Row = { id: number; kind: RowChange['kind']; name: string; to_row: string | null };
      const last = new Map<string, string | null>();
      return (await db<Row>('history').orderBy('id')).flatMap(({ id, kind, name, to_row }): RowChange[] => {
        const isNew = last.get(name) !== to_row;
        last.set(name, to_row);
        const isHidden = holes.some(({ from, to }) => id > from && id <= to);
        return isNew && !isHidden ? [{ kind, row: name, to: to_row === null ? null : JSON.parse(to_row) }] : [];
      });
    },
  };
}
