/** Hints of the legacy CI: none that is heard is left lying. */
import { expect, it } from '@jest/globals';
import { createLegacyCiListener } from '../../src/listeners/legacy-ci-listener.ts';
import { createLog } from '../../src/log.ts';
import { eventually } from '../support/eventually.ts';
import { openMemoryStore } from '../support/memory-store.ts';
import { createManualClock } from '../support/queue-emulator.ts';
import { aLegacyCi } from '../support/stubs.ts';

it.each([0, 1, 2, 3, 4, 5, 6, 7, 8])(
  'a hint that comes %d ticks after the others were looked up is followed, too',
  async (ticks) => {
    let hear: (buildRequestId: number) => void = () => undefined;
    const hints: string[] = [];
    const clock = createManualClock(0);
    const store = await openMemoryStore();
    const listener = createLegacyCiListener({
      ci: aLegacyCi({
        async watch({ onHint }) {
          hear = onHint;
          return { stop: async () => undefined };
        },
      }),
      store: {
        ...store,
        async tasksOfRequests(ids) {
          if (ids.includes(1)) {
            void later(ticks).then(() => hear(2));
          }
          return ids.map((id) => `task of ${id}`);
        },
      },
      clock,
      log: createLog({ level: 'silent' }),
      onHint: (taskId) => hints.push(taskId),
      onGap: () => undefined,
    });
    await listener.start();
    hear(1);
    await eventually(
      () => {
        clock.advance(1000);
        return hints.length >= 2;
      },
      { timeoutMs: 3000, what: 'both hints' },
    );
    expect(hints).toEqual(['task of 1', 'task of 2']);
    await listener.stop();
    await store.close();
  },
);

async function later(ticks: number): Promise<void> {
  for (let tick = 0; tick < ticks; tick += 1) {
    await undefined;
  }
}
