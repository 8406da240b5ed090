/** The legacy CI over Buildbot's Data API: 0.9 to 4.x. */
import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import { ConfigError, LegacyCiError } from '../../errors.ts';
import type { BuildSpec, Clock, InputCounter, LegacyCi } from '../../ports.ts';
import type { Secret } from '../../secret.ts';
import { unreadable } from '../unreadable.ts';
import { type ForceSchedulerAnswer, forceAnswer } from './answers.ts';
import { createCatalogue } from './catalogue.ts';
import { type ForceParameters, forceParameters, lackOf } from './force-parameters.ts';
import { readOutcome } from './outcome.ts';
import { createRequestReader } from './requests.ts';
import { createRestClient } from './rest-client.ts';
import { createSession } from './session.ts';
import { startWatch } from './watch.ts';

export interface DataApiOptions {
  /** Of the master's web server, without a slash at its end. */
  readonly url: string;
  readonly forceScheduler: string;
  readonly username?: string | undefined;
  readonly password?: Secret | undefined;
  /** Whether pending requests that may collapse are kept apart; see `collapseKey`. */
  readonly collapseGuard: boolean;
  readonly clock: Clock;
  readonly log?: Logger;
  readonly inputs?: InputCounter;
}

/** Asks nothing of the master before the first call. */
export function createDataApi(options: DataApiOptions): LegacyCi {
  const { url, forceScheduler, clock, log, inputs } = options;
  const session = createSession(url, options.username, options.password, options.inputs);
  const rest = createRestClient({ url, session, inputs });
  const catalogue = createCatalogue(rest, clock, forceScheduler, { log, inputs });
  const reader = createRequestReader(rest, catalogue, url, inputs);

  async function check(): Promise<void> {
    const all = await catalogue.forceSchedulers();
    const found = all.find(({ name }) => name === forceScheduler);
    if (found === undefined) {
      const others = all.map(({ name }) => `"${name}"`).join(', ') || 'none';
      throw new ConfigError(
        `Buildbot has no ForceScheduler "${forceScheduler}" (it has: ${others}). Correct legacyCi.dataApi.forceScheduler, or add to master.cfg:\n${schedulerLines(forceScheduler)}`,
      );
    }
    const lack = lackOf(found);
    if (lack) {
      throw new ConfigError(
        `Buildbot's ForceScheduler "${forceScheduler}" ${lack.what}. In master.cfg, give that ForceScheduler:\n    ${lack.mend}`,
      );
    }
  }

  async function submit(spec: BuildSpec): Promise<number> {
    const scheduler = await catalogue.forceScheduler();
    const lack = lackOf(scheduler);
    if (lack) {
      throw new LegacyCiError('legacy-ci-forbidden', `the ForceScheduler "${forceScheduler}" ${lack.what}`);
    }
    const { parameters, problems } = await parametersOf(spec, scheduler);
    const [problem] = problems;
    if (problem !== undefined) {
      // Admitted a moment ago, but the master's configuration changed meanwhile.
      throw new LegacyCiError('legacy-ci-rejected', `${problem.where}: ${problem.what}; ${problem.mend}`);
    }
    const answer = forceAnswer.safeParse(await force(parameters));
    const buildRequestId = answer.success ? Object.values(answer.data[1])[0] : undefined;
    if (buildRequestId === undefined) {
      throw unreadable(inputs, 'Buildbot does not say which build request it made');
    }
    return buildRequestId;
  }

  /** What does not fit the ForceScheduler as it was may fit it as it is. */
  async function parametersOf(spec: BuildSpec, known: ForceSchedulerAnswer): Promise<ForceParameters> {
    const first = forceParameters(spec, known);
    return first.problems.length === 0 ? first : forceParameters(spec, await catalogue.forceSchedulerNow());
  }

  async function force(parameters: Readonly<Record<string, unknown>>): Promise<unknown> {
    try {
      return await rest.control(`forceschedulers/${encodeURIComponent(forceScheduler)}`, 'force', { ...parameters });
    } catch (error) {
      if (
        error instanceof LegacyCiError &&
        error.code === 'legacy-ci-rejected' &&
        error.message.includes('bad property')
      ) {
        throw new LegacyCiError(
          'legacy-ci-rejected',
          `${error.message}. An AnyPropertyParameter takes only what c['validation']['property_name'] and ['property_value'] in master.cfg allow (by default letters, digits and _ . - / ~ :): declare a util.StringParameter of the property's own name, which takes any text, or widen the validation`,
          { cause: error },
        );
      }
      throw error;
    }
  }

  return {
    check,
    builders: (wanted) => catalogue.builders(wanted),
    problems: async (spec) => (await parametersOf(spec, await catalogue.forceScheduler())).problems,
    collapseKey: (spec) => (options.collapseGuard ? collapseKey(spec) : null),
    submit,
    findByExternalId: reader.findByExternalId,
    readMany: reader.readMany,
    async cancel(request, reason) {
      await rest.control(`buildrequests/${request.buildRequestId}`, 'cancel', { reason });
      return { kind: 'asked' };
    },
    outcome: (request) => readOutcome(rest, request, { log, inputs }),
    watch: async (listener) => startWatch({ url, session, clock, log, inputs, ...listener }),
    async close() {
      rest.close();
    },
  };
}

/**
 * Requests of the same builder, repository, branch and project collapse, whatever their properties. Their revisions count
 * only where Buildbot knows no change of either, which it does not say. A hash, so that its length is fixed.
 */
export function collapseKey({ builder, repository, branch, project }: BuildSpec): string {
  const parts = [builder, repository ?? '', branch ?? '', project ?? ''];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

function schedulerLines(name: string): string {
  return [
    'from buildbot.plugins import schedulers, util',
    `c['schedulers'].append(schedulers.ForceScheduler(`,
    `    name=${JSON.stringify(name)},`,
    '    builderNames=[...],  # the builders that tasks may ask for',
    '    properties=[util.StringParameter(name="taskId", default="")],',
    '))',
  ].join('\n');
}
