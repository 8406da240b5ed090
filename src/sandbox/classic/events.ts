/** From a build's start and end to messages: the waits, the upload of its log, and what gets lost on the way. */

import type { Clock } from '../../ports.ts';
import type { Faults } from '../faults.ts';
import { createPublisher } from '../queue/publisher.ts';
import type { ClassicBuild } from './builds.ts';
import type { LogUploads } from './log-uploads.ts';
import { type BuildEvent, buildEvent, logUploadedEvent, type Origin, type RequestIds } from './messages.ts';
import type { BuildMessage, SchemaKind } from './options.ts';

/** Ways in which events were known to tell less than they should. */
export interface EventSwitches {
  requestIds: RequestIds;
  /** So many uploads go wrong: the event comes, but its `log_url` is the word `null`. Goes down as it is used. */
  failUploads: number;
}

export interface EventsOptions {
  readonly switches: EventSwitches;
  readonly clock: Clock;
  readonly faults: Faults;
  readonly schema: SchemaKind;
  readonly masterName: string;
  readonly publish?: (message: BuildMessage) => void;
  readonly eventDelayMs?: number;
  readonly logUploadDelayMs?: number;
  readonly url: () => string;
  readonly uploads: LogUploads;
}

export interface Events {
  started(build: ClassicBuild, incarnation: string): void;
  finished(build: ClassicBuild, incarnation: string): void;
  /** A master that is killed takes with it what it had not yet handed to its publisher. */
  loseWaiting(): void;
  /** One that is stopped hands it over. */
  flush(): void;
  stop(): void;
}

export function createEvents(options: EventsOptions): Events {
  const { clock, eventDelayMs = 0, logUploadDelayMs = 0 } = options;
  const publisher = createPublisher({
    clock,
    faults: options.faults,
    publish: ({ exchange, routingKey, payload }) => options.publish?.({ exchange, routingKey, payload }),
  });
  const stopped = new AbortController();
  let master = { lost: false, over: new AbortController() };
  let messages = 0;
  let statusDbId = 120_000_000;

  function send(event: BuildEvent): void {
    if (!stopped.signal.aborted) {
      void publisher.flush([{ ...event, cc: [] }]);
    }
  }

  function origin(incarnation: string, messageId: number): Origin {
    const { schema, masterName, switches } = options;
    const { requestIds } = switches;
    return { schema, masterName, requestIds, incarnation, messageId, url: options.url(), sentAt: clock.now() };
  }

  async function waitInMaster(event: BuildEvent): Promise<void> {
    const own = master;
    await wait(eventDelayMs, own.over.signal);
    if (!own.lost) {
      send(event);
    }
  }

  async function wait(ms: number, signal: AbortSignal): Promise<void> {
    if (ms > 0) {
      await clock.sleep(ms, AbortSignal.any([signal, stopped.signal]));
    }
  }

  /** Commands in a queue on disk, which the master's death does not touch. */
  async function upload(build: ClassicBuild, incarnation: string): Promise<void> {
    await wait(logUploadDelayMs, stopped.signal);
    // postrun.py lower-cases the product, and dies where there is none.
    if (build.properties.product === undefined && build.properties.stage_product === undefined) {
      return;
    }
    statusDbId += 1;
    const isLost = options.switches.failUploads > 0;
    options.switches.failUploads -= isLost ? 1 : 0;
    const logUrl = isLost ? 'null' : options.uploads.add(build);
    send(logUploadedEvent(build, origin(incarnation, statusDbId), { logUrl, statusDbId }));
  }

  function event(kind: 'started' | 'finished', build: ClassicBuild, incarnation: string): BuildEvent {
    messages += 1;
    return buildEvent(kind, build, origin(incarnation, messages));
  }

  function endWaits(isLost: boolean): void {
    master.lost = isLost;
    master.over.abort();
    master = { lost: false, over: new AbortController() };
  }

  return {
    started: (build, incarnation) => void waitInMaster(event('started', build, incarnation)),
    finished: (build, incarnation) =>
      void waitInMaster(event('finished', build, incarnation)).then(() => upload(build, incarnation)),
    loseWaiting: () => endWaits(true),
    flush: () => endWaits(false),
    stop() {
      stopped.abort();
      publisher.stop();
    },
  };
}
