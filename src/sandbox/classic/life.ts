/** A master's process, from one start to its end, and what goes on in it all the time. */
import type { Clock } from '../../ports.ts';

export interface Life {
  /** `pid<pid>-boot<start>`: tells the claims of this process from those of earlier ones. */
  readonly incarnation: string;
  readonly ended: AbortController;
}

/** Does something again and again; what goes wrong is tried again the next time. */
export async function repeat(
  { ended: { signal } }: Life,
  { clock, intervalMs }: { readonly clock: Clock; readonly intervalMs: number },
  work: () => Promise<unknown>,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(intervalMs, signal);
    if (!signal.aborted) {
      await work().catch(() => undefined);
    }
  }
}

/** Writes, as 0.8.12 does: a database that is away is asked again until it is back. */
export async function insist(
  { ended: { signal } }: Life,
  { clock, intervalMs }: { readonly clock: Clock; readonly intervalMs: number },
  write: () => Promise<unknown>,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await write();
      return;
    } catch {
      await clock.sleep(intervalMs, signal);
    }
  }
}
