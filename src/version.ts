import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const manifest = z.object({ name: z.literal('buildbot-bridge'), version: z.string() });

/** The version in the project's package.json, from the sources and from the built files alike. */
export function readVersion(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  while (folder !== path.dirname(folder)) {
    try {
      return manifest.parse(JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'))).version;
    } catch {
      folder = path.dirname(folder);
    }
  }
  return 'unknown';
}
