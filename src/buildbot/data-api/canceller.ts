/** Who cancelled a build: a person, or a master that was stopped or restarted, which nobody asked for. */
import { z } from 'zod';
import type { Build, RequestView } from '../../domain/build.ts';
import { listOf } from '../../lists.ts';
import { logsAnswer, resultName, stepsAnswer } from './answers.ts';
import type { RestClient } from './rest-client.ts';

export type Canceller = NonNullable<RequestView['cancelledBy']>;

/** The reason that a master gives when it stops. */
const SHUTDOWN = 'Master Shutdown';

const firstLine = z.object({ logchunks: listOf(z.object({ content: z.string() })) });

/**
 * From 3.7 on a build says the reason for which it was stopped. Before, only the step that was interrupted has it, in a
 * log of its own.
 * @throws LegacyCiError
 */
export async function readCanceller(rest: RestClient, build: Build): Promise<Canceller> {
  if (build.stateText.startsWith('cancelled (')) {
    return build.stateText.startsWith(`cancelled (${SHUTDOWN})`) ? 'master-shutdown' : 'person';
  }
  return (await reasonOfStep(rest, build)) === SHUTDOWN ? 'master-shutdown' : 'person';
}

async function reasonOfStep(rest: RestClient, build: Build): Promise<string | undefined> {
  const { steps } = await rest.get(`builds/${build.buildId}/steps`, stepsAnswer);
  const interrupted = steps
    .filter(({ results }) => resultName(results) === 'CANCELLED')
    .sort((a, b) => a.number - b.number)
    .at(-1);
  if (interrupted === undefined) {
    return undefined;
  }
  const { logs } = await rest.get(`steps/${interrupted.stepid}/logs`, logsAnswer);
  // Also `cancelled while waiting for locks`.
  const log = logs.find(({ name }) => name.startsWith('cancelled'));
  if (log === undefined) {
    return undefined;
  }
  const { logchunks } = await rest.get(`logs/${log.logid}/contents?limit=1`, firstLine);
  return logchunks[0]?.content.trim();
}
