/** Lists of the queue's that come in pages. */
import type { z } from 'zod';
import { QueueError } from '../errors.ts';
import { AnswerTooLong } from '../foreign-answer.ts';
import type { taskPageAnswer } from './answers.ts';

type TaskPage = z.infer<typeof taskPageAnswer>;
export type ListedTask = TaskPage['tasks'][number];
interface Page {
  readonly limit: number;
  readonly continuationToken?: string;
}

const LIST_PAGE = 200;
/** More than any list has: tokens that lead from one to the other and back would go on for ever. */
const MAX_PAGES = 1000;

/**
 * The ids of a list's tasks, a page at a time. Tasks come with their definitions, of up to a megabyte each: a page that
 * is too long is asked for again in smaller ones, which grow again: a long list of small ones has its end in few pages.
 * @param read of one page; throws AnswerTooLong for one that is too long
 * @throws what `read` throws; QueueError for a list without end
 */
export async function* pagesOf(
  read: (page: Page) => Promise<TaskPage>,
  isWanted: (task: ListedTask) => boolean,
): AsyncGenerator<readonly string[]> {
  const nextToken = tokens();
  let limit = LIST_PAGE;
  let continuationToken: string | undefined;
  do {
    const token = continuationToken === undefined ? {} : { continuationToken };
    let answer = await unlessTooLong(() => read({ limit, ...token }), limit);
    while (answer === undefined) {
      limit = Math.ceil(limit / 4);
      answer = await unlessTooLong(() => read({ limit, ...token }), limit);
    }
    limit = Math.min(LIST_PAGE, limit * 2);
    yield answer.tasks.filter(isWanted).map(({ taskId }) => taskId);
    continuationToken = nextToken(answer.continuationToken);
  } while (continuationToken !== undefined);
}

/** @returns undefined where a smaller page may be short enough */
async function unlessTooLong<T>(read: () => Promise<T>, limit: number): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (limit > 1 && error instanceof AnswerTooLong) {
      return undefined;
    }
    throw error;
  }
}

/**
 * The token to go on with; undefined where one comes again, and the pages would go on for ever: the queue answers the
 * first page to a token that it does not know, and goes round among more entries of one millisecond than fit a page.
 */
export function tokens(): (answered: string | undefined) => string | undefined {
  const known = new Set<string>();
  return (answered) => {
    if (answered === undefined || known.has(answered)) {
      return undefined;
    }
    if (known.size >= MAX_PAGES) {
      throw new QueueError('queue-unavailable', `a list of the queue's does not end`, { isTransient: true });
    }
    known.add(answered);
    return answered;
  };
}
