/** What a build came to is told before the task's deadline, whatever fails or hangs shortly before it. */
import { describe, expect, it } from '@jest/globals';
import { LegacyCiError } from '../../src/errors.ts';
import { type DeadlineStory, noAnswer, type Told, tellDeadline } from '../support/deadlines.ts';

const MINUTE = 60;
/** The queue's clock may be as much ahead, in seconds. */
const AHEAD = 30;

async function tellAll(stories: readonly DeadlineStory[], ahead = AHEAD): Promise<readonly string[]> {
  const late: string[] = [];
  for (const story of stories) {
    const told: Told = await tellDeadline(story);
    if (told === undefined || told.before < ahead) {
      late.push(`${story.deadline} s, rounds from ${story.round ?? 0} s: ${told?.before ?? 'never'}`);
    }
  }
  return late;
}

describe('the result of a build is told in time', () => {
  it.each([0, 5, 10, 30])(
    'where its upload fails within its last minutes, rounds from %d s',
    async (round) => {
      // As the real client has it with a bucket that swallows what is put there: four tries of half a minute.
      const stories = [122, 124, 126, 128, 130, 132, 140].map((more) => ({
        deadline: 30 * MINUTE + more,
        round,
        queue: (clock) => ({
          async putArtifact(_taskId, _runId, { kind }, signal) {
            if (kind === 'content' || kind === 'file') {
              await clock.sleep(124_000, signal);
              throw noAnswer('ETIMEDOUT');
            }
          },
        }),
      })) satisfies DeadlineStory[];
      expect(await tellAll(stories)).toEqual([]);
    },
    60_000,
  );

  it.each([
    ['is refused', 0],
    ['gets no answer', 19_000],
  ])(
    'where what the task is made of %s',
    async (_what, ms) => {
      const story: DeadlineStory = {
        deadline: 30 * MINUTE,
        queue: (clock) => ({
          async task() {
            await clock.sleep(ms);
            return { kind: 'unreadable', error: noAnswer('503') };
          },
        }),
      };
      expect(await tellAll([story])).toEqual([]);
    },
    30_000,
  );

  it.each([2 * MINUTE, 10 * MINUTE])(
    'where artifacts get no answer, nor what stands in for them: %d s',
    async (time) => {
      const stories = [0, 10, 20, 30, 40, 50].flatMap((more) =>
        [0, 20, 40].map((round) => ({
          deadline: time + more,
          round,
          queue: (clock) => ({
            async putArtifact() {
              await clock.sleep(19_000);
              throw noAnswer('createArtifact');
            },
          }),
        })),
      ) satisfies DeadlineStory[];
      expect(await tellAll(stories)).toEqual([]);
    },
    60_000,
  );

  it.each([175, 10 * MINUTE])(
    'where no resolution is taken until shortly before the deadline: %d s',
    async (deadline) => {
      const stories = [58, 50, 40, 35].flatMap((resolvedFrom) =>
        [0, 15, 30, 45].map((round) => ({ deadline, round, resolvedFrom })),
      );
      // What is taken only then is tried each ten seconds.
      expect(await tellAll(stories, 20)).toEqual([]);
    },
    60_000,
  );
});

it.each([0, 95_000])(
  'that a task is refused is told in time where nobody can tell any more why, for %d ms',
  async (hangsMs) => {
    const away = new LegacyCiError('legacy-ci-unavailable', 'away', { isTransient: true });
    const told = await tellDeadline({
      deadline: 30 * MINUTE,
      state: 'refusing',
      ci: (clock) => ({
        async builders() {
          await clock.sleep(hangsMs);
          throw away;
        },
      }),
    });
    expect(told).toMatchObject({ resolution: { state: 'exception', reason: 'malformed-payload' } });
  },
  30_000,
);
