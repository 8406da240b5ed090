/** `npm run chaos [-- --seed S --tasks N --seconds T]`: a campaign on real servers, for each kind of Buildbot. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { ROOT } from './lib/packages.mjs';

const HELP = `npm run chaos [-- options]
Three bridges on a real RabbitMQ and MariaDB, with a real Buildbot 3.7 and with a classic one, while everything breaks.
  --seed S     which faults happen, and when (1)
  --tasks N    how many tasks are submitted (300)
  --seconds T  how long things break (240)
  --log FILE   where the bridges' logs go if something is wrong
`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    tasks: { type: 'string', default: '300' },
    seconds: { type: 'string', default: '240' },
    log: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
const env = {
  ...process.env,
  BBB_CHAOS_SEED: values.seed,
  BBB_CHAOS_TASKS: values.tasks,
  BBB_CHAOS_SECONDS: values.seconds,
  ...(values.log ? { BBB_CHAOS_LOG: path.resolve(values.log) } : {}),
};
const child = spawn(process.execPath, [path.join(ROOT, 'scripts/test.mjs'), 'chaos'], { env, stdio: 'inherit' });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => child.kill(signal));
}
child.on('exit', (code) => process.exit(code ?? 1));
