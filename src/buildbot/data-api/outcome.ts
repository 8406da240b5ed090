/** What a finished build leaves behind: its properties, and one log out of the logs of all its steps. */
import { Readable } from 'node:stream';
import type { Logger } from 'pino';
import type { z } from 'zod';
import type { Build, RequestView } from '../../domain/build.ts';
import type { InputCounter, Outcome } from '../../ports.ts';
import { answeredProperties } from '../properties.ts';
import { logsAnswer, propertiesAnswer, resultName, stepsAnswer } from './answers.ts';
import type { RestClient } from './rest-client.ts';

type Step = z.infer<typeof stepsAnswer>['steps'][number];

/** Of the request's last build; a request without one leaves nothing. @throws LegacyCiError */
export async function readOutcome(
  rest: RestClient,
  request: RequestView,
  context: { readonly log: Logger | undefined; readonly inputs: InputCounter | undefined },
): Promise<Outcome> {
  const build = request.builds.at(-1);
  if (build === undefined) {
    return { properties: {}, log: { kind: 'none' } };
  }
  const answer = await rest.get(`builds/${build.buildId}/properties`, propertiesAnswer);
  return {
    properties: answeredProperties(
      Object.entries(answer.properties[0] ?? {}).map(([name, [value, source]]) => [name, value, source]),
      request.buildRequestId,
      context,
    ),
    log: {
      kind: 'stream',
      open: async () => Readable.from(completeLog(rest, request, build), { objectMode: false }),
    },
  };
}

/** All steps in order, each with a heading; read as it is written, and no faster. */
async function* completeLog(rest: RestClient, request: RequestView, build: Build): AsyncGenerator<Buffer> {
  yield text(
    `Builder: ${request.builder}\nBuild: ${build.number} (build request ${request.buildRequestId})\nWorker: ${build.worker ?? 'none'}\nState: ${build.stateText}\n`,
  );
  const answer = await rest.get(`builds/${build.buildId}/steps`, stepsAnswer);
  for (const step of [...answer.steps].sort((a, b) => a.number - b.number)) {
    yield text(heading(step));
    const { logs } = await rest.get(`steps/${step.stepid}/logs`, logsAnswer);
    for (const log of logs) {
      yield text(`--- log: ${log.name}\n`);
      yield* endingInNewline(rest.stream(`logs/${log.logid}/raw`));
    }
  }
}

function heading(step: Step): string {
  const time = (ms: number | null) => (ms === null ? '-' : new Date(ms).toISOString());
  const result = resultName(step.results) ?? 'not finished';
  return `\n=== step ${step.number}: ${step.name} (${result}) ${step.state_string}\n=== started ${time(step.started_at)}, finished ${time(step.complete_at)}\n`;
}

async function* endingInNewline(chunks: AsyncGenerator<Buffer>): AsyncGenerator<Buffer> {
  let last: number | undefined;
  for await (const chunk of chunks) {
    last = chunk.at(-1) ?? last;
    yield chunk;
  }
  if (last !== undefined && last !== 0x0a) {
    yield text('\n');
  }
}

function text(value: string): Buffer {
  return Buffer.from(value);
}
