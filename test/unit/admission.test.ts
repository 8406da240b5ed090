import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import type { TaskDefinition } from '../../src/domain/task.ts';
import {
  branchPath,
  builderProblems,
  parsePayload,
  refusalText,
  requestedBuilder,
  scopesForBuilder,
} from '../../src/reflector/admission.ts';
import { NOW, TASK_ID } from '../support/builders.ts';
import { tried } from '../support/hostile-input.ts';

const TASK = { taskId: TASK_ID, runId: 0, externalId: `${TASK_ID}/0/1`, scheduled: NOW };
const RULES = {
  isIgnored: () => false,
  isRestricted: (builder: string) => builder.startsWith('release-'),
};

function definition(payload: unknown): TaskDefinition {
  return {
    taskQueueId: 'buildbot/bridge',
    schedulerId: 's',
    taskGroupId: TASK_ID,
    priority: 'low',
    deadline: NOW,
    expires: NOW,
    scopes: [],
    payload,
  };
}

describe('a payload', () => {
  it('of the first bridge is read as it always was', () => {
    const payload = {
      buildername: 'runtests',
      sourcestamp: { branch: 'https://hg.example.org/integration/inbound/', revision: 'abcdef' },
      properties: { product: 'firefox', locales: ['de', 'fr'] },
    };
    expect(parsePayload(TASK, definition(payload))).toEqual({
      spec: {
        ...TASK,
        priority: 'low',
        builder: 'runtests',
        branch: 'integration/inbound',
        revision: 'abcdef',
        repository: null,
        project: null,
        properties: { product: 'firefox', locales: ['de', 'fr'] },
      },
    });
  });

  it.each([
    [undefined, 'payload'],
    [null, 'payload'],
    [[], 'payload'],
    [{}, 'payload.buildername'],
    [{ buildername: '' }, 'payload.buildername'],
    [{ buildername: 'b', sourcestamp: {} }, 'payload.sourcestamp.branch'],
    [{ buildername: 'b', sourcestamp: { branch: 'm', extra: 1 } }, 'payload.sourcestamp'],
    [{ buildername: 'b', properties: 'x' }, 'payload.properties'],
  ])('%j has a problem at %s', (payload, where) => {
    const parsed = parsePayload(TASK, definition(payload));
    expect('problems' in parsed && parsed.problems.map((problem) => problem.where)).toContain(where);
  });

  it('never makes the parser throw, whatever it is', () => {
    fc.assert(
      fc.property(fc.anything(), (payload) => {
        tried('payloads');
        const parsed = parsePayload(TASK, definition(payload));
        expect('spec' in parsed || parsed.problems.length > 0).toBe(true);
        expect(typeof requestedBuilder(payload)).toBe('string');
      }),
    );
  });
});

describe('a branch', () => {
  it.each([
    ['releases/main', 'releases/main'],
    ['main/', 'main'],
    ['https://hg.mozilla.org/integration/mozilla-inbound/', 'integration/mozilla-inbound'],
    ['https://hg.mozilla.org/', 'https://hg.mozilla.org/'],
    ['not a url://x', 'not a url://x'],
  ])('%s is built as %s', (given, built) => {
    expect(branchPath(given)).toBe(built);
  });
});

describe('a builder', () => {
  const builders = new Set(['linux64-build', 'release-x']);

  it('has to exist, to the letter', () => {
    expect(builderProblems('linux64-build', RULES, [], builders)).toEqual([]);
    for (const spelling of ['Linux64-build', 'linux64-build ', 'linux64-buıld', 'linux64']) {
      expect(builderProblems(spelling, RULES, [], builders)).toMatchObject([{ where: 'payload.buildername' }]);
    }
    expect(builderProblems('Linux64-Build', RULES, [], builders)[0]?.mend).toContain('"linux64-build"');
  });

  it.each([
    [[], false],
    [['buildbot-bridge:builder-name:release-x'], true],
    [['project:releng:buildbot-bridge:builder-name:release-x'], true],
    [['buildbot-bridge:builder-name:release-*'], true],
    [['buildbot-bridge:*'], true],
    [['buildbot-bridge:builder-name:release-y', 'buildbot-bridge:builder-name:release'], false],
  ])('that is restricted wants a scope: with %j allowed %s', (scopes, isAllowed) => {
    const problems = builderProblems('release-x', RULES, scopes, builders);
    expect(problems.length === 0).toBe(isAllowed);
    if (!isAllowed) {
      expect(problems[0]?.mend).toContain(scopesForBuilder('release-x')[0]);
    }
  });
});

it('a refusal says what, where and how to mend it', () => {
  const text = refusalText('nope', [
    { where: 'payload.buildername', what: 'there is no builder "nope"', mend: 'use another' },
  ]);
  expect(text).toContain('1. payload.buildername: there is no builder "nope"');
  expect(text).toContain('How to mend it: use another');
});

describe('a builder that a database may take for a restricted one', () => {
  const rules = { isIgnored: () => false, isRestricted: (builder: string) => builder === 'release-a' };
  const builders = new Set(['release-a', 'Release-A', 'release-a ', 'réleaſe-a', 'other']);

  it.each(['Release-A', 'release-a ', 'réleaſe-a'])('%j needs the scope of that one', (builder) => {
    expect(builderProblems(builder, rules, scopesForBuilder('Release-A'), builders)).toMatchObject([
      { where: 'scopes', what: expect.stringContaining('"release-a"') },
    ]);
    const scopes = ['buildbot-bridge:builder-name:*'];
    expect(builderProblems(builder, rules, scopes, builders)).toEqual([]);
  });

  it('is no other', () => {
    expect(builderProblems('other', rules, [], builders)).toEqual([]);
  });
});
