/** Hints from a master's WebSocket. Nothing is queued while it is down: after every connection there was a gap. */
import type { Logger } from 'pino';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { reconnectDelay } from '../../delays.ts';
import { toError } from '../../errors.ts';
import { parseJson } from '../../json.ts';
import { excerpt } from '../../log.ts';
import type { Clock, InputCounter } from '../../ports.ts';
import type { Session } from './session.ts';

export interface WatchOptions {
  /** Of the master's web server, without a slash at its end. */
  readonly url: string;
  readonly session: Session;
  readonly clock: Clock;
  readonly log: Logger | undefined;
  readonly inputs?: InputCounter | undefined;
  readonly onHint: (buildRequestId: number) => void;
  readonly onGap: () => void;
  /** How long opening a connection may take in all, and then the answers to what is subscribed to. */
  readonly handshakeMs?: number;
}

const PATHS = ['buildrequests/*/*', 'builds/*/*'] as const;
/** A connection that answers nothing for so long is dead, whatever the socket says. */
const PING_MS = 20_000;
const HANDSHAKE_MS = 10_000;
/** What held for this long was no accident: the next failure is the first again. */
const STABLE_MS = 10_000;
const MAX_FRAME = 4_000_000;

const frame = z.object({
  k: z.string().nullish(),
  m: z.unknown().optional(),
  _id: z.unknown().optional(),
  code: z.unknown().optional(),
  msg: z.unknown().optional(),
});
const withRequestId = z.object({ buildrequestid: z.int() });

/** The build request that an event is about; undefined for events that say nothing new about any. */
export function requestOfEvent(key: string, message: unknown): number | 'malformed' | undefined {
  const [kind, id, event] = key.split('/');
  if (kind === 'buildrequests') {
    return /^\d{1,15}$/.test(id ?? '') ? Number(id) : 'malformed';
  }
  if (kind === 'builds' && (event === 'new' || event === 'finished')) {
    const parsed = withRequestId.safeParse(message);
    return parsed.success ? parsed.data.buildrequestid : 'malformed';
  }
  return undefined;
}

/** Connects in the background and keeps doing so until stopped. */
export function startWatch(options: WatchOptions): { stop(): Promise<void> } {
  const { clock, log } = options;
  const stopping = new AbortController();

  const loop = (async () => {
    for (let failures = 0; !stopping.signal.aborted; ) {
      let listeningSince: number | undefined;
      try {
        await listen(options, stopping.signal, () => {
          listeningSince = clock.uptime();
        });
        log?.warn('connection to Buildbot closed; reconnecting');
      } catch (error) {
        log?.warn({ err: toError(error) }, 'Buildbot cannot be listened to; trying again');
      }
      // A master that hangs up as soon as it has listened is not asked at once, again and again.
      const wasStable = listeningSince !== undefined && clock.uptime() - listeningSince >= STABLE_MS;
      failures = wasStable ? 1 : failures + 1;
      await clock.sleep(reconnectDelay(failures), stopping.signal);
    }
  })();

  return {
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}

/** One connection, from its opening to its end. Resolves when it is closed, throws when it never worked. */
async function listen(options: WatchOptions, signal: AbortSignal, onListening: () => void): Promise<void> {
  const address = `${options.url.replace(/^http/, 'ws')}/ws`;
  const headers = await options.session.headers();
  const { handshakeMs = HANDSHAKE_MS } = options;
  const dropFrame = (text: string) => {
    options.inputs?.rejected('websocket-frame');
    options.log?.warn({ excerpt: excerpt(text) }, 'malformed frame dropped');
  };
  await new Promise<void>((resolve, reject) => {
    const socket = new WebSocket(address, { headers, maxPayload: MAX_FRAME });
    const confirmed = new Set<string>();
    let isAlive = true;
    let failure: Error | undefined;
    let pinger: NodeJS.Timeout | undefined;
    const fail = (reason: string) => {
      failure = new Error(reason);
      socket.terminate();
    };
    // In all, and once more for what is subscribed to: the library's own limit begins anew with every byte.
    const opening = setTimeout(
      () => fail(`no WebSocket that can be listened to within ${handshakeMs} ms`),
      handshakeMs,
    );
    opening.unref();
    const ping = () => {
      if (!isAlive) {
        fail('no sign of life from Buildbot');
        return;
      }
      isAlive = false;
      socket.send(JSON.stringify({ cmd: 'ping', _id: 0 }), () => undefined);
    };
    const onStop = () => socket.terminate();
    signal.addEventListener('abort', onStop, { once: true });
    if (signal.aborted) {
      onStop();
    }

    socket.on('open', () => {
      opening.refresh();
      // Not before: whoever sends earlier is thrown at.
      pinger = setInterval(ping, PING_MS);
      pinger.unref();
      PATHS.forEach((path, index) => {
        socket.send(JSON.stringify({ cmd: 'startConsuming', path, _id: index + 1 }), () => undefined);
      });
    });
    socket.on('message', (data) => {
      isAlive = true;
      const text = data.toString();
      options.inputs?.received('websocket-frame');
      const parsed = frame.safeParse(parseJson(text)).data;
      if (parsed === undefined) {
        dropFrame(text);
        return;
      }
      const path = PATHS.find((_, index) => parsed._id === index + 1);
      if (path !== undefined && parsed.code !== undefined) {
        if (parsed.code !== 200) {
          fail(`Buildbot refuses to tell of ${path}: ${excerpt(text)}`);
          return;
        }
        const isNew = !confirmed.has(path);
        confirmed.add(path);
        // Once a connection, however often it is confirmed: everything is looked at again.
        if (isNew && confirmed.size === PATHS.length) {
          clearTimeout(opening);
          onListening();
          options.onGap();
        }
        return;
      }
      const id = parsed.k ? requestOfEvent(parsed.k, parsed.m) : undefined;
      if (id === 'malformed') {
        dropFrame(text);
      } else if (id !== undefined) {
        options.onHint(id);
      }
    });
    socket.on('error', (error) => {
      // What ended the connection, and not what came of that.
      failure ??= error;
      if (isFrameError(error)) {
        // The connection ends with it, and the log says so.
        options.inputs?.rejected('websocket-frame');
      }
      // It would wait half a minute for the goodbye of a master that has just broken the rules.
      socket.terminate();
    });
    socket.on('close', () => {
      clearTimeout(opening);
      clearInterval(pinger);
      signal.removeEventListener('abort', onStop);
      if (failure && !signal.aborted) {
        reject(failure);
      } else {
        resolve();
      }
    });
  });
}

/** What ws refuses by itself: too long, not UTF-8, against the protocol. */
function isFrameError(error: Error): boolean {
  return 'code' in error && String(error.code).startsWith('WS_ERR_');
}
