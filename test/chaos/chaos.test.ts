import { appendFileSync } from 'node:fs';
import { expect, it } from '@jest/globals';
import { startMozillaSide } from '../support/legacy/classic.ts';
import { startDataApiSide } from '../support/legacy/data-api.ts';
import { runCampaign } from './campaign.ts';

const seed = Number(process.env.BBB_CHAOS_SEED ?? 1);
const tasks = Number(process.env.BBB_CHAOS_TASKS ?? 90);
const seconds = Number(process.env.BBB_CHAOS_SECONDS ?? 60);
const log = process.env.BBB_CHAOS_LOG;

it.each([
  ['a Buildbot 3.7', startDataApiSide],
  ['a classic Buildbot', startMozillaSide],
])(
  'three bridges on %s lose and double nothing, whatever breaks',
  async (name, legacy) => {
    const { faults, problems, logs } = await runCampaign({ legacy, seed, tasks, seconds });
    const total = [...faults.values()].reduce((sum, count) => sum + count, 0);
    const lines = [...faults].map(([fault, count]) => `  ${count} x ${fault}`);
    process.stdout.write(
      `chaos on ${name}, seed ${seed}: ${tasks} tasks, ${total} faults survived\n${lines.join('\n')}\n`,
    );
    if (log !== undefined && problems.length > 0) {
      appendFileSync(log, `${logs.join('\n')}\n`);
    }
    expect(problems).toEqual([]);
  },
  (seconds + 300) * 1000,
);
