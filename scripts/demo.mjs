/** Installs what is missing, builds, and shows the demo: `npm run demo [-- --real] [-- --keep]`. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { ensureBuild, ensureNodeModules, ROOT } from './lib/packages.mjs';

try {
  await ensureNodeModules();
  await ensureBuild();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exit(1);
}
const child = spawn(process.execPath, [path.join(ROOT, 'dist/src/cli.js'), 'demo', ...process.argv.slice(2)], {
  stdio: 'inherit',
});
// The terminal sends its signals to the demo as well: let it end by itself.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => undefined);
}
child.on('exit', (code) => process.exit(code ?? 1));
