/** What the test script says of the servers it has started. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';

const schema = z.object({
  folder: z.string(),
  rabbitmq: z.object({ url: z.string(), adminUrl: z.string(), env: z.record(z.string(), z.string()) }),
  mariadb: z.object({ url: z.string() }),
  postgres: z.object({ url: z.string() }),
  buildbot: z.object({ folder: z.string(), template: z.string(), pythonPath: z.string() }),
});
export type Facts = z.infer<typeof schema>;

/** @throws when the tests were started without their services */
export function readFacts(): Facts & { readonly file: string } {
  const file = process.env.BBB_TEST_SERVICES;
  if (file === undefined) {
    throw new Error('these tests need their services: run them with `npm test`, or `npm run test:adapters`');
  }
  return { ...schema.parse(JSON.parse(readFileSync(file, 'utf8'))), file };
}

const SCRIPT = path.resolve(import.meta.dirname, '../../../scripts/services.mjs');

/** Starts, stops or kills one of the servers; resolves when it is done. */
export async function moveServer(
  what: 'start' | 'stop' | 'kill',
  name: 'rabbitmq' | 'mariadb' | 'postgres',
): Promise<void> {
  await promisify(execFile)(process.execPath, [SCRIPT, readFacts().file, what, name]);
}
