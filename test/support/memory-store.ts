import { connect, migrate } from '../../src/db/connection.ts';
import { createMappingStore } from '../../src/db/mapping-store.ts';
import type { MappingStore } from '../../src/ports.ts';

/** The real mapping store, on an empty database in memory; closing it ends the database. */
export async function openMemoryStore(): Promise<MappingStore> {
  const db = connect('sqlite::memory:');
  await migrate(db);
  return createMappingStore(db);
}
