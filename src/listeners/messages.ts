/** Foreign messages, narrowed to what they are good for: which task to look at. */
import { z } from 'zod';
import { isTaskId } from '../domain/task.ts';

/** What a message says: look at this task; or why it says nothing. */
export type ParsedMessage =
  | { readonly kind: 'task'; readonly taskId: string; readonly runId: number | null }
  | { readonly kind: 'malformed'; readonly reason: string };

/** Taskcluster's own limit for a task is 1 MB; its messages are far smaller. */
const MAX_BYTES = 2_000_000;

const message = z.object({
  status: z.object({ taskId: z.string().refine(isTaskId, 'not a taskId') }),
  runId: z.int().nonnegative().optional(),
});

/** Reads a message of `exchange/taskcluster-queue/v1/task-*`. Never throws. */
export function parseTaskMessage(body: Buffer): ParsedMessage {
  if (body.length > MAX_BYTES) {
    return { kind: 'malformed', reason: `${body.length} bytes are too many` };
  }
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    return { kind: 'malformed', reason: 'not JSON' };
  }
  const parsed = message.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return { kind: 'malformed', reason: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}` };
  }
  return { kind: 'task', taskId: parsed.data.status.taskId, runId: parsed.data.runId ?? null };
}
