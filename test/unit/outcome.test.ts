import { describe, expect, it } from '@jest/globals';
import { RESULT_NAMES } from '../../src/domain/build.ts';
import { type ResultPolicy, resolutionOf, runResults, statusJson } from '../../src/reflector/outcome.ts';
import { aBuild, POLICY, requestComplete, requestPending, TASK_ID } from '../support/builders.ts';

describe('results become resolutions', () => {
  it.each([
    ['SUCCESS', 'completed'],
    ['WARNINGS', 'failed'],
    ['FAILURE', 'failed'],
    ['SKIPPED', 'internal-error'],
    ['EXCEPTION', 'internal-error'],
    ['RETRY', 'worker-shutdown'],
    ['CANCELLED', 'worker-shutdown'],
    [undefined, 'internal-error'],
  ] as const)('%s by default: %s', (results, expected) => {
    const resolution = resolutionOf(results, POLICY.results);
    expect(resolution.state === 'exception' ? resolution.reason : resolution.state).toBe(expected);
  });

  it('by the operator, where one may choose', () => {
    const policy: ResultPolicy = { ...POLICY.results, warnings: 'completed', exception: 'intermittent-task' };
    expect(resolutionOf('WARNINGS', policy)).toEqual({ state: 'completed' });
    expect(resolutionOf('EXCEPTION', policy)).toEqual({ state: 'exception', reason: 'intermittent-task' });
  });
});

describe('status.json', () => {
  it("tells what happened, in everybody's words", () => {
    const request = requestComplete('WARNINGS', aBuild('RETRY', { number: 4 }), aBuild('WARNINGS'));
    const status = statusJson({
      taskId: TASK_ID,
      runId: 1,
      builder: 'linux64-build',
      request,
      resolution: { state: 'failed' },
      results: runResults(request),
    });
    expect(status).toMatchObject({
      version: 1,
      runId: 1,
      buildRequestId: 17,
      results: 1,
      resultName: 'WARNINGS',
      resolution: { state: 'failed', reason: 'failed' },
      treeherder: { result: 'testfailed', colour: 'orange' },
      builds: [
        { number: 4, results: 5, worker: 'w1' },
        { number: 5, results: 1, startedAt: '2026-11-23T20:50:00.000Z', completedAt: '2026-11-23T20:59:00.000Z' },
      ],
    });
  });

  it('has a Treeherder word for every result', () => {
    for (const results of RESULT_NAMES) {
      const status = statusJson({
        taskId: TASK_ID,
        runId: 0,
        builder: 'b',
        request: null,
        resolution: 'canceled',
        results,
      });
      expect(status).toMatchObject({ resultName: results, treeherder: { result: expect.any(String) } });
      expect(status).toMatchObject({ resolution: { state: 'exception', reason: 'canceled' } });
    }
  });

  it('judges a run whose request is still open by its last finished build', () => {
    expect(runResults(requestPending(aBuild('RETRY')))).toBe('RETRY');
  });
});
